"""Whether a task may have a credential: its job, its client's and its own limits."""

from __future__ import annotations

import re

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from gateway import settings
from gateway.clients.registry import Client
from gateway.errors import GatewayError, NotFoundError
from gateway.jobs.model import Job
from gateway.jobs.reading import ENDED
from gateway.jobs.states import JobFinishedError
from gateway.leases.model import Lease
from gateway.leases.views import LeaseRequest

RUNNING = frozenset({"dispatched", "running"})
# In these states something is, or may be, in the data system.
UNSETTLED = ("intended", "issued", "revoking")
_RUN = re.compile(r"gw\.(job_[0-9a-z]{26})")


class JobNotStartedError(GatewayError):
    """The job's run is not known to have begun; it may be in a moment."""

    slug = "job-not-started"
    status = 409
    title = "The job has not started"
    retryable = True

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "1"})


class TooManyLeasesError(GatewayError):
    """The client, or the task, holds as many credentials as it may."""

    slug = "rate-limited"
    status = 429
    title = "No more credentials at present"
    retryable = True

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "5"})


def job_of(session: Session, wanted: LeaseRequest) -> Job:
    """Return the job whose running task asks.

    Raises
    ------
    NotFoundError
        The run is no job's, or the DAG not that job's: what a run is called proves nothing.
    JobNotStartedError
        It waits to be dispatched.
    JobFinishedError
        It has ended, or is to be canceled.
    """
    match = _RUN.fullmatch(wanted.run_id)
    job = session.get(Job, match.group(1)) if match else None
    if job is None or wanted.dag_id != f"{job.client}__{job.project}":
        raise NotFoundError
    client = session.get(Client, job.client)
    if client is None or client.state == "gone":
        raise NotFoundError
    require_running(job)
    return job


def require_running(job: Job) -> None:
    """Refuse a job that does not run.

    Raises
    ------
    JobNotStartedError, JobFinishedError
    """
    if job.state in ENDED or job.cancel_requested_at is not None:
        raise JobFinishedError
    if job.state not in RUNNING:
        raise JobNotStartedError


def take_room(session: Session, config: settings.Leases, client: str, wanted: LeaseRequest) -> None:
    """Refuse a lease over a limit; those who ask for one client's leases at once take turns.

    What waits to be revoked counts: a data system that revokes nothing is given nothing more.

    Raises
    ------
    TooManyLeasesError
    """
    key = func.hashtextextended(f"lease:{client}", 0)
    session.execute(select(func.pg_advisory_xact_lock(key)))
    held = select(func.count()).where(Lease.client == client, Lease.state.in_(UNSETTLED))
    if session.scalars(held).one() >= config.per_client:
        raise TooManyLeasesError
    own = held.where(*of_task(wanted), Lease.resource == wanted.resource)
    if session.scalars(own).one() >= config.per_task:
        raise TooManyLeasesError


def of_task(wanted: LeaseRequest) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for the leases of one task, whichever its try."""
    return (
        Lease.run_id == wanted.run_id,
        Lease.task_id == wanted.task_id,
        Lease.map_index == wanted.map_index,
    )
