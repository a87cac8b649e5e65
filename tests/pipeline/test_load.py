"""Curated tables under several writers, and the sum that must come out."""

from __future__ import annotations

import errno
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable

from pipeline import load, staging
from pipeline.contract import read_contract
from pipeline.load import Commit, Rows
from tests.pipeline.conftest import FLIGHTS, contract

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.pipeline.conftest import Stage

GOOD = b"flight,carrier,delay\n1,AA,2.5\n2,UA,NA\n"


def staged(directory: Path, batch: str, attempt: int, count: int) -> Rows:
    (table,) = read_contract(contract({"name": "flights", "properties": FLIGHTS})).tables
    path = directory / f"{batch}-{attempt}.parquet"
    numbers = pl.int_range(count, eager=True)
    pl.DataFrame({"flight": numbers, "carrier": pl.repeat("AA", count, eager=True)}).with_columns(
        delay=pl.lit(float(attempt)),
        _file=pl.lit("a.csv"),
        _line=numbers,
    ).write_parquet(path)
    return Rows([path], count, table)


def write(directory: str, batch: str, attempt: int, count: int) -> str:
    rows = staged(Path(directory), batch, attempt, count)
    try:
        load.replace_batch(
            Path(directory) / "flights", rows, Commit(batch, attempt, "job", (batch,))
        )
    except Exception as error:  # noqa: BLE001 - told to the test
        return str(error)
    return "committed"


def together(writers: list[tuple[str, str, int, int]]) -> list[str]:
    with multiprocessing.get_context("spawn").Pool(len(writers)) as pool:
        return pool.starmap(write, writers, chunksize=1)


def test_batches_published_at_once_all_arrive_even_in_a_new_table(tmp_path: Path) -> None:
    outcomes = together([(str(tmp_path), f"bat_{i}", 1, 20_000) for i in range(4)])
    assert outcomes == ["committed"] * 4
    counts = pl.read_delta(str(tmp_path / "flights")).group_by("_batch_id").len().sort("_batch_id")
    assert counts.rows() == [(f"bat_{i}", 20_000) for i in range(4)]


def test_two_attempts_at_once_leave_the_rows_of_the_later_one_alone(tmp_path: Path) -> None:
    write(str(tmp_path), "bat_0", 1, 10)
    outcomes = together([(str(tmp_path), "bat_1", attempt, 20_000) for attempt in (1, 2, 3)])
    assert outcomes[2] == "committed"
    rows = pl.read_delta(str(tmp_path / "flights")).filter(pl.col("_batch_id") == "bat_1")
    assert rows["delay"].unique().to_list() == [3.0]
    assert rows.height == 20_000


def through_polars(path: str) -> list[tuple[int, float, float]]:
    delay = pl.col("delay")
    counts = pl.scan_delta(path).select(pl.len(), delay.min().alias("a"), delay.max().alias("b"))
    return counts.collect().rows()


def through_duckdb(path: str) -> list[tuple[int, float, float]]:
    rows = DeltaTable(path).to_pyarrow_dataset()
    with duckdb.connect(":memory:") as connection:
        connection.register("rows", rows)
        return connection.sql("SELECT count(*), min(delay), max(delay) FROM rows").fetchall()


@pytest.mark.parametrize("read", [through_polars, through_duckdb])
def test_a_reader_sees_all_of_an_attempt_or_all_of_the_one_before(
    tmp_path: Path, read: Callable[[str], list[tuple[int, float, float]]]
) -> None:
    path = tmp_path / "flights"

    def replace(attempt: int) -> None:
        # An attempt has as many rows as its number says, in several files.
        few = [staged(tmp_path, f"part_{n}", attempt, 100 * attempt) for n in range(4)]
        paths = [file for each in few for file in each.paths]
        rows = Rows(paths, 400 * attempt, few[0].table)
        load.replace_batch(path, rows, Commit("bat_1", attempt, "job", ("bat_1",)))

    replace(1)
    with ThreadPoolExecutor(1) as writer:
        writing = writer.submit(lambda: [replace(attempt) for attempt in range(2, 30)])
        seen = []
        while not writing.done():
            seen += read(str(path))
        writing.result()
    seen += read(str(path))
    assert seen == [(int(400 * first), first, first) for _, first, _ in seen]
    attempts = [first for _, first, _ in seen]
    assert attempts == sorted(attempts)
    assert attempts[-1] == 29
    assert len(set(attempts)) > 3, "it was read while it was written"


def test_each_batch_is_one_commit(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD, "b.csv": GOOD, "c.csv": GOOD})
    stage.run(batch)
    table = DeltaTable(str(stage.root / "curated" / "acme" / "flights" / "flights"))
    assert table.version() == 0
    stage.run(batch)
    table.update_incremental()
    assert table.version() == 1
    assert table.history(1)[0]["batch_id"] == batch


def test_nothing_is_committed_if_staged_rows_are_lost_on_the_way(tmp_path: Path) -> None:
    write(str(tmp_path), "bat_1", 1, 5)
    rows = staged(tmp_path, "bat_1", 2, 5)
    short = Rows(rows.paths, 6, rows.table)
    with pytest.raises(Exception, match="5 rows are staged where 6 were counted"):
        load.replace_batch(tmp_path / "flights", short, Commit("bat_1", 2, "job", ("bat_1",)))
    assert pl.read_delta(str(tmp_path / "flights"))["delay"].unique().to_list() == [1.0]


def test_a_result_that_does_not_add_up_stops_publishing(stage: Stage) -> None:
    from pipeline import delivery, publish

    batch = stage.land({"a.csv": GOOD})
    stage.run(batch)
    conf = stage.conf(batch)
    roots = {
        f"INGEST_{n}_DIR": str(stage.root / n.lower()) for n in ("LANDING", "STAGED", "CURATED")
    }
    known = delivery.read_conf(
        conf, client="acme", project="flights", run_id=f"gw.{conf['job_id']}", roots=roots
    )
    result = staging.part_dir(known, 0) / "result.json"
    (value,) = staging.read_json(result)
    staging.write_json(result, [{**value, "read": value["read"] + 1}])
    with pytest.raises(Exception, match="2 rows are staged where 3 were counted"):
        publish.publish_batch(known, staging.Plan.read(known))
    assert stage.curated().height == 2


def test_memory_is_not_needed_for_a_table_that_has_no_rows(tmp_path: Path) -> None:
    commit = Commit("bat_1", 1, "job", ("bat_1",))
    write(str(tmp_path), "bat_2", 1, 5)
    load.remove_batch(tmp_path / "flights", commit)
    assert DeltaTable(str(tmp_path / "flights")).version() == 0


def test_staged_files_become_the_tables_own_and_outlive_what_was_staged(tmp_path: Path) -> None:
    rows = staged(tmp_path, "bat_1", 1, 5)
    load.replace_batch(tmp_path / "flights", rows, Commit("bat_1", 1, "job", ("bat_1",)))
    table = DeltaTable(str(tmp_path / "flights"))
    (file,) = [Path(each.removeprefix("file://")) for each in table.file_uris()]
    assert file.samefile(rows.paths[0])
    rows.paths[0].unlink()
    assert pl.read_delta(table)["_batch_id"].to_list() == ["bat_1"] * 5
    assert table.to_pyarrow_dataset().to_table().num_rows == 5


def test_a_table_on_another_file_system_gets_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another device")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert write(str(tmp_path), "bat_1", 1, 5) == "committed"
    (tmp_path / "bat_1-1.parquet").write_bytes(b"")
    assert pl.read_delta(str(tmp_path / "flights")).height == 5


def test_what_a_file_holds_is_kept_beside_it_so_that_readers_pass_over_it(tmp_path: Path) -> None:
    for number, count in ((1, 3), (2, 8)):
        write(str(tmp_path), f"bat_{number}", 1, count)
    table = DeltaTable(str(tmp_path / "flights"))
    known = pl.DataFrame(table.get_add_actions(flatten=True)).sort("num_records")
    assert known["num_records"].to_list() == [3, 8]
    assert known["max.flight"].to_list() == [2, 7]
    assert known["min.delay"].to_list() == [1.0, 1.0]
    assert pl.scan_delta(table).filter(pl.col("flight") > 5).collect().height == 2


def test_a_column_that_the_table_lacks_is_added_with_the_rows_that_have_it(tmp_path: Path) -> None:
    write(str(tmp_path), "bat_1", 1, 2)
    gate = {"name": "gate", "logicalType": "string"}
    document = contract({"name": "flights", "properties": [*FLIGHTS, gate]})
    rows = staged(tmp_path, "bat_2", 1, 2)
    wider = pl.read_parquet(rows.paths[0]).with_columns(gate=pl.lit("A1"))
    wider.write_parquet(rows.paths[0])
    (table,) = read_contract(document).tables
    commit = Commit("bat_2", 1, "job", ("bat_2",))
    load.replace_batch(tmp_path / "flights", Rows(rows.paths, 2, table), commit)
    found = pl.read_delta(str(tmp_path / "flights")).sort("_batch_id")
    assert found["gate"].to_list() == [None, None, "A1", "A1"]
    assert write(str(tmp_path), "bat_2", 2, 3) == "committed"
    found = pl.read_delta(str(tmp_path / "flights")).sort("_batch_id")
    assert found["gate"].to_list() == [None] * 5
