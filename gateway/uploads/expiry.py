"""Uploads that nobody will finish: found, ended, and after a while forgotten.

Each function is one short transaction's work.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Select, delete, exists, func, or_, select
from sqlalchemy.orm import Session

from gateway.audit import actions
from gateway.batches import ledger
from gateway.batches.model import Batch, File
from gateway.landing.zone import BatchPath
from gateway.uploads import completion, rows, tickets
from gateway.uploads.model import ACTIVE, Upload
from gateway.uploads.rows import Admission


def stale(session: Session, max_age_seconds: float, limit: int) -> list[Admission]:
    """Return uploads of one request that began longer ago; whether they live is to be asked."""
    age = rows.interval(max_age_seconds)
    query = (
        select(
            File.batch_id, File.name, File.upload, File.reserved_bytes, Batch.client, Batch.project
        )
        .join(Batch, Batch.id == File.batch_id)
        .where(File.state == "pending", File.created_at < func.clock_timestamp() - age)
        .where(~rows.IS_RESUMABLE.element)
        .order_by(File.created_at)
        .limit(limit)
    )
    return [
        Admission(
            BatchPath(row.client, row.project, row.batch_id),
            row.name,
            row.upload,
            row.reserved_bytes,
            row.reserved_bytes,
        )
        for row in session.execute(query).all()
    ]


def expire(session: Session, admission: Admission) -> bool:
    """Give back what an upload holds whose process has ended.

    False: it was completed or taken over meanwhile, or somebody works on its batch just now.
    """
    place = admission.batch
    lock = select(Batch.id).where(Batch.id == place.batch)
    lock = lock.with_for_update(skip_locked=True, key_share=True)
    if session.execute(lock).first() is None or not completion.take_back(session, admission):
        return False
    told = {"batch": place.batch, "name": admission.name}
    rows.tell(session, ledger.GATEWAY, place.client, actions.FILE_EXPIRED, told)
    return True


def parts_in_use(session: Session, names: Collection[str]) -> set[str]:
    """Return which of these parts belong to uploads that may still go on."""
    query = select(Upload.part).where(Upload.part.in_(list(names)), Upload.state.in_(ACTIVE))
    return set(session.scalars(query))


def overdue(session: Session, limit: int) -> Sequence[Upload]:
    """Return open uploads whose time is over, whose batch takes no more, or who lost their name."""
    return session.scalars(_overdue().order_by(Upload.expires_at).limit(limit)).all()


def end_overdue(session: Session, upload: Upload) -> bool:
    """Expire one upload that ``overdue`` found. False: it has gone on meanwhile."""
    ledger.find(session, upload.client, upload.batch_id, lock=True)
    again = _overdue().where(Upload.id == upload.id).with_for_update(of=Upload)
    if session.scalars(again).one_or_none() is None:
        return False
    tickets.give_up(session, upload, ledger.GATEWAY, actions.FILE_EXPIRED)
    return True


def _overdue() -> Select[Upload]:
    holds_its_name = exists().where(
        File.batch_id == Upload.batch_id,
        File.name == Upload.name,
        File.upload == Upload.id,
        File.state == "pending",
    )
    return (
        select(Upload)
        .join(Batch, Batch.id == Upload.batch_id)
        .where(
            Upload.state.in_(ACTIVE),
            or_(
                Upload.expires_at <= func.clock_timestamp(),
                Batch.state != "open",
                ~holds_its_name & ~Upload.is_comparison,
            ),
        )
    )


def forget(session: Session, age_seconds: float) -> None:
    """Forget uploads that ended longer ago."""
    past = func.clock_timestamp() - rows.interval(age_seconds)
    session.execute(delete(Upload).where(Upload.state.not_in(ACTIVE), Upload.expires_at < past))
