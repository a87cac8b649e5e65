"""Names that are held while what lies under them is moved or removed.

What the landing zone is asked to do can take a while, and no transaction waits for it. So whoever
takes a published name away first writes down that it holds it: until that is over nobody else is
let in under the name, and nobody else gives it up. Who dies meanwhile holds it until it lapses.

Each function is one short transaction's work.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, Result, Row, delete, func, select, update
from sqlalchemy.orm import Session

from gateway import database
from gateway.audit import actions
from gateway.batches import ledger
from gateway.identity.access import Principal
from gateway.jobs.reading import client_of
from gateway.landing.zone import BatchPath
from gateway.uploads import completion, rows
from gateway.uploads.admission import UploadConflictError
from gateway.uploads.rows import FILE, Admission

# Longer than any request to a store is waited for.
HOLD_SECONDS = 180.0


def take(session: Session, admission: Admission) -> None:
    """Hold the name of an upload of one's own.

    Raises
    ------
    UploadConflictError
        A newer upload has the name, or an older request of this one holds it.
    """
    ledger.find(session, admission.batch.client, admission.batch.batch, lock=True)
    if not _taken(session, admission):
        raise UploadConflictError


def let_go(session: Session, admission: Admission) -> None:
    """Hold an upload's name no longer."""
    session.execute(update(FILE).where(*rows.mine(admission)).values(held_until=None))


def may_retract(session: Session, admission: Admission) -> bool:
    """Hold the name of an upload that is given up, so that what it published may go.

    False: somebody else has the name, or may get it, who may take what lies there for their own.
    """
    batch = ledger.find(session, admission.batch.client, admission.batch.batch, lock=True)
    if _taken(session, admission):
        return True
    return batch.state != "open" and _row(session, batch.id, admission.name) is None


def withdraw(session: Session, principal: Principal, batch_id: str, name: str) -> Admission | None:
    """Take a file out of an open batch; None when there is none of this name.

    What lies there may be removed once this commits, and then the row (``forget``): what is
    counted is never less than what is there.

    Raises
    ------
    NotFoundError, BatchSealedError, BatchClosedError
    UploadConflictError
        Somebody moves what lies there just now.
    """
    batch = ledger.find(session, client_of(principal), batch_id, lock=True)
    ledger.require_open(batch)
    row = _row(session, batch_id, name)
    if row is None:
        return None
    if not row.is_free:
        raise UploadConflictError
    place = BatchPath(batch.client, batch.project, batch.id)
    fence = database.new_id("upl")
    values = {"state": "error", "upload": fence, "held_until": _from_now()}
    session.execute(update(FILE).where(*_named(batch_id, name)).values(values))
    rows.count(session, batch_id, 0, 0)
    if row.state == "pending":
        completion.give_back(session, place, row.created_at, row.reserved_bytes)
    told = {"batch": batch_id, "name": name, "was": row.state}
    rows.tell(session, principal.subject, batch.client, actions.FILE_DELETED, told)
    return Admission(place, name, fence, row.reserved_bytes, row.reserved_bytes)


def forget(session: Session, withdrawn: Admission) -> None:
    """Give the name and the room of a file back whose bytes are gone."""
    batch_id = withdrawn.batch.batch
    ledger.find(session, withdrawn.batch.client, batch_id, lock=True)
    gone = delete(FILE).where(*_named(batch_id, withdrawn.name), FILE.c.upload == withdrawn.upload)
    if _changed(session.execute(gone)):
        rows.count(session, batch_id, -withdrawn.reserved_bytes, -1)


def require_free(session: Session, batch_id: str, name: str) -> None:
    """See to it that nobody moves what lies under a name; the batch is locked by the caller.

    Raises
    ------
    UploadConflictError
    """
    row = _row(session, batch_id, name)
    if row is not None and not row.is_free:
        raise UploadConflictError


def _taken(session: Session, admission: Admission) -> bool:
    mine = (*rows.mine(admission), rows.IS_FREE.element)
    return _changed(session.execute(update(FILE).where(*mine).values(held_until=_from_now())))


def _row(session: Session, batch_id: str, name: str) -> Row[str, datetime, int, bool] | None:
    columns = (FILE.c.state, FILE.c.created_at, FILE.c.reserved_bytes, rows.IS_FREE)
    return session.execute(select(*columns).where(*_named(batch_id, name))).one_or_none()


def _named(batch_id: str, name: str) -> tuple[ColumnElement[bool], ...]:
    return (FILE.c.batch_id == batch_id, FILE.c.name == name)


def _from_now() -> ColumnElement[datetime]:
    return func.clock_timestamp() + rows.interval(HOLD_SECONDS)


def _changed(result: Result[Any]) -> bool:
    assert isinstance(result, CursorResult)  # noqa: S101 - what an UPDATE or DELETE gives
    return result.rowcount > 0
