"""Whole jobs: plan, process, publish, on real files and real Delta tables."""

from __future__ import annotations

import gzip
import io
import zipfile
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import DeliveryError

if TYPE_CHECKING:
    from tests.pipeline.conftest import Stage

GOOD = b"flight,carrier,delay\n1,AA,2.5\n2,UA,NA\n"


def zipped(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_rows_of_a_plain_file_are_loaded_with_their_origin(stage: Stage) -> None:
    assert stage.load({"a.csv": GOOD}) == {"read": 2, "loaded": 2, "rejected": 0}
    frame = stage.curated()
    assert frame.select("flight", "carrier", "delay", "_file", "_line").rows() == [
        (1, "AA", 2.5, "a.csv", 2),
        (2, "UA", None, "a.csv", 3),
    ]
    assert frame["_batch_id"].unique().to_list() == [f"bat_{1:026d}"]


def test_files_in_a_zip_are_named_after_it_and_reported_part_by_part(stage: Stage) -> None:
    bad = b"carrier,delay,flight\nAA,n/a,3\nUA,1,4\n"
    stage.load({"flights.zip": zipped({"x/a.csv": GOOD, "b.csv": bad})})
    assert stage.curated()["_file"].unique().sort().to_list() == [
        "flights.zip/b.csv",
        "flights.zip/x/a.csv",
    ]
    steps = [(r["step"], r["map_index"], r["state"], r["total"]) for r in stage.gateway.ended()]
    assert steps == [
        ("plan", -1, "succeeded", 1),
        ("process", 0, "succeeded", 2),
        ("process", 1, "succeeded", 2),
        ("publish", -1, "succeeded", 1),
    ]
    assert stage.gateway.rows() == {"read": 4, "loaded": 3, "rejected": 1}
    assert stage.gateway.rejects() == [
        {"file": "flights.zip/b.csv", "line": 2, "column": "delay", "rule": "type", "value": "n/a"}
    ]


def test_gzip_of_several_members_is_one_file(stage: Stage) -> None:
    members = gzip.compress(GOOD) + gzip.compress(b"3,DL,1\n")
    assert stage.load({"a.csv.gz": members})["loaded"] == 3
    assert stage.curated()["_line"].to_list() == [2, 3, 4]


def test_replay_replaces_the_batch_and_leaves_other_batches(stage: Stage) -> None:
    first = stage.land({"a.csv": GOOD}, batch=1)
    stage.run(first)
    stage.load({"a.csv": b"flight,carrier,delay\n9,DL,1\n"}, batch=2)
    stage.run(first, attempt=2)
    stage.run(first, attempt=2)
    assert sorted(stage.curated()["flight"].to_list()) == [1, 2, 9]


def test_replay_under_a_stricter_contract_takes_rows_away(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD})
    stage.run(batch)
    stage.properties[2] = {**stage.properties[2], "required": True}
    assert stage.run(batch, attempt=2) == {"read": 2, "loaded": 1, "rejected": 1}
    assert stage.curated()["flight"].to_list() == [1]


def test_an_old_attempt_cannot_undo_a_later_one(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD})
    stage.run(batch, attempt=2)
    with pytest.raises(DeliveryError, match="stale-attempt"):
        stage.run(batch, attempt=1)
    assert stage.curated().height == 2


def test_a_superseding_batch_takes_the_place_of_the_older_one(stage: Stage) -> None:
    older = stage.land({"a.csv": GOOD}, batch=1)
    stage.run(older)
    stage.load({"a.csv": b"flight,carrier,delay\n7,DL,1\n"}, batch=2, supersedes=older)
    assert stage.curated()["flight"].to_list() == [7]
    with pytest.raises(DeliveryError, match="stale-attempt"):
        stage.run(older, attempt=2)


def test_validate_mode_reports_everything_and_loads_nothing(stage: Stage) -> None:
    stage.properties[0] = {**stage.properties[0], "primaryKey": True}
    content = GOOD + b"x,AA,1\n1,AA,1\n"
    stage.load({"a.csv": content}, mode="validate")
    assert stage.gateway.rows() == {"read": 4, "loaded": 0, "rejected": 2}
    assert [(r["line"], r["rule"]) for r in stage.gateway.rejects()] == [
        (4, "type"),
        (5, "primaryKey"),
    ]
    assert not (stage.root / "curated" / "acme").exists()


def test_validate_mode_goes_on_past_a_file_that_fits_no_table(stage: Stage) -> None:
    files = {"a.csv": b"who,what\n1,2\n", "b.csv": GOOD + b"x,AA,1\n"}
    with pytest.raises(DeliveryError, match="unknown-columns"):
        stage.load(files, mode="validate")
    assert [(r["file"], r["rule"]) for r in stage.gateway.rejects()] == [
        ("a.csv", "unknown-columns"),
        ("b.csv", "type"),
    ]


def test_keys_repeated_across_files_are_rejected_after_the_first(stage: Stage) -> None:
    stage.properties[0] = {**stage.properties[0], "unique": True}
    other = b"flight,carrier,delay\n2,DL,1\n3,DL,1\n3,DL,2\n"
    assert stage.load({"a.csv": GOOD, "b.csv": other}) == {"read": 5, "loaded": 3, "rejected": 2}
    assert [(r["file"], r["line"], r["rule"], r["value"]) for r in stage.gateway.rejects()] == [
        ("b.csv", 2, "unique", "2"),
        ("b.csv", 4, "unique", "3"),
    ]
    assert stage.gateway.rows() == {"read": 5, "loaded": 3, "rejected": 2}


def test_composite_key_is_compared_as_a_whole(stage: Stage) -> None:
    stage.properties[0] = {**stage.properties[0], "primaryKey": True, "primaryKeyPosition": 1}
    stage.properties[1] = {**stage.properties[1], "primaryKey": True, "primaryKeyPosition": 2}
    content = b"flight,carrier,delay\n1,AA,\n1,UA,\n1,AA,5\n2,,5\n"
    assert stage.load({"a.csv": content}) == {"read": 4, "loaded": 2, "rejected": 2}
    rules = [(r["line"], r["rule"], r["value"]) for r in stage.gateway.rejects()]
    assert rules == [(5, "required", None), (4, "primaryKey", "1, AA")]


@pytest.mark.parametrize(
    ("on_reject", "reason"),
    [
        (
            {"policy": "reject-rows", "max_rows": 1},
            "2 of 5 rows were rejected; the project allows 1 rows",
        ),
        ({"policy": "reject-rows", "max_percent": 30}, "the project allows 30 percent"),
        ({"policy": "fail-batch"}, "the project allows none"),
        ({"policy": "reject-file", "max_rows": 4}, "5 of 5 rows were rejected"),
    ],
)
def test_over_tolerance_fails_the_batch_and_loads_nothing(
    stage: Stage, on_reject: dict[str, object], reason: str
) -> None:
    stage.on_reject = on_reject
    with pytest.raises(DeliveryError, match="too-many-rejects"):
        stage.load({"a.csv": GOOD + b"x,AA,1\ny,AA,1\n5,AA,1\n"})
    error = stage.gateway.error()
    assert error is not None
    assert reason in error["detail"]
    assert len(stage.gateway.rejects()) == 2
    assert not (stage.root / "curated" / "acme").exists()


def test_reject_file_loads_the_other_files_and_counts_all_rows_of_the_bad_one(
    stage: Stage,
) -> None:
    stage.on_reject = {"policy": "reject-file"}
    files = {"a.csv": GOOD, "b.csv": GOOD + b"x,AA,1\n", "readme.txt": b"hello\nworld\n"}
    assert stage.load(files) == {"read": 6, "loaded": 2, "rejected": 4}
    assert stage.gateway.rows() == {"read": 6, "loaded": 2, "rejected": 4}
    assert stage.curated()["_file"].unique().to_list() == ["a.csv"]


def test_reject_file_counts_a_repeated_key_against_the_later_file(stage: Stage) -> None:
    stage.on_reject = {"policy": "reject-file"}
    stage.properties[0] = {**stage.properties[0], "unique": True}
    other = b"flight,carrier,delay\n2,DL,1\n3,DL,1\n"
    assert stage.load({"a.csv": GOOD, "b.csv": other}) == {"read": 4, "loaded": 2, "rejected": 2}


def test_a_file_that_fits_no_table_fails_the_batch_and_names_its_columns(stage: Stage) -> None:
    files = {"a.csv": GOOD, "b.csv": b"flight,carrier,price,delay\n1,AA,2,3\n", "c.csv": b""}
    with pytest.raises(DeliveryError, match="unknown-columns"):
        stage.load(files)
    assert stage.gateway.error() == {
        "code": "unknown-columns",
        "detail": "b.csv and 1 more: unknown columns (price)",
    }
    assert [(r["file"], r["line"], r["rule"], r["value"]) for r in stage.gateway.rejects()] == [
        ("b.csv", 1, "unknown-columns", "price"),
        ("c.csv", 1, "empty-file", None),
    ]


def test_missing_columns_are_named(stage: Stage) -> None:
    with pytest.raises(DeliveryError, match=r"missing-columns: a.csv: missing columns \(delay\)"):
        stage.load({"a.csv": b"flight,carrier\n1,AA\n"})


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({}, "empty-batch"),
        ({"a.csv": b"flight,carrier,delay\n"}, "empty-batch"),
        ({"a.zip": zipped({})}, "empty-batch"),
        ({"a.csv": b""}, "empty-file"),
        ({"a.csv": bytes(5000)}, "unknown-columns"),
        ({"a.csv": bytes(range(256)) * 20}, "unknown-columns"),
        ({"a.zip": GOOD}, "corrupt-archive"),
        ({"a.zip": zipped({"a.csv": GOOD})[:-30]}, "corrupt-archive"),
        ({"a.csv.gz": gzip.compress(GOOD)[:-4]}, "corrupt-archive"),
        ({"a.zip": zipped({"b.zip": zipped({"c.gz": gzip.compress(GOOD)})})}, "unsafe-archive"),
        ({"a.gz": gzip.compress(gzip.compress(gzip.compress(GOOD)))}, "unsafe-archive"),
    ],
)
def test_what_cannot_be_read_fails_with_a_reason(
    stage: Stage, files: dict[str, bytes], code: str
) -> None:
    with pytest.raises(DeliveryError) as failure:
        stage.load(files)
    assert failure.value.code == code
    error = stage.gateway.error()
    assert error is not None
    assert error["code"] == code


def test_two_tables_in_one_batch_are_told_apart_by_their_columns(stage: Stage) -> None:
    airlines = [
        {"name": "code", "logicalType": "string"},
        {"name": "name", "logicalType": "string"},
    ]
    stage.tables = [
        {"name": "flights", "properties": stage.properties},
        {"name": "airlines", "properties": airlines},
    ]
    batch = stage.land({"a.csv": GOOD, "b.csv": b"name;code\nAmerican;AA\n"})
    assert stage.run(batch)["loaded"] == 3
    assert stage.curated("airlines").select("code", "name").rows() == [("AA", "American")]


def test_a_table_that_a_replay_no_longer_fills_loses_the_batch(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD})
    stage.run(batch)
    stage.tables = [{"name": "renamed", "properties": stage.properties}]
    stage.run(batch, attempt=2)
    assert stage.curated("flights").height == 0
    assert stage.curated("renamed").height == 2


def test_a_file_pattern_decides_between_tables_with_the_same_columns(stage: Stage) -> None:
    named = [{"property": "files", "value": "late_*.csv"}]
    stage.tables = [
        {"name": "late", "properties": stage.properties, "customProperties": named},
        {"name": "flights", "properties": stage.properties},
    ]
    with pytest.raises(DeliveryError, match="ambiguous-columns"):
        stage.load({"a.csv": GOOD})
    assert stage.load({"late_1.csv": GOOD}, batch=2)["loaded"] == 2
    assert stage.curated("late").height == 2


def test_a_changed_column_type_is_refused_instead_of_cast(stage: Stage) -> None:
    stage.load({"a.csv": GOOD}, batch=1)
    stage.properties[2] = {"name": "delay", "logicalType": "string"}
    with pytest.raises(DeliveryError, match="schema-conflict: delay of flights"):
        stage.load({"a.csv": GOOD}, batch=2)


def test_a_new_column_is_null_for_older_batches(stage: Stage) -> None:
    stage.load({"a.csv": GOOD}, batch=1)
    stage.properties.append({"name": "origin", "logicalType": "string"})
    stage.load({"a.csv": b"flight,carrier,delay,origin\n3,AA,1,JFK\n"}, batch=2)
    assert stage.curated()["origin"].to_list() == [None, None, "JFK"]


def test_many_small_files_share_tasks_in_order(stage: Stage) -> None:
    row = b"flight,carrier,delay\n%d,AA,1\n"
    stage.load({"many.zip": zipped({f"{i:03d}.csv": row % i for i in range(200)})})
    parts = [r for r in stage.gateway.ended() if r["step"] == "process"]
    assert len(parts) <= 64
    assert stage.curated()["flight"].to_list() == list(range(200))


def test_a_job_leaves_the_landing_zone_as_it_was(stage: Stage) -> None:
    batch = stage.land({"flights.zip": zipped({"a.csv": GOOD})})
    directory = stage.batch_dir(batch)
    before = {p: p.stat().st_mtime_ns for p in directory.rglob("*")}
    directory.chmod(0o500)
    stage.run(batch)
    assert {p: p.stat().st_mtime_ns for p in directory.rglob("*")} == before
