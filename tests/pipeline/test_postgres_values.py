"""Every value reaches the client's database as the curated table has it."""

from __future__ import annotations

import datetime as dt
import random
import struct
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipeline import load, postgres
from pipeline.contract import read_contract
from pipeline.errors import DeliveryError
from pipeline.load import Commit, Rows
from tests.pipeline.conftest import contract

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.pipeline.database import Database

KINDS = {
    "Straße_100%s": "string",
    "order": "integer",
    "Number": "number",
    "select": "boolean",
    "day": "date",
    "at": "timestamp",
}
COMMIT = Commit("bat_1", 1, "job_1", ("bat_1",))
TEXTS = [
    "", " ", "\\N", "\\.", "\n\\.\n", '"', '""', "a\"b'c", ",", "\r", "\n", "\r\n", "\t", "NULL",
    "null", "\\", "\\\\", "\\x00", "é", "e\u0301", "\u202e", "\ufeff", "\U0001f600", "%s", "'; --",
    "x" * 300_000, "\x01\x7f", "true", "1", "-0.0",
]  # fmt: skip
NUMBERS = [0.0, -0.0, 5e-324, -5e-324, 1.7976931348623157e308, 0.1 + 0.2, 1e16, 123456789.12345679]
NUMBERS += [float("inf"), float("-inf"), float("nan"), 1e-7, 2**53 + 2.0]
WHOLE = [0, -1, 2**63 - 1, -(2**63), 2**53 + 1]
DAYS = [dt.date(1, 1, 1), dt.date(999, 12, 31), dt.date(1582, 10, 10), dt.date(9999, 12, 31)]
TIMES = [
    dt.datetime(1, 1, 1, tzinfo=dt.UTC),
    dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC),
]


def drawn(chance: random.Random, kind: str) -> Any:
    """Give a value such as nobody would write down."""
    letters = '\\.N",\n\r\t aé\u2028\U0001f600%'
    days = dt.date.max.toordinal()
    makers: dict[str, Callable[[], Any]] = {
        "string": lambda: "".join(chance.choices(letters, k=chance.randrange(6))),
        "integer": lambda: chance.randrange(-(2**63), 2**63),
        "number": lambda: struct.unpack("d", chance.randbytes(8))[0],
        "boolean": lambda: chance.random() < 0.5,
        "date": lambda: dt.date.fromordinal(chance.randrange(1, days)),
        "timestamp": lambda: (
            TIMES[0] + dt.timedelta(chance.randrange(days - 2), 0, chance.randrange(86_400 * 10**6))
        ),
    }
    return makers[kind]() if chance.randrange(8) else None


def table_of(columns: dict[str, list[Any]], folder: Path) -> Rows:
    """Stage values as the wide step does."""
    properties = [{"name": name, "logicalType": kind} for name, kind in KINDS.items()]
    (table,) = read_contract(contract({"name": "Hostile-1", "properties": properties})).tables
    count = len(columns["order"])
    rows = Rows([folder / "0.parquet"], count, table)
    given = {**columns, "_file": ['a.zip/ä,".csv'] * count, "_line": list(range(count))}
    schema = {name: kind for name, kind in rows.schema().items() if name != "_batch_id"}
    pl.DataFrame(given, schema=schema).write_parquet(rows.paths[0])
    return rows


def loaded(rows: Rows, database: Database) -> None:
    with postgres.replacing(database.place, "flights", {"Hostile-1": rows}, COMMIT):
        pass


def assert_the_same(rows: Rows, database: Database) -> None:
    staged = pl.concat(rows.frames("bat_1"))
    assert_frame_equal(
        database.rows("Hostile-1").select(staged.columns).sort("_line"),
        staged,
        check_exact=True,
        check_dtypes=False,
    )
    told = f'SELECT "Number"::text FROM flights."{rows.table.name}" ORDER BY _line'
    is_minus = [each[0] is not None and each[0].startswith("-") for each in database.ask(told)]
    kept = [x is not None and x == x and struct.pack(">d", x)[0] >= 128 for x in staged["Number"]]  # noqa: PLR0124
    assert is_minus == kept


def test_values_on_every_edge_are_kept(client_database: Database, tmp_path: Path) -> None:
    edges = dict(zip(KINDS, (TEXTS, WHOLE, NUMBERS, [True, False], DAYS, TIMES), strict=True))
    longest = max(map(len, edges.values()))
    padded = {
        name: [*values, *[None] * (longest - len(values)), None] for name, values in edges.items()
    }
    rows = table_of(padded, tmp_path)
    loaded(rows, client_database)
    assert_the_same(rows, client_database)


@pytest.mark.parametrize("seed", [1, 2])
def test_values_nobody_thought_of_are_kept(
    client_database: Database, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    count = load.FRAME_ROWS + 3_000
    drawn_ones = {name: [drawn(chance, kind) for _ in range(count)] for name, kind in KINDS.items()}
    rows = table_of(drawn_ones, tmp_path)
    loaded(rows, client_database)
    assert_the_same(rows, client_database)


def on_days(days: list[int], folder: Path) -> Rows:
    """Stage days, counted from 1970, at noon too."""
    count = len(days)
    at = [day * 86_400_000_000 + 43_200_000_000 for day in days]
    empty: dict[str, list[Any]] = {name: [None] * count for name in KINDS}
    times = {
        "day": pl.Series(days, dtype=pl.Int32).cast(pl.Date),
        "at": pl.Series(at, dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
    }
    return table_of({**empty, **times}, folder)


def test_days_out_of_the_years_that_have_four_digits_are_kept(
    client_database: Database, tmp_path: Path
) -> None:
    known = {
        -2_440_588: "4714-11-24 BC",
        -719_163 - 366: "0002-12-31 BC",
        -719_163: "0001-12-31 BC",
        -719_162: "0001-01-01",
        2_932_897: "10000-01-01",
    }
    loaded(on_days(list(known), tmp_path), client_database)
    told = (
        "SELECT day::text, (at AT TIME ZONE 'UTC')::text FROM flights.\"Hostile-1\" ORDER BY _line"
    )
    assert [each[0] for each in client_database.ask(told)] == list(known.values())
    noons = [
        f"{each[:-3]} 12:00:00 BC" if "BC" in each else f"{each} 12:00:00"
        for each in known.values()
    ]
    assert [each[1] for each in client_database.ask(told)] == noons


def test_a_day_that_postgres_does_not_know_is_refused_by_name(
    client_database: Database, tmp_path: Path
) -> None:
    with pytest.raises(DeliveryError, match="out of range") as refused:
        loaded(on_days([-2_440_589], tmp_path), client_database)
    assert refused.value.code == "refused-by-database"
    assert client_database.markers() == {}
