"""Queries of a contract, asked of a batch's tables.

What they need takes a third of a second to load, so that it is loaded by who has a query only.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import duckdb
import polars as pl
import pyarrow.dataset as ds

from pipeline import normalize
from pipeline.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.contract import Contract, Table
    from pipeline.quality import Rule

QUERY_SECONDS = 300


def ask(rule: Rule, table: Table, contract: Contract, accepted: Mapping[str, list[Path]]) -> float:
    """Run a contract's query where it can see the batch's tables and nothing else at all.

    Raises
    ------
    DeliveryError
        ``invalid-contract`` if it cannot be evaluated.
    """
    with duckdb.connect(":memory:") as connection:
        for other in contract.tables:
            connection.register(other.name, _dataset(other, accepted.get(other.name) or []))
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        timer = threading.Timer(QUERY_SECONDS, connection.interrupt)
        timer.start()
        try:
            row = connection.execute(_query(rule, table)).fetchone()
            return float(row[0]) if row and row[0] is not None else 0.0
        except (duckdb.Error, ValueError, TypeError) as error:
            detail = f"the query {rule.name} of {table.name} cannot be evaluated"
            raise DeliveryError("invalid-contract", detail) from error
        finally:
            timer.cancel()


def _dataset(table: Table, paths: list[Path]) -> ds.Dataset:
    if paths:
        return ds.dataset([str(path) for path in paths], format="parquet")
    schema = {column.name: normalize.dtype_of(column) for column in table.columns}
    return ds.dataset(pl.DataFrame(schema=schema).to_arrow())


def _query(rule: Rule, table: Table) -> str:
    quoted = f'"{table.name}"'
    query = rule.query
    for mark in ("${object}", "${table}", "{object}", "{table}"):
        query = query.replace(mark, quoted)
    for mark in ("${property}", "${column}", "{property}", "{column}"):
        query = query.replace(mark, f'"{rule.columns[0]}"' if rule.columns else quoted)
    return query
