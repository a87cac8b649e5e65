"""What becomes of an admitted file: completed, given back, removed, expired.

Each function is one short transaction's work.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from gateway.audit import actions
from gateway.batches import ledger
from gateway.batches.model import Batch, File
from gateway.clients import usage
from gateway.errors import NotFoundError
from gateway.identity.access import Principal
from gateway.landing.zone import BatchPath, Stored
from gateway.uploads import rows
from gateway.uploads.admission import UploadConflictError
from gateway.uploads.rows import FILE, Admission


def complete(session: Session, principal: Principal, admission: Admission, stored: Stored) -> File:
    """Write down that a file is durable; its bytes may be acknowledged once this commits.

    Raises
    ------
    BatchSealedError, BatchClosedError
        The batch was ended meanwhile.
    UploadConflictError
        A newer upload of the same name took over.
    """
    client, batch_id = admission.batch.client, admission.batch.batch
    ledger.require_open(ledger.find(session, client, batch_id, lock=True))
    statement = (
        update(FILE)
        .where(*rows.mine(admission))
        .values(
            state="complete",
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            reserved_bytes=stored.size_bytes,
            completed_at=func.clock_timestamp(),
            held_until=None,
        )
        .returning(FILE)
    )
    file = rows.loaded(session.execute(statement).mappings().one_or_none())
    if file is None:
        raise UploadConflictError
    unused = admission.reserved_bytes - stored.size_bytes
    rows.count(session, batch_id, -unused, 0)
    give_back(session, admission.batch, file.created_at, unused)
    told = facts(batch_id, admission.name, stored)
    rows.tell(session, principal.subject, client, actions.FILE_RECEIVED, told)
    return file


def facts(batch_id: str, name: str, stored: Stored) -> dict[str, Any]:
    """Return what the trail and the feed say of a file that was received."""
    told: dict[str, Any] = {"batch": batch_id, "name": name}
    return told | {"size_bytes": stored.size_bytes, "sha256": stored.sha256}


def require_mine(session: Session, admission: Admission) -> None:
    """Lock the batch and see to it that this admission is still the newest of its name.

    Raises
    ------
    UploadConflictError
    """
    ledger.find(session, admission.batch.client, admission.batch.batch, lock=True)
    if session.execute(select(FILE.c.name).where(*rows.mine(admission))).first() is None:
        raise UploadConflictError


def abandon(session: Session, admission: Admission) -> bool:
    """Give name and room back, unless another upload has them; say whether they were there."""
    ledger.find(session, admission.batch.client, admission.batch.batch, lock=True)
    return take_back(session, admission)


def take_back(session: Session, admission: Admission) -> bool:
    """Take an admission's pending row and all it reserved back; say whether it was still there.

    The batch is locked by the caller. A name that is held stays until that lapses.
    """
    mine = (*rows.mine(admission), rows.IS_FREE.element)
    statement = delete(FILE).where(*mine).returning(FILE.c.created_at)
    begun = session.execute(statement).first()
    if begun is None:
        return False
    rows.count(session, admission.batch.batch, -admission.reserved_bytes, -1)
    give_back(session, admission.batch, begun.created_at, admission.reserved_bytes)
    return True


def file_of(session: Session, client: str, batch_id: str, name: str) -> tuple[Batch, File]:
    """Return a client's file.

    Raises
    ------
    NotFoundError
        The client has no such batch, or the batch no such file.
    """
    batch = ledger.find(session, client, batch_id)
    file = None if "\x00" in name else session.get(File, (batch_id, name))
    if file is None:
        raise NotFoundError
    return batch, file


def give_back(session: Session, place: BatchPath, begun_at: datetime, size_bytes: int) -> None:
    """Give bytes that were reserved and not received back to the day they were taken from."""
    if size_bytes:
        usage.add(session, place.client, place.project, usage.day_of(begun_at), -size_bytes)
