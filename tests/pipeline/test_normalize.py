"""Texts as typed values, however many rows share them."""

from __future__ import annotations

import polars as pl
import pytest

from pipeline.contract import Table, read_contract
from pipeline.normalize import normalize
from tests.pipeline.conftest import contract

INSTANTS = ["2013-01-01T05:00:00Z", "2013-01-01 05:00", "soon", "", "2013-01-01T06:00:00+01:00"]
DAYS = ["2013-01-01", "2013-02-29", "NA", "2012-02-29", "1.1.2013"]


@pytest.fixture
def table() -> Table:
    columns = [
        {"name": "at", "logicalType": "timestamp"},
        {"name": "day", "logicalType": "date"},
        {"name": "id", "logicalType": "integer"},
    ]
    return read_contract(contract({"name": "t", "properties": columns})).tables[0]


def frame_of(instants: list[str], days: list[str]) -> pl.DataFrame:
    numbers = [str(number) for number in range(len(instants))]
    columns = {"c0": instants, "c1": days, "c2": numbers, "_line": range(len(instants))}
    return pl.DataFrame(columns, schema_overrides={"_line": pl.Int64})


def test_values_that_many_rows_share_are_read_as_those_that_stand_alone(table: Table) -> None:
    positions = {"at": 0, "day": 1, "id": 2}
    each = normalize(frame_of(INSTANTS, DAYS), table, positions)
    shared = normalize(frame_of(INSTANTS * 200, DAYS * 200), table, positions)
    columns = ["at", "day", *[name for name in each.columns if name.startswith("\x1f")][:2]]
    assert shared.select(columns).equals(pl.concat([each.select(columns)] * 200))
    assert shared["id"].to_list() == shared["_line"].to_list() == list(range(1000))
    assert each["at"].null_count() == 2
    assert each["day"].null_count() == 3


def test_rows_that_come_in_pieces_stay_in_order(table: Table) -> None:
    pieces = [frame_of([f"2013-01-{n:02d}T00:00Z"] * 3, ["2013-01-01"] * 3) for n in (1, 2, 3)]
    whole = pl.concat(pieces, rechunk=False).with_columns(_line=pl.int_range(9))
    found = normalize(whole, table, {"at": 0, "day": 1, "id": 2})
    assert found["at"].dt.day().to_list() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert found["_line"].to_list() == list(range(9))
