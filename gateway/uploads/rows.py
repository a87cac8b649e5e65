"""A file's row and its batch's counters: statements that the steps of an upload share.

They go to the tables without the mapped classes between, which would double their cost: this is
the path that every file takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, RowMapping, Table, exists, func, insert, select, true, update
from sqlalchemy.orm import Session

from gateway.audit import trail
from gateway.batches.model import Batch, File
from gateway.events import feed
from gateway.landing.names import FileName
from gateway.landing.zone import BatchPath
from gateway.uploads.model import ACTIVE, Upload

FILE = cast("Table", File.__table__)
BATCH = cast("Table", Batch.__table__)
# A pending file whose upload goes on in a later request: it lives until it expires.
IS_RESUMABLE = (
    exists().where(Upload.id == FILE.c.upload, Upload.state.in_(ACTIVE)).label("is_resumable")
)

# Nobody moves what lies under the name.
IS_FREE = func.coalesce(FILE.c.held_until <= func.clock_timestamp(), true()).label("is_free")


@dataclass(frozen=True, slots=True)
class Admission:
    """Leave to store one file. ``upload`` fences: only the newest of a name completes."""

    batch: BatchPath
    name: str
    upload: str
    limit_bytes: int
    reserved_bytes: int


def write(
    session: Session, batch_id: str, name: FileName, values: dict[str, Any], *, is_new: bool
) -> None:
    """Insert a file's row, or give the one of its name new values."""
    if is_new:
        key = {"batch_id": batch_id, "name": name.text, "collision_key": name.collision_key}
        session.execute(insert(FILE).values(values | key))
    else:
        same = update(FILE).where(FILE.c.batch_id == batch_id, FILE.c.name == name.text)
        session.execute(same.values(values))


def of_key(session: Session, batch_id: str, name: FileName) -> File | None:
    """Return the file whose name could be taken for this one; it belongs to no session."""
    same = (FILE.c.batch_id == batch_id, FILE.c.collision_key == name.collision_key)
    return loaded(session.execute(select(FILE).where(*same)).mappings().one_or_none())


def loaded(row: RowMapping | None) -> File | None:
    """Return a row of the table as an object."""
    return None if row is None else File(**row)


def mine(admission: Admission) -> tuple[Any, ...]:
    """Return the conditions of an admission's own pending row."""
    return (
        FILE.c.batch_id == admission.batch.batch,
        FILE.c.name == admission.name,
        FILE.c.upload == admission.upload,
        FILE.c.state == "pending",
    )


def count(session: Session, batch_id: str, size_bytes: int, files: int) -> None:
    """Add to what a batch holds; a change of its files is a change of it."""
    session.execute(
        update(BATCH)
        .where(BATCH.c.id == batch_id)
        .values(
            reserved_bytes=BATCH.c.reserved_bytes + size_bytes,
            file_count=BATCH.c.file_count + files,
            version=BATCH.c.version + 1,
            updated_at=func.clock_timestamp(),
        )
    )


def tell(session: Session, actor: str, client: str, action: str, facts: dict[str, Any]) -> None:
    """Write what happened to a file into the audit trail and the client's feed."""
    trail.record(
        session, actor=actor, action=action, client=client, subject=facts["batch"], details=facts
    )
    feed.publish(session, client=client, type=action, subject=facts["batch"], data=facts)


def interval(seconds: float) -> ColumnElement[timedelta]:
    """Return a length of time, for the database to reckon with."""
    return func.make_interval(0, 0, 0, 0, 0, 0, seconds)
