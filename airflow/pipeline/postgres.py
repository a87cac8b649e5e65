"""A batch's rows in the client's own Postgres database, by COPY, in one transaction with its marker.

The schema is named for the project, the tables for the contract's. ``_batches`` holds a line for
each batch that is there or has been retired: that line and the rows it tells of come and go together.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2 import sql
from psycopg2.extras import Json

from pipeline.errors import DeliveryError
from pipeline.load import stale
from pipeline.postgres_session import LOCK_SECONDS, reached
from pipeline.postgres_text import Feed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg2.extensions import cursor as Cursor  # noqa: N812

    from pipeline.contract import Table
    from pipeline.load import Commit, Rows
    from pipeline.postgres_session import Place

MARKERS = "_batches"
TYPES = {
    "string": "text",
    "integer": "bigint",
    "number": "double precision",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp with time zone",
}
_LINEAGE = {"_batch_id": "text", "_file": "text", "_line": "bigint"}
# Only tasks of ours hold a batch, and for as long as its rows take.
_BATCH_LOCK_SECONDS = 600
_COPY_BYTES = 1 << 18
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"


@dataclass(frozen=True)
class Marker:
    """What the database knows of a batch; ``rows`` counts them by table."""

    attempt: int
    job_id: str | None
    rows: dict[str, int]
    retired_by: str | None


@contextmanager
def replacing(
    place: Place, project: str, filled: Mapping[str, Rows], commit: Commit
) -> Iterator[None]:
    """Put a batch's rows in the place of those it had, for good when the block has ended well.

    Tables and columns that are missing are made first, in a transaction of their own. When the
    block begins, all rows have arrived and nobody sees them; if it fails, nobody ever will.

    Notes
    -----
    A try that finds its own marker, because the answer to an earlier one's COMMIT got lost, leaves
    everything as it is.

    Raises
    ------
    DeliveryError
        ``stale-attempt``, ``schema-conflict`` or ``refused-by-database``.
    PlatformError
        ``database-unavailable``.
    """
    with reached(place) as connection:
        with connection, connection.cursor() as cursor:
            _make_ready(cursor, project, filled)
        with connection.cursor() as cursor:
            _replace(cursor, project, filled, commit)
        yield
        connection.commit()


# --- tables -------------------------------------------------------------------------------------


def _make_ready(cursor: Cursor, project: str, filled: Mapping[str, Rows]) -> None:
    cursor.execute(_LOCK, [f"ingest {project}"])
    cursor.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [project])
    if cursor.fetchone() is None:
        cursor.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(project)))
    if _columns(cursor, project, MARKERS) is None:
        _make_markers(cursor, project)
    for name in sorted(filled):
        _make_table(cursor, project, filled[name].table)


def _make_markers(cursor: Cursor, project: str) -> None:
    statement = sql.SQL(
        "CREATE TABLE {} (batch_id text PRIMARY KEY, attempt bigint NOT NULL, job_id text,"
        " rows jsonb NOT NULL, retired_by text, loaded_at timestamptz NOT NULL)"
    )
    cursor.execute(statement.format(sql.Identifier(project, MARKERS)))


def _make_table(cursor: Cursor, project: str, table: Table) -> None:
    """Make a table, or what it lacks.

    Raises
    ------
    DeliveryError
        ``schema-conflict`` if a column has another type than the contract's.
    """
    place = sql.Identifier(project, table.name)
    wanted = {column.name: TYPES[column.kind] for column in table.columns} | _LINEAGE
    known = _columns(cursor, project, table.name)
    if known is None:
        columns = sql.SQL(", ").join(_column(*each) for each in wanted.items())
        cursor.execute(sql.SQL("CREATE TABLE {} ({})").format(place, columns))
        cursor.execute(sql.SQL("CREATE INDEX ON {} (_batch_id)").format(place))
        return
    changed = [name for name, kind in wanted.items() if known.get(name, kind) != kind]
    if changed:
        detail = f"{', '.join(changed)} of {table.name} has another type in the client's database"
        raise DeliveryError("schema-conflict", detail)
    added = [each for each in wanted.items() if each[0] not in known]
    if added:
        adding = sql.SQL(", ").join(sql.SQL("ADD COLUMN ") + _column(*each) for each in added)
        cursor.execute(sql.SQL("ALTER TABLE {} {}").format(place, adding))


def _column(name: str, kind: str) -> sql.Composable:
    return sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))


def _columns(cursor: Cursor, project: str, name: str) -> dict[str, str] | None:
    """Give the columns of a table with their types; None if there is no such table."""
    cursor.execute(
        "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = %s",
        [project, name],
    )
    found = cursor.fetchone()
    if found is None:
        return None
    cursor.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped",
        found,
    )
    return dict(cursor.fetchall())


# --- rows ---------------------------------------------------------------------------------------


def _replace(cursor: Cursor, project: str, filled: Mapping[str, Rows], commit: Commit) -> None:
    _hold(cursor, commit)
    known = _markers(cursor, project, commit)
    own = known.get(commit.batch_id)
    if own and (own.retired_by is not None or own.attempt > commit.attempt):
        raise stale()
    if own and (own.attempt, own.job_id) == (commit.attempt, commit.job_id):
        return
    had = {name for marker in known.values() for name in marker.rows}
    # One order for everybody, so that nobody waits for one who waits for them.
    for name in sorted(had | filled.keys()):
        if name in had:
            _delete(cursor, project, name, commit)
        if name in filled:
            _copy(cursor, project, filled[name], commit)
    _mark(cursor, project, {name: rows.count for name, rows in filled.items()}, commit)


def _hold(cursor: Cursor, commit: Commit) -> None:
    """Wait until nobody else writes rows of these batches, and keep others waiting."""
    cursor.execute("SET LOCAL lock_timeout = %s", [f"{_BATCH_LOCK_SECONDS}s"])
    for batch in sorted(commit.replaced):
        cursor.execute(_LOCK, [f"ingest {batch}"])
    cursor.execute("SET LOCAL lock_timeout = %s", [f"{LOCK_SECONDS}s"])


def _markers(cursor: Cursor, project: str, commit: Commit) -> dict[str, Marker]:
    statement = sql.SQL(
        "SELECT batch_id, attempt, job_id, rows, retired_by FROM {} WHERE batch_id = ANY(%s)"
    )
    _execute(cursor, statement, project, MARKERS, [list(commit.replaced)])
    return {batch: Marker(*rest) for batch, *rest in cursor.fetchall()}


def _delete(cursor: Cursor, project: str, name: str, commit: Commit) -> None:
    """Take the batches' rows out of a table, unless the client has done away with it."""
    if _columns(cursor, project, name) is not None:
        statement = sql.SQL("DELETE FROM {} WHERE _batch_id = ANY(%s)")
        _execute(cursor, statement, project, name, [list(commit.replaced)])


def _copy(cursor: Cursor, project: str, rows: Rows, commit: Commit) -> None:
    # A line that begins with a number cannot be taken for COPY's own end mark.
    columns = ["_line", "_file", "_batch_id", *(column.name for column in rows.table.columns)]
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, ENCODING 'UTF8')").format(
        sql.Identifier(project, rows.table.name),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
    )
    feed = Feed(rows.frames(commit.batch_id), columns)
    try:
        cursor.copy_expert(statement, feed, _COPY_BYTES)
    except psycopg2.Error as error:
        if feed.error is not None:
            raise feed.error from error
        raise
    rows.require(cursor.rowcount)


def _mark(cursor: Cursor, project: str, counts: dict[str, int], commit: Commit) -> None:
    """Write down what is there now, and that retired batches are to stay away."""
    statement = sql.SQL(
        "INSERT INTO {} (batch_id, attempt, job_id, rows, retired_by, loaded_at)"
        " VALUES (%s, %s, %s, %s, %s, now())"
        " ON CONFLICT (batch_id) DO UPDATE SET (attempt, job_id, rows, retired_by, loaded_at)"
        " = (EXCLUDED.attempt, EXCLUDED.job_id, EXCLUDED.rows, EXCLUDED.retired_by, now())"
    )
    for batch in commit.replaced:
        own = batch == commit.batch_id
        values = (commit.attempt, Json(counts), None) if own else (0, Json({}), commit.batch_id)
        attempt, rows, retired_by = values
        given = [batch, attempt, commit.job_id, rows, retired_by]
        _execute(cursor, statement, project, MARKERS, given)


def _execute(
    cursor: Cursor, statement: sql.SQL, project: str, name: str, values: list[Any]
) -> None:
    cursor.execute(statement.format(sql.Identifier(project, name)), values)
