"""What becomes of an admitted file: completed, given back, removed, expired.

Each function is one short transaction's work.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from gateway.audit import actions
from gateway.batches import ledger
from gateway.batches.model import Batch, File
from gateway.errors import NotFoundError
from gateway.identity.access import Principal
from gateway.jobs.reading import client_of
from gateway.landing.zone import BatchPath, Stored
from gateway.uploads import rows
from gateway.uploads.admission import IsReceiving, UploadConflictError
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
        )
        .returning(FILE)
    )
    file = rows.loaded(session.execute(statement).mappings().one_or_none())
    if file is None:
        raise UploadConflictError
    rows.count(session, batch_id, stored.size_bytes - admission.reserved_bytes, 0)
    facts: dict[str, Any] = {"batch": batch_id, "name": admission.name}
    facts |= {"size_bytes": stored.size_bytes, "sha256": stored.sha256}
    rows.tell(session, principal.subject, client, actions.FILE_RECEIVED, facts)
    return file


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
    """Give name and room back, unless another upload has them; say whether the name is free."""
    batch_id, name = admission.batch.batch, admission.name
    ledger.find(session, admission.batch.client, batch_id, lock=True)
    statement = delete(FILE).where(*rows.mine(admission)).returning(FILE.c.name)
    if session.execute(statement).first() is not None:
        rows.count(session, batch_id, -admission.reserved_bytes, -1)
    others = select(File.name).where(File.batch_id == batch_id, File.name == name)
    return session.execute(others).first() is None


def remove(session: Session, principal: Principal, batch_id: str, name: str) -> BatchPath | None:
    """Take a file out of an open batch; None when there is none of this name.

    Raises
    ------
    NotFoundError, BatchSealedError, BatchClosedError
    """
    batch = ledger.find(session, client_of(principal), batch_id, lock=True)
    ledger.require_open(batch)
    statement = delete(File).where(File.batch_id == batch_id, File.name == name)
    row = session.execute(statement.returning(File.reserved_bytes, File.state)).one_or_none()
    if row is None:
        return None
    rows.count(session, batch_id, -row.reserved_bytes, -1)
    facts = {"batch": batch_id, "name": name, "was": row.state}
    rows.tell(session, principal.subject, batch.client, actions.FILE_DELETED, facts)
    return BatchPath(batch.client, batch.project, batch.id)


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


def expire_pending(
    session: Session, max_age_seconds: float, limit: int, is_receiving: IsReceiving
) -> int:
    """Give back what uploads hold that began longer ago and whose process has ended."""
    age = func.make_interval(0, 0, 0, 0, 0, 0, max_age_seconds)
    stale = (
        select(
            File.batch_id,
            File.name,
            File.upload,
            File.reserved_bytes,
            Batch.client,
            Batch.project,
        )
        .join(Batch, Batch.id == File.batch_id)
        .where(File.state == "pending", File.created_at < func.clock_timestamp() - age)
        .where(~rows.IS_RESUMABLE.element)
        .order_by(File.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=Batch, key_share=True)
    )
    expired = 0
    for row in session.execute(stale).all():
        if is_receiving(row.upload, BatchPath(row.client, row.project, row.batch_id), row.name):
            continue
        mine = (File.batch_id == row.batch_id, File.name == row.name, File.upload == row.upload)
        gone = delete(File).where(*mine, File.state == "pending").returning(File.name)
        if session.execute(gone).first() is None:
            continue  # it was completed between the look and the lock
        rows.count(session, row.batch_id, -row.reserved_bytes, -1)
        facts = {"batch": row.batch_id, "name": row.name}
        rows.tell(session, ledger.GATEWAY, row.client, actions.FILE_EXPIRED, facts)
        expired += 1
    return expired
