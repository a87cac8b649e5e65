"""Every format and archive gives the same rows; what cannot be read is refused by name."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from pipeline import documents
from pipeline.errors import DeliveryError
from tests.pipeline.inputs import (
    ARCHIVES,
    FLIGHTS,
    FORMATS,
    GOOD,
    SHEET,
    lines,
    parquet,
    tarred,
    workbook,
    zipped,
    zstd,
)

if TYPE_CHECKING:
    from tests.pipeline.conftest import Stage

ROWS = [(1, "AA", 2.5), (2, "UA", None)]


@pytest.mark.parametrize("name", [*FORMATS, *ARCHIVES])
def test_the_same_table_is_loaded_whatever_it_is_sent_in(stage: Stage, name: str) -> None:
    content = {**FORMATS, **ARCHIVES}[name]
    assert stage.load({name: content}) == {"read": 2, "loaded": 2, "rejected": 0}
    assert stage.curated().select("flight", "carrier", "delay").rows() == ROWS
    assert not (list(stage.root.glob("staged/**/unpacked")))


def test_all_formats_lie_together_in_one_archive(stage: Stage) -> None:
    assert stage.load({"all.zip": zipped(FORMATS)})["loaded"] == 2 * len(FORMATS)
    assert stage.curated()["_file"].n_unique() == len(FORMATS)


def test_files_of_one_name_in_different_folders_are_kept_apart(stage: Stage) -> None:
    other = b"flight,carrier,delay\n3,DL,1\n"
    entries = {"x/a.csv": GOOD, "y/a.csv": other, "a.csv": other}
    packed = {"a.zip": zipped(entries), "b.tar.gz": gzip.compress(tarred(entries))}
    assert stage.load(packed)["loaded"] == 8
    assert stage.curated()["_file"].unique().sort().to_list() == [
        f"{archive}/{name}" for archive in sorted(packed) for name in sorted(entries)
    ]


def test_rows_say_where_they_stand_in_files_of_every_kind(stage: Stage) -> None:
    records = [{"flight": i, "carrier": "AA", "delay": 1} for i in (1, 2, "x", 4)]
    bad = pl.DataFrame({"flight": ["1", "x"], "carrier": ["AA", "AA"], "delay": [1.0, 2.0]})
    sheet = [[], [], SHEET[0], [1, "AA", 1], [], ["x", "AA", 1]]
    stage.load(
        {
            "a.ndjson": b"\n" + lines(records),
            "b.json": json.dumps(records).encode(),
            "c.parquet": parquet(bad),
            "d.xlsx": workbook({"One": sheet}),
        }
    )
    got = [(r["file"], r["line"], r["rule"], r["value"]) for r in stage.gateway.rejects()]
    assert got == [
        ("a.ndjson", 4, "type", "x"),
        ("b.json", 3, "type", "x"),
        ("c.parquet", 2, "type", "x"),
        ("d.xlsx", 6, "type", "x"),
    ]
    lines_loaded = stage.curated().select("_file", "_line").rows()
    assert ("a.ndjson", 2) in lines_loaded
    assert ("d.xlsx", 4) in lines_loaded


def test_several_sheets_are_several_files(stage: Stage) -> None:
    book = workbook({"One": SHEET, "Two": [SHEET[0], [3, "DL", 1]], "None": []})
    assert stage.load({"a.xlsx": book})["loaded"] == 3
    assert stage.curated()["_file"].unique().sort().to_list() == ["a.xlsx/One", "a.xlsx/Two"]


def test_records_that_are_none_cost_themselves(stage: Stage) -> None:
    content = lines([{"flight": 1, "carrier": "AA", "delay": None}]) + (
        b'{"flight": 2, "carrier": "A\n'
        b'{"flight": 3, "carrier": "AA", "price": 1}\n'
        b'{"flight": 4, "flight": 5}\n'
        b"[6]\n"
        b'{"flight": 7, "carrier": "AA"}\n'
    )
    stage.load({"a.ndjson": content})
    assert stage.curated()["_line"].to_list() == [1, 6]
    assert [(r["line"], r["rule"], r["value"][:9]) for r in stage.gateway.rejects()] == [
        (2, "row-shape", '{"flight"'),
        (3, "unknown-columns", "price"),
        (4, "row-shape", '{"flight"'),
        (5, "row-shape", "[6]"),
    ]


def test_numbers_of_json_are_not_rounded_and_nested_values_stay_json(stage: Stage) -> None:
    stage.properties[1] = {"name": "carrier", "logicalType": "string"}
    content = (
        b'{"flight": 9007199254740993, "carrier": {"a": [1.10, null, "\xc3\xa4"]}, "delay": 1e2}'
    )
    stage.load({"a.json": content})
    assert stage.curated().select("flight", "carrier", "delay").rows() == [
        (9007199254740993, '{"a": [1.1, null, "ä"]}', 100.0)
    ]


def test_typed_values_are_read_as_the_contract_means_them(stage: Stage) -> None:
    stage.properties = [
        {"name": "id", "logicalType": "integer"},
        {"name": "day", "logicalType": "date", "logicalTypeOptions": {"format": "dd.MM.yyyy"}},
        {"name": "at", "logicalType": "timestamp"},
        {"name": "ok", "logicalType": "boolean"},
    ]
    zone = dt.timezone(dt.timedelta(hours=2))
    values = {
        "id": [1.0, None],
        "day": [dt.date(2013, 1, 31), None],
        "at": [dt.datetime(2013, 1, 31, 12, 0, 0, 5, zone), None],
        "ok": [True, False],
    }
    sheet = [list(values), [2, dt.date(2013, 1, 31), dt.date(2013, 1, 31), True]]
    stage.load({"a.parquet": parquet(pl.DataFrame(values)), "b.xlsx": workbook({"S": sheet})})
    at = dt.datetime(2013, 1, 31, 10, 0, 0, 5, dt.UTC)
    midnight = dt.datetime(2013, 1, 31, tzinfo=dt.UTC)
    assert stage.curated().select("id", "day", "at", "ok").rows() == [
        (1, dt.date(2013, 1, 31), at, True),
        (None, None, None, False),
        (2, dt.date(2013, 1, 31), midnight, True),
    ]


def protected() -> bytes:
    return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "EncryptedPackage".encode("utf-16-le")


def nested() -> bytes:
    return parquet(FLIGHTS.with_columns(carrier=pl.lit([["AA"]] * 2)))


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "a PDF document": ("a.csv", b"%PDF-1.7\n" + GOOD, "a.csv: wrong type (a PDF document)"),
    "Parquet as CSV": ("a.csv", FORMATS["a.parquet"], "wrong type (a Parquet file, not plain text"),
    "Excel as CSV": ("a.csv", FORMATS["a.xlsx"], "wrong type (an Excel workbook, not plain text"),
    "CSV as Parquet": ("a.parquet", GOOD, "wrong type (plain text, not a Parquet file"),
    "CSV as Excel": ("a.xlsx", GOOD, "wrong type (plain text, not an Excel workbook"),
    "CSV as JSON": ("a.json", GOOD, "wrong type (plain text, not JSON"),
    "one object": ("a.json", b'{\n "flight": 1\n}', "one JSON object, and no list of them"),
    "cut array": ("a.json", FORMATS["a.json"][:-4], "the JSON array is cut short"),
    "cut Parquet": ("a.parquet", FORMATS["a.parquet"][:-9], "damaged or cut short"),
    "names that are no text": (
        "a.parquet",
        FORMATS["a.parquet"].replace(b"carrier", b"carr\xbeer"),
        "damaged or cut short",
    ),
    "nested Parquet": ("a.parquet", nested(), "the column carrier holds no plain values"),
    "protected": ("a.xlsx", protected(), "protected by a password"),
    "cut old workbook": ("a.xls", protected()[:-40], "damaged or cut short"),
    "empty workbook": ("a.xlsx", workbook({"One": []}), "a.xlsx: empty file"),
    "empty Parquet": ("a.parquet", b"", "a.parquet: empty file"),
    "no columns": ("a.json", b"[{}]", "no JSON objects were found"),
    "wide CSV": ("a.csv", b",".join(b"c%d" % i for i in range(10_000)), "10000 columns"),
    "other names": ("a.ndjson", b'{"flight": 1, "price": 2}\n', "unknown columns (price)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_loaded_is_refused_in_words(stage: Stage, case: str) -> None:
    name, content, words = REFUSED[case]
    with pytest.raises(DeliveryError):
        stage.load({name: content})
    error = stage.gateway.error()
    assert error is not None
    assert words in error["detail"]
    assert [r["file"] for r in stage.gateway.rejects()] == [name]
    assert not (stage.root / "curated" / "acme").exists()


def test_the_other_files_are_loaded_where_a_project_rejects_whole_files(stage: Stage) -> None:
    stage.on_reject = {"policy": "reject-file"}
    refused = {f"{i}-{name}": content for i, (name, content, _) in enumerate(REFUSED.values())}
    counted = {"read": 3, "loaded": 2, "rejected": 1}  # the record with other names
    assert stage.load({"good.csv": GOOD, **refused}) == counted
    rejects = [(r["file"], r["rule"]) for r in stage.gateway.rejects()]
    assert [file for file, _ in rejects] == list(refused)


@pytest.mark.parametrize(
    ("name", "content", "detail"),
    [
        ("a.zst", zstd(GOOD)[:-2], "a.zst is damaged or cut short"),
        ("a.csv.gz", gzip.compress(GOOD)[:-9], "a.csv.gz is damaged or cut short"),
        ("a.tar", tarred({"a.csv": GOOD})[:1000], "a.tar is damaged or cut short"),
        ("a.tar.gz", gzip.compress(tarred({"a.csv": GOOD})[:512]), "is damaged or cut short"),
        ("a.tar", GOOD, "a.tar is not the tar file that its name says"),
        ("a.tgz", gzip.compress(GOOD), "a.tgz is not the tar file that its name says"),
        ("a.xlsx", FORMATS["a.xlsx"][:-30], "a.xlsx is damaged or cut short"),
    ],
)
def test_a_broken_archive_leaves_nothing_unpacked(
    stage: Stage, name: str, content: bytes, detail: str
) -> None:
    with pytest.raises(DeliveryError, match="corrupt-archive"):
        stage.load({"first.zip": zipped({"a.csv": GOOD}), name: content})
    error = stage.gateway.error()
    assert error is not None
    assert detail in error["detail"]
    assert list(stage.root.glob("staged/**/unpacked/*")) == []


def test_an_array_that_breaks_amid_its_records_is_told_by_record(stage: Stage) -> None:
    broken = b'[{"flight": 1, "carrier": "AA", "delay": 1}, {"flight": 2 "carrier": "AA"}]'
    with pytest.raises(DeliveryError, match=r"unreadable-file: a.json: record 2 is damaged"):
        stage.load({"a.json": broken})


def test_a_workbook_too_large_for_a_worker_is_refused(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_WORKBOOK_BYTES", "1000")
    with pytest.raises(DeliveryError, match="a workbook may unpack to"):
        stage.load({"a.xlsx": FORMATS["a.xlsx"]})


def arrays(text: bytes, step: int) -> list[Any]:
    blocks = [text[i : i + step] for i in range(0, len(text), step)]
    return [r for rows in documents.rows_of_array(blocks, ["a"], 10_000) for r in rows.frame.rows()]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_an_array_reads_the_same_however_its_bytes_are_cut(step: int) -> None:
    text = '\ufeff [ {"a": "ü]}"} ,{"a":12.50},\n{"a":null},{"a":[1]} ] \n'.removeprefix("\ufeff")
    got = arrays(text.encode(), step)
    assert got == [("ü]}", 1), ("12.50", 2), (None, 3), ("[1]", 4)]
    assert arrays(b" [ ] ", step) == []
    for broken in (b"[", b'[{"a":1}', b'[{"a":1},]', b'[{"a":1}] x', b"{}", b'[{"a":1} {"a":2}]'):
        with pytest.raises(documents.DocumentError):
            arrays(broken, step)


def test_a_record_without_end_is_given_up_before_it_fills_memory() -> None:
    endless = (b'"' if i == 1 else b"[" if i == 0 else b"x" * 500 for i in range(10_000_000))
    with pytest.raises(documents.DocumentError):
        list(documents.rows_of_array(endless, ["a"], 10_000))


def test_parquet_in_several_row_groups_keeps_its_row_numbers(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_CHUNK_ROWS", "250")
    frame = pl.DataFrame({"flight": range(1000), "carrier": ["AA"] * 1000, "delay": [1.0] * 1000})
    buffer = io.BytesIO(parquet(frame, row_group_size=100))
    assert stage.load({"a.parquet": buffer.getvalue()})["loaded"] == 1000
    assert stage.curated()["_line"].to_list() == list(range(1, 1001))
    assert sum(r["step"] == "process" for r in stage.gateway.ended()) == 4
