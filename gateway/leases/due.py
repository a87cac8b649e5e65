"""What the reaper has to do next: leases that are over, to be revoked, to be renewed. Asks no driver."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import ColumnElement, and_, case, exists, func, or_, select, update
from sqlalchemy.orm import Session

from gateway import settings
from gateway.jobs.model import Job, StepPart
from gateway.jobs.reading import ENDED
from gateway.leases import ledger
from gateway.leases.admission import RUNNING
from gateway.leases.model import Lease

LIMIT = 200
# For so long a claimed lease is nobody else's: longer than any driver takes.
CLAIM_SECONDS = 60
RENEWAL_SECONDS = 30
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 300.0
# Between two tries of what is irrevocable.
LATER_SECONDS = 600.0
# Renewed when this part of its time is left.
RENEWAL_PART = 0.5


def end_overdue(session: Session) -> int:
    """End the leases whose task, job or time is over, and those that somebody never issued."""
    now = func.clock_timestamp()
    job_ended = exists().where(Job.id == Lease.job, Job.state.in_(ENDED))
    reasons = (
        (Lease.state == "intended", "never-issued"),
        (Lease.expires_at <= now, "expired"),
        (job_ended, "job-ended"),
    )
    forgotten = Lease.created_at < now - timedelta(seconds=ledger.INTENT_SECONDS)
    query = (
        select(Lease.id, case(*reasons, else_="task-ended"))
        .where(
            or_(
                and_(Lease.state == "intended", forgotten),
                and_(
                    Lease.state == "issued", or_(Lease.expires_at <= now, job_ended, _task_ended())
                ),
            )
        )
        .order_by(Lease.id)
        .limit(LIMIT)
        .with_for_update(skip_locked=True, of=Lease)
    )
    found = session.execute(query).all()
    for lease_id, reason in found:
        ledger.end(session, lease_id, reason=reason)
    return len(found)


def _task_ended() -> ColumnElement[bool]:
    """Compare with what the task itself said last: a report of its end, by this try or a later."""
    return exists().where(
        StepPart.job_id == Lease.job,
        StepPart.step == Lease.task_id,
        StepPart.map_index == Lease.map_index,
        StepPart.try_number >= Lease.try_number,
        StepPart.state != "running",
    )


def drivers(session: Session) -> list[str]:
    """Return the names of the drivers that have something to revoke now."""
    query = select(Lease.driver).where(*_to_revoke()).distinct().order_by(Lease.driver)
    return list(session.scalars(query))


def claim(session: Session, driver: str) -> Lease | None:
    """Take the next lease that a driver has to revoke; nobody else gets it for a minute."""
    query = (
        select(Lease.id)
        .where(Lease.driver == driver, *_to_revoke())
        .order_by(Lease.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    lease_id = session.scalar(query)
    return None if lease_id is None else take(session, lease_id)


def take(session: Session, lease_id: str) -> Lease | None:
    """Count an attempt at revoking a lease. None: it need not be revoked."""
    statement = (
        update(Lease)
        .where(Lease.id == lease_id, Lease.state.in_(("revoking", "irrevocable")))
        .values(attempts=Lease.attempts + 1, due_at=_in(CLAIM_SECONDS))
        .returning(Lease)
        .execution_options(populate_existing=True, synchronize_session=False)
    )
    return session.scalars(statement).one_or_none()


def put_off(session: Session, lease: Lease, *, is_irrevocable: bool) -> None:
    """Try a lease again later, and later each time."""
    growing = min(FIRST_PAUSE_SECONDS * 2 ** min(lease.attempts, 16), LONGEST_PAUSE_SECONDS)
    seconds = LATER_SECONDS if is_irrevocable else growing
    statement = update(Lease).where(Lease.id == lease.id)
    # Spread, so that a system that comes back is not asked for all at once.
    session.execute(statement.values(due_at=_in(seconds * (0.5 + func.random()))))


def _to_revoke() -> tuple[ColumnElement[bool], ...]:
    is_open = Lease.state.in_(("revoking", "irrevocable"))
    return is_open, Lease.due_at <= func.clock_timestamp()


def claim_renewal(session: Session, config: settings.Leases) -> tuple[Lease, float] | None:
    """Take the next lease to be renewed, and how many seconds it gets: its job is running."""
    now = func.clock_timestamp()
    most = Lease.created_at + timedelta(seconds=config.max_seconds)
    query = (
        select(Lease)
        .join(Job, Job.id == Lease.job)
        .where(
            Lease.state == "issued",
            Lease.due_at <= now,
            Lease.expires_at > now,
            Lease.expires_at < now + timedelta(seconds=config.ttl_seconds * RENEWAL_PART),
            Lease.expires_at < most - timedelta(seconds=1),
            Job.state.in_(RUNNING),
            Job.cancel_requested_at.is_(None),
        )
        .order_by(Lease.expires_at)
        .limit(1)
        .with_for_update(skip_locked=True, of=Lease)
    )
    lease = session.scalar(query)
    if lease is None:
        return None
    moment = session.execute(
        update(Lease).where(Lease.id == lease.id).values(due_at=_in(RENEWAL_SECONDS)).returning(now)
    ).scalar_one()
    return lease, ledger.left_seconds(config, lease, moment)


def wrongly_held(session: Session, lease_ids: list[str]) -> list[str]:
    """Return those of these leases of which nothing should be left."""
    query = select(Lease.id).where(Lease.id.in_(lease_ids), Lease.state == "revoked")
    return list(session.scalars(query))


def _in(seconds: object) -> ColumnElement[object]:
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
