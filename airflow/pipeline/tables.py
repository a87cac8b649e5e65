"""Rules that speak of a table's rows together: repeated keys, counts, queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from pipeline.errors import DeliveryError
from pipeline.rejects import MAX_REJECTS_PER_PART, Reject
from pipeline.validate import violates_rule

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.contract import Column, Contract, Table
    from pipeline.quality import Rule


@dataclass(frozen=True)
class Duplicates:
    """Rows that repeat an earlier key, as ``_file`` and ``_line``."""

    rows: pl.DataFrame
    rejects: list[Reject]

    @property
    def count(self) -> int:
        """How many rows repeat a key."""
        return self.rows.height


def find_duplicates(paths: list[Path], table: Table) -> Duplicates:
    """Find rows that repeat a key of an earlier row; rows without a full key repeat nothing."""
    found: list[pl.DataFrame] = []
    rejects: list[Reject] = []
    for rule, columns in table.unique_keys:
        rows = _repeated(paths, columns)
        found.append(rows.select("_file", "_line"))
        name = columns[0] if len(columns) == 1 else None
        shown = rows.head(MAX_REJECTS_PER_PART - len(rejects))
        for *values, file, line in shown.iter_rows():
            rejects.append(Reject(file, line, name, rule, ", ".join(map(str, values))))
    return Duplicates(pl.concat(found).unique(maintain_order=True), rejects)


def _repeated(paths: list[Path], columns: tuple[str, ...]) -> pl.DataFrame:
    rows = pl.scan_parquet(paths).drop_nulls(columns)
    key = pl.struct(columns)
    # Cheap, and nearly always the answer: as many hashes as rows are as many keys.
    total, hashes = rows.select(pl.len(), key.hash().n_unique().alias("n")).collect().row(0)
    if total == hashes:
        return pl.DataFrame(schema=rows.select(*columns, "_file", "_line").collect_schema())
    keys = rows.select(*columns, "_file", "_line").collect()
    return keys.filter(~keys.select(key.is_first_distinct()).to_series())


def without(paths: list[Path], rows: pl.DataFrame) -> pl.LazyFrame:
    """Give all rows but these."""
    return pl.scan_parquet(paths).join(
        rows.lazy(), on=["_file", "_line"], how="anti", maintain_order="left"
    )


def check_rules(contract: Contract, accepted: Mapping[str, list[Path]]) -> None:
    """Hold the accepted rows against every rule that speaks of a whole table.

    Raises
    ------
    DeliveryError
        ``quality-failed`` naming each broken rule, ``invalid-contract`` for a query that fails.
    """
    broken = []
    for table in contract.tables:
        paths = accepted.get(table.name) or []
        if not paths:
            continue
        for column, rule in _rules_of(table):
            if rule.metric == "sql":
                from pipeline import queries  # noqa: PLC0415 - few contracts have any

                measured = queries.ask(rule, table, contract, accepted)
            else:
                measured = _measure(rule, column, paths)
            if not rule.accepts(measured):
                place = f"{table.name}.{column.name}" if column else table.name
                broken.append(f"{rule.name} of {place} is {measured:g}, wanted {rule.wanted()}")
    if broken:
        raise DeliveryError("quality-failed", "; ".join(broken))


def _rules_of(table: Table) -> list[tuple[Column | None, Rule]]:
    rules: list[tuple[Column | None, Rule]] = [(None, rule) for rule in table.rules]
    rules += [(column, rule) for column in table.columns for rule in column.rules]
    return [(column, rule) for column, rule in rules if rule.is_per_table]


def _measure(rule: Rule, column: Column | None, paths: list[Path]) -> float:
    rows = pl.scan_parquet(paths)
    total = int(rows.select(pl.len()).collect().item())
    if rule.metric == "rowCount":
        return total
    if rule.metric == "duplicateValues":
        keys = rows.select(rule.columns).drop_nulls()
        repeated = pl.len() - pl.struct(rule.columns).n_unique()
        count = int(keys.select(repeated.cast(pl.Int64)).collect().item())
    elif column is not None:
        count = int(rows.select(violates_rule(rule, column).sum()).collect().item())
    return count * 100 / total if rule.percent else count
