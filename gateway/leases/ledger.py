"""The ledger: every lease is written down before anything is made, and until nothing is left of it.

``intended -> issued -> revoking -> revoked``; what cannot be revoked is ``irrevocable``, and is tried
again now and then. Nothing here speaks to a data system, and no function commits.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from gateway import database, settings
from gateway.audit import actions, trail
from gateway.errors import GatewayError, NotFoundError
from gateway.identity.lookup import RESERVED_NAME as GATEWAY
from gateway.jobs.model import Job
from gateway.leases import admission
from gateway.leases.model import Lease
from gateway.leases.resources.driver import Driver, Purpose
from gateway.leases.views import LeaseRequest, LeaseState

LIVE = ("intended", "issued")
# What may be left in a data system when this side believes it gone ends as any other lease does.
FROM: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "issued": frozenset({"intended"}),
        "revoking": frozenset({"intended", "issued", "irrevocable"}),
        "revoked": frozenset({"revoking", "irrevocable"}),
        "irrevocable": frozenset({"revoking"}),
    }
)
ACTIONS: Mapping[str, str] = MappingProxyType(
    {
        "issued": actions.LEASE_ISSUED,
        "revoking": actions.LEASE_ENDED,
        "revoked": actions.LEASE_REVOKED,
        "irrevocable": actions.LEASE_IRREVOCABLE,
    }
)
# A driver's call takes less: whoever has an intent older than this has died.
INTENT_SECONDS = 120


class LeaseEndedError(GatewayError):
    """The lease has ended, or is about to."""

    slug = "lease-ended"
    status = 409
    title = "The lease has ended"


def intend(
    session: Session,
    config: settings.Leases,
    wanted: LeaseRequest,
    driver: Driver,
    *,
    actor: str,
) -> tuple[Lease, Purpose]:
    """Write a lease down that is about to be issued; those of the task's earlier tries end.

    Raises
    ------
    NotFoundError, JobNotStartedError, JobFinishedError, TooManyLeasesError
        See ``admission``.
    """
    job = admission.job_of(session, wanted)
    admission.take_room(session, config, job.client, wanted)
    _supersede(session, wanted, actor)
    purpose = Purpose(database.new_id("lea"), job.client, job.project, job.batch_id)
    lease = Lease(
        id=purpose.lease,
        client=job.client,
        project=job.project,
        job=job.id,
        **wanted.model_dump(),
        driver=driver.name,
        handle=driver.handle(purpose),
        expires_at=database.now(session) + timedelta(seconds=config.ttl_seconds),
    )
    session.add(lease)
    session.flush()
    _tell(session, lease, actions.LEASE_REQUESTED, actor)
    return lease, purpose


def _supersede(session: Session, wanted: LeaseRequest, actor: str) -> None:
    query = select(Lease.id).where(
        *admission.of_task(wanted),
        Lease.try_number < wanted.try_number,
        Lease.state.in_(LIVE),
    )
    for lease_id in session.scalars(query).all():
        end(session, lease_id, reason="superseded", actor=actor)


def confirm(session: Session, lease_id: str, *, actor: str) -> Lease | None:
    """Note that a lease was issued. None: it was given up meanwhile, and must not be handed out."""
    return _move(session, lease_id, "issued", actor, issued_at=func.clock_timestamp())


def end(session: Session, lease_id: str, *, reason: str, actor: str = GATEWAY) -> Lease | None:
    """Have a lease revoked as soon as may be. None: that was decided before."""
    moment = func.clock_timestamp()
    values = {"reason": reason, "attempts": 0, "due_at": moment, "ended_at": moment}
    return _move(session, lease_id, "revoking", actor, **values)


def end_again(session: Session, lease_id: str, *, reason: str) -> Lease | None:
    """Have a lease revoked of which something came to be, or stayed, after it was revoked.

    None: it is not one that counts as revoked.
    """
    values = {"state": "revoking", "reason": reason, "attempts": 0, "revoked_at": None}
    statement = (
        update(Lease)
        .where(Lease.id == lease_id, Lease.state == "revoked")
        .values(**values, due_at=func.clock_timestamp())
        .returning(Lease)
        .execution_options(populate_existing=True, synchronize_session=False)
    )
    lease = session.scalars(statement).one_or_none()
    if lease is not None:
        _tell(session, lease, actions.LEASE_ENDED, GATEWAY)
    return lease


def revoked(session: Session, lease_id: str) -> Lease | None:
    """Note that nothing is left of a lease."""
    moment = func.clock_timestamp()
    return _move(session, lease_id, "revoked", GATEWAY, revoked_at=moment, last_error=None)


def not_revoked(session: Session, config: settings.Leases, lease: Lease, kind: str) -> bool:
    """Note that revoking failed, to be tried again. Say whether the lease is irrevocable by now."""
    session.execute(update(Lease).where(Lease.id == lease.id).values(last_error=kind))
    if lease.state == "irrevocable" or lease.attempts < config.attempts:
        return lease.state == "irrevocable"
    _move(session, lease.id, "irrevocable", GATEWAY)
    return True


def renewed(session: Session, lease_id: str, seconds: float, *, actor: str) -> Lease | None:
    """Note that a lease lives so long from now on. None: it has ended meanwhile."""
    moment = func.clock_timestamp()
    statement = (
        update(Lease)
        .where(Lease.id == lease_id, Lease.state == "issued")
        .values(expires_at=moment + timedelta(seconds=seconds), renewed_at=moment, last_error=None)
        .returning(Lease)
        .execution_options(populate_existing=True, synchronize_session=False)
    )
    lease = session.scalars(statement).one_or_none()
    if lease is not None:
        _tell(session, lease, actions.LEASE_RENEWED, actor)
    return lease


def renewable(session: Session, config: settings.Leases, lease_id: str) -> tuple[Lease, float]:
    """Return a lease and the seconds it may live from now on.

    Raises
    ------
    NotFoundError
        There is no such lease.
    LeaseEndedError
        It is not in force, or has been renewed for as long as any may be.
    JobNotStartedError, JobFinishedError
        Its job does not run.
    """
    lease = find(session, lease_id)
    admission.require_running(session.get_one(Job, lease.job))
    seconds = left_seconds(config, lease, database.now(session))
    if lease.state != "issued" or seconds <= 0:
        raise LeaseEndedError
    return lease, seconds


def left_seconds(config: settings.Leases, lease: Lease, now: Any) -> float:
    """Return how long a lease may live from now on; 0 or less when it may not."""
    if lease.expires_at <= now:
        return 0.0
    most: float = config.max_seconds - (now - lease.created_at).total_seconds()
    return min(float(config.ttl_seconds), most)


def find(session: Session, lease_id: str) -> Lease:
    """Return a lease.

    Raises
    ------
    NotFoundError
        There is none of this id.
    """
    lease = session.get(Lease, lease_id)
    if lease is None:
        raise NotFoundError
    return lease


def page(
    session: Session,
    *,
    state: LeaseState | None,
    client: str | None,
    before: str | None,
    limit: int,
) -> tuple[list[Lease], str | None]:
    """Return leases, newest first, and where the following page begins."""
    query = select(Lease).order_by(Lease.id.desc()).limit(limit + 1)
    if state is not None:
        query = query.where(Lease.state == state)
    if client is not None:
        query = query.where(Lease.client == client)
    if before is not None:
        query = query.where(Lease.id < before)
    found = list(session.scalars(query))
    return found[:limit], found[limit - 1].id if len(found) > limit else None


def _move(session: Session, lease_id: str, to: str, actor: str, **values: Any) -> Lease | None:
    statement = (
        update(Lease)
        .where(Lease.id == lease_id, Lease.state.in_(FROM[to]))
        .values(state=to, **values)
        .returning(Lease)
        .execution_options(populate_existing=True, synchronize_session=False)
    )
    lease = session.scalars(statement).one_or_none()
    if lease is not None:
        _tell(session, lease, ACTIONS[to], actor)
    return lease


def _tell(session: Session, lease: Lease, action: str, actor: str) -> None:
    facts: dict[str, Any] = {
        "resource": lease.resource,
        "job": lease.job,
        "task": lease.task_id,
        "map_index": lease.map_index,
        "try": lease.try_number,
        "expires_at": lease.expires_at.isoformat(),
    }
    if lease.reason is not None:
        facts["reason"] = lease.reason
    trail.record(
        session,
        actor=actor,
        action=action,
        client=lease.client,
        subject=lease.id,
        details=facts,
    )
