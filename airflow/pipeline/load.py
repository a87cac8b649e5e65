"""Curated tables: Delta Lake, one commit per table and batch.

A table is partitioned by ``_batch_id``, so a batch is replaced without touching another batch's
files, and two batches of one project do not stand in each other's way. Each commit carries the
batch's attempt as a Delta application transaction: of two tries that meet, one sees the other,
and an old attempt that wakes up late finds that it is old.
"""

from __future__ import annotations

import errno
import json
import random
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.transaction import AddAction, create_table_with_add_actions

from pipeline import normalize
from pipeline.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pipeline.contract import Table

PARTITION = "_batch_id"
FRAME_ROWS = 16_384
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

    def arrow_schema(self) -> pa.Schema:
        """Give the same as Arrow has it."""
        return pl.DataFrame(schema=self.schema()).to_arrow(compat_level=_PLAIN).schema

    def require(self, found: int) -> None:
        """See that the files hold as many rows as were counted.

        Raises
        ------
        RuntimeError
        """
        if found != self.count:
            msg = f"{found} rows are staged where {self.count} were counted"
            raise RuntimeError(msg)

    def reader(self, batch_id: str) -> pa.RecordBatchReader:
        """Stream the rows; a count that is not the promised one stops the write.

        Raises
        ------
        RuntimeError
            From the stream's end, so that nothing is committed.
        """
        schema = self.arrow_schema()
        return pa.RecordBatchReader.from_batches(schema, self._batches(schema, batch_id))

    def frames(self, batch_id: str) -> Iterator[pl.DataFrame]:
        """Stream the rows as frames of at most `FRAME_ROWS`, with the columns of `schema`.

        Notes
        -----
        Polars' own `collect_batches` reads on while its caller writes: where the writer is the
        slower one, all rows are in memory in the end.
        """
        columns = list(self.schema())
        for path in self.paths:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(FRAME_ROWS):
                    yield (
                        pl.DataFrame(batch).with_columns(_batch_id=pl.lit(batch_id)).select(columns)
                    )

    def _batches(self, schema: pa.Schema, batch_id: str) -> Iterator[pa.RecordBatch]:
        seen = 0
        for frame in self.frames(batch_id):
            seen += frame.height
            yield from frame.to_arrow(compat_level=_PLAIN).cast(schema).to_batches()
        self.require(seen)


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
        raise stale()


def stale() -> DeliveryError:
    """Say that what comes now comes too late."""
    return DeliveryError("stale-attempt", "a later attempt or a later batch has taken its place")


def _check_schema(table: DeltaTable, rows: Rows) -> None:
    """Refuse a change of type: Delta would cast what can be cast without a word."""
    existing = pl.scan_delta(table).collect_schema()
    changed = [n for n, t in rows.schema().items() if n in existing and existing[n] != t]
    if changed:
        detail = f"{', '.join(changed)} of {rows.table.name} has another type in the curated table"
        raise DeliveryError("schema-conflict", detail)


def replace_batch(path: Path, rows: Rows, commit: Commit) -> None:
    """Put a batch's rows in the place of those it had, atomically.

    The staged files themselves become the table's: nothing is written twice. Only where the table
    lacks a column of the contract are the rows written anew, by a writer that knows how to add it.

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
        if table is None:
            _create(path, rows, commit)
            return
        _check_attempt(table, commit)
        _check_schema(table, rows)
        if rows.schema().keys() <= pl.scan_delta(table).collect_schema().keys():
            _adopt(table, path, rows, commit)
        else:
            _write(table, rows, commit)

    until_committed(attempt)


def _create(path: Path, rows: Rows, commit: Commit) -> None:
    create_table_with_add_actions(
        str(path),
        Schema.from_arrow(rows.arrow_schema()),
        _added(path, rows, commit),
        mode="error",
        partition_by=[PARTITION],
        commit_properties=commit.properties(),
    )


def _adopt(table: DeltaTable, path: Path, rows: Rows, commit: Commit) -> None:
    table.create_write_transaction(
        _added(path, rows, commit),
        mode="overwrite",
        schema=table.schema(),
        partition_by=[PARTITION],
        partition_filters=[(PARTITION, "in", list(commit.replaced))],
        commit_properties=commit.properties(),
    )


def _write(table: DeltaTable, rows: Rows, commit: Commit) -> None:
    write_deltalake(
        table,
        rows.reader(commit.batch_id),
        mode="overwrite",
        predicate=commit.predicate,
        schema_mode="merge",
        partition_by=[PARTITION],
        commit_properties=commit.properties(),
    )


def _added(path: Path, rows: Rows, commit: Commit) -> list[AddAction]:
    """Make staged files files of the table, under names of this try's own."""
    place = f"{PARTITION}={commit.batch_id}"
    (path / place).mkdir(parents=True, exist_ok=True)
    found = [pq.read_metadata(source) for source in rows.paths]
    rows.require(sum(each.num_rows for each in found))
    mark = f"{commit.job_id}-{uuid.uuid4().hex}"
    actions = []
    for number, (source, metadata) in enumerate(zip(rows.paths, found, strict=True)):
        name = f"{place}/{mark}-{number:05d}.parquet"
        _place(source, path / name)
        actions.append(
            AddAction(
                path=name,
                size=source.stat().st_size,
                partition_values={PARTITION: commit.batch_id},
                modification_time=int(time.time() * 1000),
                data_change=True,
                stats=statistics_of(metadata),
            )
        )
    return actions


def _place(source: Path, target: Path) -> None:
    """Give a staged file, which nobody changes any more, a second name; copy it where none can be."""
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP}:
            raise
        shutil.copyfile(source, target)


def statistics_of(metadata: pq.FileMetaData) -> str:
    """Give what Delta keeps of a file, so that readers can pass over it: numbers of rows, ends.

    Source: Delta Transaction Log Protocol, per-file statistics.
    """
    least: dict[str, int | float] = {}
    most: dict[str, int | float] = {}
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            name, known = column.path_in_schema, column.statistics
            is_number = column.physical_type in {"INT64", "DOUBLE"}
            if not is_number or known is None or not known.has_min_max:
                continue
            if known.logical_type.type not in {"NONE", "INT"}:
                continue
            least[name] = min(least.get(name, known.min), known.min)
            most[name] = max(most.get(name, known.max), known.max)
    found = {"numRecords": metadata.num_rows, "minValues": least, "maxValues": most}
    return json.dumps({**found, "nullCount": {}})


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
