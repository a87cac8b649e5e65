"""Rows in the client's own database: with their batch, all or none, once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipeline import postgres, purge, tasks
from pipeline.contract import read_contract
from pipeline.errors import DeliveryError, PlatformError
from pipeline.load import Commit, Rows
from tests.pipeline.conftest import FLIGHTS, contract
from tests.pipeline.database import session
from tests.pipeline.test_faults import ended, start

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.postgres_session import Place
    from tests.pipeline.conftest import Stage
    from tests.pipeline.database import Database

GOOD = b"flight,carrier,delay\n1,AA,2.5\n2,UA,NA\n"
MORE = b"flight,carrier,delay\n3,DL,0.5\n4,AA,\n5,WN,1\n"
END = "PERFORM pg_terminate_backend(pg_backend_pid())"
GATE = {"name": "gate", "logicalType": "string"}
TWO_TABLES = [
    {"name": "flights", "properties": FLIGHTS[:1]},
    {"name": "tails", "properties": [{"name": "tail", "logicalType": "string"}]},
]


@pytest.fixture
def both(stage: Stage, client_database: Database) -> Stage:
    """A project whose rows also go into its client's database."""
    stage.database = lambda: client_database.place
    return stage


def batch_id(number: int) -> str:
    return f"bat_{number:026d}"


def assert_the_same(stage: Stage, database: Database, table: str = "flights") -> None:
    curated = stage.curated(table)
    found = database.rows(table).select(curated.columns)
    assert_frame_equal(found, curated, check_dtypes=False)


def versions(database: Database) -> list[tuple[Any, ...]]:
    """Give which transaction wrote which row."""
    told = "SELECT _line, xmin::text FROM flights.flights ORDER BY 1"
    marked = "SELECT batch_id, xmin::text FROM flights._batches ORDER BY 1"
    return [*database.ask(told), *database.ask(marked)]


def fails_with(stage: Stage, batch: str, code: str, attempt: int = 1) -> str:
    """Publish as a step's last try does; give the reason that the gateway is told."""
    conf = stage.conf(batch, attempt)
    run = replace(stage.task("publish", conf), is_last_try=True)
    with pytest.raises((DeliveryError, PlatformError)) as failure:
        tasks.publish(stage.entry, conf, run, stage.database)
    told = stage.gateway.reports[-1]["error"]
    assert told == {"code": failure.value.code, "detail": failure.value.detail}
    assert told["code"] == code
    return str(told["detail"])


def prepared(stage: Stage, content: bytes = MORE, *, batch: int = 2, **manifest: Any) -> str:
    """Do all of a job but its last step."""
    name = stage.land({"b.csv": content}, batch=batch, **manifest)
    conf = stage.conf(name)
    for i, part in enumerate(tasks.plan(stage.entry, conf, stage.task("plan", conf))):
        tasks.process(stage.entry, conf, stage.task("process", conf, i), part)
    return name


def published(stage: Stage, batch: str, attempt: int = 1) -> dict[str, int]:
    conf = stage.conf(batch, attempt)
    return tasks.publish(stage.entry, conf, stage.task("publish", conf), stage.database)


# --- what is there ------------------------------------------------------------------------------


def test_a_batchs_rows_are_in_the_clients_database_and_belong_to_the_client(
    both: Stage, client_database: Database
) -> None:
    both.load({"a.csv": GOOD, "b.csv": MORE + b"x,XX,9\n"})
    assert_the_same(both, client_database)
    job = both.conf(batch_id(1))["job_id"]
    assert client_database.markers() == {batch_id(1): (1, job, {"flights": 5}, None)}
    owned = "SELECT tablename, tableowner, hasindexes FROM pg_tables WHERE schemaname = 'flights'"
    owner = client_database.place.database
    found = sorted(client_database.ask(owned))
    assert found == [("_batches", owner, True), ("flights", owner, True)]


def test_the_same_step_again_changes_nothing(both: Stage, client_database: Database) -> None:
    both.load({"a.csv": GOOD})
    before = versions(client_database)
    published(both, batch_id(1))
    assert versions(client_database) == before
    assert_the_same(both, client_database)


def test_a_replay_replaces_also_what_retention_has_taken_from_the_curated_table(
    both: Stage, client_database: Database
) -> None:
    both.load({"a.csv": GOOD})
    both.load({"a.csv": MORE}, batch=2)
    before = versions(client_database)
    purge.remove_rows(both.root / "curated/acme/flights/flights", batch_id(2))
    assert client_database.rows().height == 5, "retention is not about the client's database"
    both.run(batch_id(2), attempt=2)
    assert_the_same(both, client_database)
    assert client_database.markers()[batch_id(2)][0] == 2
    assert versions(client_database) != before


def test_a_client_that_did_away_with_everything_gets_it_back_by_a_replay(
    both: Stage, client_database: Database
) -> None:
    both.load({"a.csv": GOOD})
    client_database.ask("DROP TABLE flights.flights")
    both.run(batch_id(1), attempt=2)
    assert_the_same(both, client_database)
    client_database.ask("DROP SCHEMA flights CASCADE")
    both.run(batch_id(1), attempt=3)
    assert_the_same(both, client_database)


def test_a_superseded_batchs_rows_go_with_the_new_ones_and_do_not_come_back(
    both: Stage, client_database: Database
) -> None:
    both.load({"a.csv": GOOD})
    both.load({"a.csv": MORE}, batch=2, supersedes=batch_id(1))
    assert_the_same(both, client_database)
    assert client_database.rows()["_batch_id"].unique().to_list() == [batch_id(2)]
    assert client_database.markers()[batch_id(1)][2:] == ({}, batch_id(2))
    late = Commit(batch_id(1), 9, "job_late", (batch_id(1),))
    with pytest.raises(DeliveryError, match="stale-attempt"):
        put(client_database.place, both.root, late)
    assert_the_same(both, client_database)


def test_a_batch_that_fills_another_table_now_has_nothing_left_in_the_first(
    both: Stage, client_database: Database
) -> None:
    both.tables = TWO_TABLES
    both.load({"a.csv": b"flight\n1\n", "b.csv": b"tail\nN1\n"})
    assert_the_same(both, client_database)
    assert_the_same(both, client_database, "tails")
    client_database.ask("CREATE TABLE flights.own AS SELECT * FROM flights.flights")
    both.tables = TWO_TABLES[1:]
    both.on_reject = {"policy": "reject-file", "max_rows": 9, "max_percent": 100}
    both.run(batch_id(1), attempt=2)
    assert client_database.rows().height == 0
    assert_the_same(both, client_database, "tails")
    assert client_database.rows("own").height == 1, "a table of the client's own is its own"


def test_a_text_that_postgres_cannot_hold_is_a_reject_of_its_own(
    both: Stage, client_database: Database
) -> None:
    both.properties = [*FLIGHTS, GATE]
    both.load({"a.csv": b"flight,carrier,delay,gate\n1,AA,1,A\0B\n2,UA,,A1\n"})
    assert [each["rule"] for each in both.gateway.rejects()] == ["nul-byte"]
    assert_the_same(both, client_database)
    assert client_database.rows()["gate"].to_list() == ["A1"]


def test_a_validation_does_not_even_ask_for_the_database(stage: Stage) -> None:
    def ask() -> Place:
        raise AssertionError

    stage.database = ask
    assert stage.load({"a.csv": GOOD}, mode="validate")["loaded"] == 0


# --- at once ------------------------------------------------------------------------------------


def staged(folder: Path, commit: Commit, *names: str) -> dict[str, Rows]:
    properties = [{"name": "flight", "logicalType": "integer"}]
    tables = [{"name": name, "properties": properties} for name in names or ("flights",)]
    path = folder / f"{commit.job_id}.parquet"
    numbers = list(range(commit.attempt))
    frame = pl.DataFrame({"flight": numbers, "_file": ["a"] * len(numbers), "_line": numbers})
    frame.write_parquet(path)
    known = read_contract(contract(*tables)).tables
    return {table.name: Rows([path], len(numbers), table) for table in known}


def put(place: Place, folder: Path, commit: Commit) -> None:
    with postgres.replacing(place, "flights", staged(folder, commit), commit):
        pass


def test_batches_that_are_published_at_once_do_not_wait_for_each_other(
    client_database: Database, tmp_path: Path
) -> None:
    place = client_database.place
    commits = [Commit(f"bat_{n}", n, f"job_{n}", (f"bat_{n}",)) for n in (1, 2)]
    first, second = [(staged(tmp_path, each), each) for each in commits]
    with postgres.replacing(place, "flights", *first):
        with postgres.replacing(place, "flights", *second):
            pass
        assert client_database.rows()["_batch_id"].unique().to_list() == ["bat_2"]
    assert client_database.rows().height == 3


def test_first_batches_that_are_published_at_once_make_their_table_once(
    client_database: Database, tmp_path: Path
) -> None:
    commits = [Commit(f"bat_{n}", n, f"job_{n}", (f"bat_{n}",)) for n in range(1, 9)]
    rows = [staged(tmp_path, each) for each in commits]
    with ThreadPoolExecutor(len(commits)) as pool:

        def publish(each: Commit, filled: dict[str, Rows]) -> None:
            with postgres.replacing(client_database.place, "flights", filled, each):
                pass

        list(pool.map(publish, commits, rows))
    assert client_database.rows().height == sum(range(1, 9))
    assert len(client_database.markers()) == 8


def test_attempts_at_once_leave_the_rows_of_the_later_one_alone(
    client_database: Database, tmp_path: Path
) -> None:
    earlier, later = [Commit("bat_1", n, f"job_{n}", ("bat_1",)) for n in (1, 2)]
    superseding = Commit("bat_2", 3, "job_3", ("bat_2", "bat_1"))
    outcomes: dict[str, object] = {}

    def attempt(commit: Commit) -> None:
        try:
            put(client_database.place, tmp_path, commit)
        except DeliveryError as error:
            outcomes[commit.job_id] = error.code

    for first, other in ((later, earlier), (superseding, replace(later, attempt=9))):
        thread = threading.Thread(target=attempt, args=(other,))
        with postgres.replacing(client_database.place, "flights", staged(tmp_path, first), first):
            thread.start()
            client_database.server.until("wait_event_type = 'Lock'", 1)
        thread.join()
        assert outcomes.pop(other.job_id) == "stale-attempt"
        found = client_database.rows()
        assert found["_batch_id"].to_list() == [first.batch_id] * first.attempt


def test_a_reader_sees_all_tables_of_a_batch_or_none(
    client_database: Database, tmp_path: Path
) -> None:
    commit = Commit("bat_1", 4, "job_1", ("bat_1",))
    names = ("flights", "tails")
    count = " UNION ALL ".join(f"SELECT count(*) FROM flights.{name}" for name in names)
    with postgres.replacing(
        client_database.place, "flights", staged(tmp_path, commit, *names), commit
    ):
        assert client_database.ask(count) == [(0,), (0,)]
    assert client_database.ask(count) == [(4,), (4,)]


# --- what goes wrong ----------------------------------------------------------------------------


def test_a_database_that_is_away_is_named_and_the_curated_table_is_as_before(
    both: Stage, client_database: Database
) -> None:
    both.load({"a.csv": GOOD})
    batch = prepared(both)
    both.database = lambda: client_database.away
    detail = fails_with(both, batch, "database-unavailable")
    assert detail == "the client's database cannot be reached; the delivery is kept"
    assert both.curated().height == 2
    both.database = lambda: replace(client_database.place, password="expired")
    assert "cannot be reached" in fails_with(both, batch, "database-unavailable")
    both.database = lambda: client_database.place
    published(both, batch)
    assert_the_same(both, client_database)


@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (END, "cannot be reached"),
        ("RAISE EXCEPTION 'x' USING ERRCODE = 'disk_full'", "is full"),
        ("RAISE EXCEPTION 'x' USING ERRCODE = 'too_many_connections'", "has no room"),
        ("RAISE EXCEPTION 'x' USING ERRCODE = 'deadlock_detected'", "somebody else holds"),
    ],
)
def test_a_database_that_fails_as_rows_come_in_leaves_both_sides_as_before(
    both: Stage, client_database: Database, happens: str, said: str
) -> None:
    both.load({"a.csv": GOOD})
    batch = prepared(both)
    client_database.on_rows(happens)
    assert said in fails_with(both, batch, "database-unavailable")
    assert both.curated().height == client_database.rows().height == 2
    client_database.calm()
    published(both, batch)
    assert client_database.rows().height == 5
    assert_the_same(both, client_database)


def test_a_database_that_goes_away_at_the_end_is_made_up_for_by_the_next_try(
    both: Stage, client_database: Database
) -> None:
    both.load({"a.csv": GOOD})
    batch = prepared(both)
    client_database.on_rows(END, when="COMMIT")
    fails_with(both, batch, "database-unavailable")
    assert client_database.rows().height == 2
    assert both.curated().height == 5, "it had its commit"
    client_database.calm()
    published(both, batch)
    assert client_database.rows().height == 5
    assert_the_same(both, client_database)


def test_rows_that_the_clients_own_rules_refuse_are_an_end_with_the_databases_reason(
    both: Stage, client_database: Database
) -> None:
    both.load({"a.csv": GOOD})
    batch = prepared(both)
    client_database.ask("ALTER TABLE flights.flights ADD CONSTRAINT few CHECK (flight < 5)")
    assert 'check constraint "few"' in fails_with(both, batch, "refused-by-database")
    assert both.curated().height == client_database.rows().height == 2


def test_curated_tables_that_cannot_be_written_leave_the_database_as_before(
    both: Stage, client_database: Database
) -> None:
    both.load({"a.csv": GOOD})
    batch = prepared(both)
    log = both.root / "curated/acme/flights/flights/_delta_log"
    log.rename(log.with_name("aside"))
    log.write_text("in the way")
    with pytest.raises(Exception, match=r".") as failure:
        published(both, batch)
    assert not isinstance(failure.value, DeliveryError | PlatformError)
    log.unlink()
    log.with_name("aside").rename(log)
    assert both.curated().height == client_database.rows().height == 2
    published(both, batch)
    assert_the_same(both, client_database)


def test_staged_rows_that_are_gone_are_not_the_databases_fault(
    client_database: Database, tmp_path: Path
) -> None:
    commit = Commit("bat_1", 4, "job_1", ("bat_1",))
    rows = staged(tmp_path, commit)
    with (
        pytest.raises(RuntimeError, match="4 rows are staged where 9"),
        postgres.replacing(
            client_database.place, "flights", {"flights": replace(rows["flights"], count=9)}, commit
        ),
    ):
        raise AssertionError
    rows["flights"].paths[0].unlink()
    with (
        pytest.raises(FileNotFoundError),
        postgres.replacing(client_database.place, "flights", rows, commit),
    ):
        raise AssertionError
    assert client_database.rows().height == 0


def test_a_task_that_is_killed_before_the_end_leaves_nothing_and_after_it_everything(
    both: Stage, client_database: Database
) -> None:
    both.load({"a.csv": GOOD})
    batch = prepared(both)
    conf = both.conf(batch)
    for when, left in (("AFTER", 2), ("COMMIT", 5)):
        client_database.on_rows("PERFORM pg_advisory_xact_lock(7)", when=when)
        with session(client_database.place) as holder, holder.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(7)")
            process = start(both, conf, "publish")
            client_database.server.until("wait_event = 'advisory'", 1)
            process.kill()
            ended(process)
        client_database.server.until("application_name = 'ingest-publish'", 0)
        assert client_database.rows().height == left
        client_database.calm()
    before = versions(client_database)
    published(both, batch)
    assert versions(client_database) == before, "the marker tells that all is there"
    assert_the_same(both, client_database)


# --- the shape of tables ------------------------------------------------------------------------


def test_a_new_column_of_the_contract_is_added_to_the_table(
    both: Stage, client_database: Database
) -> None:
    both.load({"a.csv": GOOD})
    both.properties = [*FLIGHTS, GATE]
    both.load({"b.csv": b"flight,carrier,delay,gate\n3,DL,1,A1\n"}, batch=2)
    assert client_database.rows()["gate"].to_list() == [None, None, "A1"]
    assert_the_same(both, client_database)
    both.properties = list(FLIGHTS)
    both.load({"c.csv": MORE}, batch=3)
    assert client_database.rows().height == 6


def test_a_column_of_another_type_is_a_conflict_and_nothing_is_loaded(
    both: Stage, client_database: Database
) -> None:
    both.load({"a.csv": GOOD})
    client_database.ask("ALTER TABLE flights.flights ALTER carrier TYPE varchar(2)")
    batch = prepared(both)
    detail = fails_with(both, batch, "schema-conflict")
    assert detail == "carrier of flights has another type in the client's database"
    assert both.curated().height == client_database.rows().height == 2


def test_something_else_of_the_tables_name_is_refused(
    both: Stage, client_database: Database
) -> None:
    client_database.ask("CREATE SCHEMA flights")
    client_database.ask(
        "CREATE VIEW flights.flights AS SELECT 1::bigint _line, ''::text _file, ''::text _batch_id,"
        " 1::bigint flight, ''::text carrier, 1::double precision delay"
    )
    batch = prepared(both, GOOD, batch=1)
    assert "view" in fails_with(both, batch, "refused-by-database")
