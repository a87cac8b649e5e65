"""Large files in many pieces: the pieces give what the whole gives, within little memory."""

from __future__ import annotations

import codecs
import csv
import io
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline import cutting
from pipeline.cutting import Cutter
from pipeline.errors import DeliveryError
from pipeline.limits import Limits
from pipeline.plan import grouped
from pipeline.records import read_rows
from pipeline.staging import Chunk
from pipeline.text import Dialect
from tests.pipeline.inputs import lines, zipped

if TYPE_CHECKING:
    from tests.pipeline.conftest import Stage

ROOT = Path(__file__).parents[2]


def cuts_of(text: bytes, chance: random.Random, delimiter: str = ",") -> list[cutting.Cut]:
    cutter = Cutter(chance.randrange(1, 300), chance.randrange(1, 30), 1 << 20)
    at = 0
    while at < len(text):
        step = chance.choice([1, 2, chance.randrange(1, 200)])
        cutter.write(text[at : at + step])
        at += step
    return cutter.cuts_for(delimiter)


def read(text: bytes, line: int = 1, *, heading: bool = True) -> tuple[list[tuple], list[tuple]]:
    good: list[tuple] = []
    bad: list[tuple] = []
    for rows in read_rows([text], ",", 2, first_line=line, heading=heading):
        good += rows.frame.rows()
        bad += [(each.line, each.text) for each in rows.bad]
    return good, bad


def joined(text: bytes, cuts: list[cutting.Cut]) -> tuple[list[tuple], list[tuple]]:
    starts = [(0, 1), *((cut.offset, cut.line) for cut in cuts)]
    ends = [*(start for start, _ in starts[1:]), len(text)]
    good: list[tuple] = []
    bad: list[tuple] = []
    for (start, line), end in zip(starts, ends, strict=True):
        piece = read(text[start:end], line, heading=start == 0)
        good += piece[0]
        bad += piece[1]
    return good, bad


@pytest.mark.parametrize("seed", range(80))
def test_chunks_of_any_well_formed_file_joined_are_the_whole(seed: int) -> None:
    chance = random.Random(seed)
    buffer = io.StringIO()
    writer = csv.writer(
        buffer,
        lineterminator=chance.choice(["\n", "\r\n"]),
        quoting=chance.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    )
    alphabet = ["a", "ü", " ", ",", "\n", '"', "\r\n", "1", "", "\n\n", ";"]
    for _ in range(chance.randrange(1, 150)):
        fields = ["".join(chance.choices(alphabet, k=chance.randrange(6))) for _ in range(2)]
        writer.writerow(fields)
    text = ("\n" * chance.randrange(3) + buffer.getvalue()).encode()
    cuts = cuts_of(text, chance)
    assert len(cuts) > 1 or len(text) < 1000
    assert joined(text, cuts) == read(text)


@pytest.mark.parametrize("seed", range(80))
def test_chunks_of_any_text_at_all_joined_are_the_whole(seed: int) -> None:
    chance = random.Random(seed)
    pieces = ["a", ",", "\n", "b,c\n", '"x",y\n', "ü", "c,d\ne,f\n", ";", '"', '""', "\r\n"]
    weights = [5, 5, 5, 9, 9, 2, 9, 1, *([chance.choice([0, 0.02, 1])] * 2), 1]
    text = "".join(chance.choices(pieces, weights, k=400)).encode()
    assert joined(text, cuts_of(text, chance)) == read(text)


def test_a_quote_out_of_order_ends_the_cutting_but_not_for_another_delimiter() -> None:
    cutter = Cutter(1, 1, 1 << 20)
    for line in (b"a;b\n", b'1;"x"\n', b"2;3\n"):
        cutter.write(line)
    assert [cut.line for cut in cutter.cuts_for(";")] == [2, 3, 4]
    assert [cut.line for cut in cutter.cuts_for(",")] == [2]


def test_a_byte_order_mark_ahead_of_a_quote_does_not_end_the_cutting() -> None:
    cutter = Cutter(1, 1, 1 << 20)
    cutter.write(codecs.BOM_UTF8 + b'"a","b"\n1,2\n')
    assert [(cut.offset, cut.line) for cut in cutter.cuts_for(",")] == [(15, 3)]


def quoted_rows(count: int) -> bytes:
    return b"flight,carrier,delay\n" + b"".join(
        b'%d,"%s",1\n' % (i, b"A\nA" if i % 7 == 0 else b"AA") for i in range(count)
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_a_file_in_many_tasks_is_loaded_as_in_one(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    stage.properties[1] = {"name": "carrier", "logicalType": "string"}
    content = (quoted_rows(300_000) + b"x,AA,1\n").decode().replace("A", "Ä").encode(encoding)
    batch = stage.land({"a.csv": content.replace(b"c\xc4", b"cA")})
    whole = stage.run(batch)
    rows, rejects = stage.curated(), stage.gateway.rejects()
    monkeypatch.setenv("INGEST_CHUNK_BYTES", str(1 << 20))
    assert stage.run(batch, attempt=2) == whole
    assert stage.curated().equals(rows)
    assert stage.gateway.rejects() == rejects
    tasks = sum(r["step"] == "process" for r in stage.gateway.ended())
    assert tasks == 1 if encoding == "utf-16" else tasks > 1


def test_rules_of_a_whole_file_hold_across_its_chunks(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_CHUNK_BYTES", str(1 << 20))
    stage.properties[0] = {**stage.properties[0], "unique": True}
    rows = b"flight,carrier,delay\n" + b"".join(b"%d,AA,1\n" % i for i in range(300_000))
    content = {"a.csv": rows + b"7,AA,1\n", "b.csv": b"flight,carrier,delay\n-1,AA,1\n"}
    assert stage.load(content) == {"read": 300_002, "loaded": 300_001, "rejected": 1}
    (reject,) = stage.gateway.rejects()
    assert (reject["file"], reject["line"], reject["rule"]) == ("a.csv", 300_002, "unique")
    stage.on_reject = {"policy": "reject-file"}
    assert stage.load(content, batch=2) == {"read": 300_002, "loaded": 1, "rejected": 300_001}


def test_lines_of_json_are_cut_too(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_CHUNK_ROWS", "30000")
    records = [{"flight": i, "carrier": "A\nA", "delay": 1} for i in range(100_000)]
    stage.properties[1] = {"name": "carrier", "logicalType": "string"}
    assert stage.load({"a.ndjson": lines(records)})["loaded"] == 100_000
    assert stage.curated()["_line"].to_list() == list(range(1, 100_001))
    assert sum(r["step"] == "process" for r in stage.gateway.ended()) > 2


def chunk(size: int, name: str = "a", part: int = 1) -> Chunk:
    return Chunk(name, "landing", name, size, "t", ("c",), Dialect("utf-8", ","), part=part)


@pytest.mark.parametrize("sizes", [[1] * 5000, [1 << 30] * 5000, [1 << 40, *[1] * 3000], [0] * 70])
def test_no_more_tasks_are_made_than_airflow_expands_to(sizes: list[int]) -> None:
    chunks = [chunk(size, str(i)) for i, size in enumerate(sizes)]
    groups = grouped(chunks, Limits())
    assert [each for group in groups for each in group] == chunks
    assert 64 <= len(groups) <= 1024
    assert all(groups)


def test_more_files_and_chunks_than_tasks_are_loaded_whole(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_CHUNK_BYTES", "1")
    monkeypatch.setenv("INGEST_MAX_TASKS", "7")
    content = b"flight,carrier,delay\n" + b"1,AA,1\n" * 500_000
    many = {f"{i:04d}.csv": b"flight,carrier,delay\n%d,AA,1\n" % i for i in range(30)}
    assert stage.load({"a.csv": content, "many.zip": zipped(many)})["loaded"] == 500_030
    assert sum(r["step"] == "process" for r in stage.gateway.ended()) == 7


def test_thousands_of_files_are_planned_for_few_tasks(stage: Stage) -> None:
    from pipeline import tasks

    many = {f"{i:04d}.csv": b"flight,carrier,delay\n%d,AA,1\n" % i for i in range(3000)}
    batch = stage.land({"many.zip": zipped(many)})
    conf = stage.conf(batch)
    parts = tasks.plan(stage.entry, conf, stage.task("plan", conf))
    assert len(parts) == 64
    assert parts[0]["label"] == "many.zip/0000.csv +49"


def test_a_task_is_named_for_its_file_and_part(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline import tasks

    monkeypatch.setenv("INGEST_CHUNK_BYTES", str(1 << 20))
    batch = stage.land({"a.csv": quoted_rows(300_000), "b.csv": quoted_rows(3)})
    conf = stage.conf(batch)
    labels = [p["label"] for p in tasks.plan(stage.entry, conf, stage.task("plan", conf))]
    assert labels[0] == "a.csv, part 1 of 2"
    assert labels[-1] == "b.csv"
    monkeypatch.setenv("INGEST_MAX_TASKS", "2")
    labels = [p["label"] for p in tasks.plan(stage.entry, conf, stage.task("plan", conf))]
    assert labels == ["a.csv, part 1 of 2", "a.csv, part 2 of 2 +1"]


def test_the_plan_is_a_table_in_the_log(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("INGEST_CHUNK_BYTES", str(1 << 20))
    stage.on_reject = {"policy": "reject-file"}
    good = "flight\tcarrier\tdelay\n1\tÜ\t2\n".encode("cp1252")
    stage.load({"a.csv": quoted_rows(200_000), "b.tsv": good, "c.csv": b""})
    told = next(m for m in caplog.messages if m.startswith("Plan:"))
    assert [" ".join(line.split()) for line in told.splitlines()] == [
        "Plan: 3 files, 2.6 MiB, in 4 chunks for 4 tasks",
        "file format encoding delimiter size table chunks",
        "a.csv csv utf-8 , 2.6 MiB flights 2",
        "b.tsv tsv cp1252 tab 27 B flights 1",
        "c.csv csv - - 0 B none: empty file 1",
    ]


def test_a_line_too_long_is_refused_by_its_number(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_LINE_BYTES", str(1 << 20))
    content = b"flight,carrier,delay\n1,AA,1\n2," + b"A" * (5 << 20) + b",1\n3,AA,1\n"
    with pytest.raises(DeliveryError, match=r"line-too-long: a.csv: line too long \(line 3\)"):
        stage.load({"a.csv": content})
    with pytest.raises(DeliveryError, match=r"line too long \(line 3\)"):
        stage.load({"a.csv": content.replace(b"\n", b"\r")}, batch=2)


def test_many_lines_that_end_in_bare_carriage_returns_are_not_one_long_line(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_LINE_BYTES", str(1 << 20))
    content = b"flight,carrier,delay\r" + b"1,AA,1\r" * 300_000
    assert stage.load({"a.csv": content})["loaded"] == 300_000


def test_broken_bytes_at_the_borders_of_chunks_cost_their_rows_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_CHUNK_BYTES", "1")
    stage.properties[1] = {"name": "carrier", "logicalType": "string"}
    rows = "".join(f"{i},Äü,1\n" for i in range(200_000)).encode()
    content = b"flight,carrier,delay\n1,\xc3,1\n" + rows + b"2,\xe4,1\n"
    assert stage.load({"a.csv": content}) == {"read": 200_002, "loaded": 200_000, "rejected": 2}
    assert [(r["line"], r["rule"]) for r in stage.gateway.rejects()] == [
        (2, "encoding"),
        (200_003, "encoding"),
    ]


def test_a_setting_that_makes_no_sense_is_told() -> None:
    with pytest.raises(ValueError, match="INGEST_MAX_TASKS must be a whole number above 0"):
        Limits.of({"INGEST_MAX_TASKS": "0"})
    assert Limits.of({"INGEST_MAX_TASKS": "5"}).max_tasks == 5


WORKER = textwrap.dedent("""
    import os, sys
    from pathlib import Path
    import pipeline.tasks
    from pipeline.delivery import Delivery
    from pipeline.limits import Limits
    from pipeline.process import process_group
    from pipeline.staging import Plan

    def peak():
        told = Path("/proc/self/status").read_text().partition("VmHWM:")[2]
        return int(told.split()[0]) >> 10

    roots = [Path(sys.argv[1]) / name for name in ("landing", "staged", "curated")]
    delivery = Delivery(sys.argv[2], sys.argv[3], "acme", "flights", 1, *roots)
    plan = Plan.read(delivery)
    before = peak()
    process_group(delivery, plan, int(sys.argv[4]), Limits.of(os.environ))
    print(before, peak())
""")


def peak_of_worker(stage: Stage, batch: str, index: int) -> tuple[int, int]:
    """Run one task in a process of its own; give its memory before and at most, in MiB."""
    conf = stage.conf(batch)
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(stage.root), conf["job_id"], batch, str(index)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "airflow")},
        capture_output=True,
        text=True,
        check=True,
    )
    before, peak = map(int, done.stdout.split())
    return before, peak


def test_a_worker_of_256_mib_reads_its_chunk_of_a_file_of_any_size(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline import tasks

    monkeypatch.setenv("INGEST_BLOCK_BYTES", str(1 << 20))
    monkeypatch.setenv("INGEST_CHUNK_BYTES", str(32 << 20))
    size = int(os.environ.get("INGEST_TEST_FILE_BYTES", str(65 << 20)))
    fields = [{"name": f"c{i}", "logicalType": "integer"} for i in range(16)]
    stage.properties = [*fields, {"name": "c16", "logicalType": "timestamp"}]
    heading = ",".join(f"c{i}" for i in range(17)) + "\n"
    row = "2013,1,1,{},515,2,830,819,11,15,25,33,21,227,1400,5,2013-01-01T10:00:00Z\n"
    block = "".join(row.format(i) for i in range(10_000))
    batch = stage.land({"a.csv": (heading + block * (size // len(block))).encode()})
    conf = stage.conf(batch)
    parts = tasks.plan(stage.entry, conf, stage.task("plan", conf))
    assert len(parts) >= 2
    before, peak = peak_of_worker(stage, batch, 1)
    assert before < peak < 256
