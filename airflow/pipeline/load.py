"""Curated tables: Delta Lake, one commit per table and batch.

A table is partitioned by ``_batch_id``, so a batch is replaced without touching another batch's
files, and two batches of one project do not stand in each other's way. Each commit carries the
batch's attempt as a Delta application transaction: of two tries that meet, one sees the other,
and an old attempt that wakes up late finds that it is old.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from pipeline import normalize
from pipeline.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pipeline.contract import Table

MAX_TRIES = 12
MAX_WAIT_SECONDS = 5.0
# The attempt under which a batch stands once another has taken its place.
SUPERSEDED = 1 << 40


@dataclass(frozen=True)
class Commit:
    """Which batches' rows a commit replaces, and on whose behalf."""

    batch_id: str
    attempt: int
    job_id: str
    replaced: tuple[str, ...]

    @property
    def predicate(self) -> str:
        """Which rows go."""
        return f"_batch_id IN ({', '.join(repr(b) for b in self.replaced)})"

    def properties(self) -> CommitProperties:
        """Give what Delta keeps of the commit."""
        versions = dict.fromkeys(self.replaced, SUPERSEDED) | {self.batch_id: self.attempt}
        return CommitProperties(
            custom_metadata={"batch_id": self.batch_id, "job_id": self.job_id},
            max_commit_retries=0,
            app_transactions=[Transaction(b, v) for b, v in versions.items()],
        )


@dataclass(frozen=True)
class Rows:
    """What goes into a table: Parquet files that together hold exactly ``count`` rows."""

    paths: list[Path]
    count: int
    table: Table

    def schema(self) -> dict[str, pl.DataType]:
        """Give the table's columns, with those of origin."""
        own = {c.name: normalize.dtype_of(c) for c in self.table.columns}
        return {**own, "_batch_id": pl.String(), "_file": pl.String(), "_line": pl.Int64()}

    def reader(self) -> pa.RecordBatchReader:
        """Stream the rows; a count that is not the promised one stops the write.

        Raises
        ------
        RuntimeError
            From the stream's end, so that nothing is committed.
        """
        schema = pl.DataFrame(schema=self.schema()).to_arrow(compat_level=_PLAIN).schema
        return pa.RecordBatchReader.from_batches(schema, self._batches(schema))

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        seen = 0
        rows = pl.scan_parquet(self.paths).select(list(self.schema()))
        for frame in rows.collect_batches(maintain_order=True):
            seen += frame.height
            yield from frame.to_arrow(compat_level=_PLAIN).cast(schema).to_batches()
        if seen != self.count:
            msg = f"{seen} rows are staged where {self.count} were counted"
            raise RuntimeError(msg)


_PLAIN = pl.CompatLevel.oldest()


def tables_in(directory: Path) -> Iterable[Path]:
    """Give the tables that a project has."""
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if (path / "_delta_log").is_dir())


def check_current(directory: Path, filled: Mapping[str, Table], commit: Commit) -> None:
    """See that nothing stands against loading, before the first table is written.

    Raises
    ------
    DeliveryError
        ``stale-attempt`` if a later attempt, or a batch that supersedes this one, has been loaded;
        ``schema-conflict`` if a table has a column of another type than the contract's.
    """
    for path in tables_in(directory):
        table = DeltaTable(str(path))
        _check_attempt(table, commit)
        if path.name in filled:
            _check_schema(table, Rows([], 0, filled[path.name]))


def _check_attempt(table: DeltaTable, commit: Commit) -> None:
    done = table.transaction_version(commit.batch_id)
    if done is not None and done > commit.attempt:
        raise DeliveryError("stale-attempt", "a later attempt or a later batch has taken its place")


def _check_schema(table: DeltaTable, rows: Rows) -> None:
    """Refuse a change of type: Delta would cast what can be cast without a word."""
    existing = pl.scan_delta(table).collect_schema()
    changed = [n for n, t in rows.schema().items() if n in existing and existing[n] != t]
    if changed:
        detail = f"{', '.join(changed)} of {rows.table.name} has another type in the curated table"
        raise DeliveryError("schema-conflict", detail)


def replace_batch(path: Path, rows: Rows, commit: Commit) -> None:
    """Put a batch's rows in the place of those it had, atomically.

    Raises
    ------
    DeliveryError
        ``stale-attempt`` or ``schema-conflict``.
    CommitFailedError
        If other commits kept coming first, `MAX_TRIES` times.
    """
    path.parent.mkdir(parents=True, exist_ok=True)

    def attempt() -> None:
        table = _open(path)
        if table is not None:
            _check_attempt(table, commit)
            _check_schema(table, rows)
        write_deltalake(
            table if table is not None else str(path),
            rows.reader(),
            mode="overwrite",
            predicate=commit.predicate,
            schema_mode="merge",
            partition_by=["_batch_id"],
            commit_properties=commit.properties(),
        )

    until_committed(attempt)


def remove_batch(path: Path, commit: Commit) -> None:
    """Take a batch's rows out of a table in which it has none any more."""

    def attempt() -> None:
        table = DeltaTable(str(path))
        held = table.file_uris(file_pruning_predicate=commit.predicate)
        if held:
            _check_attempt(table, commit)
            table.delete(commit.predicate, commit_properties=commit.properties())

    until_committed(attempt)


def _open(path: Path) -> DeltaTable | None:
    try:
        return DeltaTable(str(path))
    except TableNotFoundError:
        return None


def until_committed(attempt: Callable[[], None]) -> None:
    """Try again, on the table's new state, when another commit came first."""
    for tried in range(1, MAX_TRIES + 1):
        try:
            return attempt()
        except CommitFailedError:
            if tried == MAX_TRIES:
                raise
            time.sleep(random.uniform(0.05, min(MAX_WAIT_SECONDS, 0.1 * 2**tried)))  # noqa: S311
    return None
