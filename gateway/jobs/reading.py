"""Finding jobs and showing them as their clients see them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from gateway.errors import Fault, GatewayError, InvalidRequestError, NotFoundError
from gateway.identity.access import Principal
from gateway.jobs import steps
from gateway.jobs.model import Job
from gateway.jobs.steps import Summary
from gateway.jobs.views import JobError, JobView, RowCounts, StepView

ACTIVE = frozenset({"queued", "blocked", "dispatched", "running"})
ENDED = frozenset({"succeeded", "partially_succeeded", "failed", "canceled"})
ID = re.compile(r"job_[0-9a-z]{26}")


class OtherWorkError(GatewayError):
    """A run bears the name of a job, and works on another batch or attempt."""

    slug = "other-work"
    status = 409
    title = "The run does not work on what the job is for"


def client_of(principal: Principal) -> str:
    """Return the client a caller acts for; a caller who acts for none finds nothing."""
    if principal.client is None:
        raise NotFoundError
    return principal.client


def require_id(job_id: str) -> None:
    """See to it that this may be a job's id; the database is asked for no other.

    Raises
    ------
    NotFoundError
    """
    if ID.fullmatch(job_id) is None:
        raise NotFoundError


def find(session: Session, client: str, job_id: str, *, lock: bool = False) -> Job:
    """Return a client's job.

    Raises
    ------
    NotFoundError
        The client has no such job.
    """
    require_id(job_id)
    query = select(Job).where(Job.client == client, Job.id == job_id)
    if lock:
        query = query.with_for_update(key_share=True)
    job = session.scalars(query.execution_options(populate_existing=lock)).one_or_none()
    if job is None:
        raise NotFoundError
    return job


def by_id(session: Session, job_id: str) -> Job:
    """Return a job of whatever client, for callers who speak for the platform.

    Raises
    ------
    NotFoundError
        There is no such job.
    """
    require_id(job_id)
    job = session.get(Job, job_id)
    if job is None:
        raise NotFoundError
    return job


def locked(session: Session, job_id: str) -> Job:
    """Return a job of whatever client, locked, for callers who speak for the platform.

    Raises
    ------
    NotFoundError
        There is no such job.
    """
    require_id(job_id)
    lock = {"key_share": True}
    job = session.get(Job, job_id, with_for_update=lock, populate_existing=True)
    if job is None:
        raise NotFoundError
    return job


def require_own_run(job: Job, dag_id: str, run_id: str) -> None:
    """See to it that what is said of a job's run is said of this run.

    Raises
    ------
    InvalidRequestError
    """
    told = {"dag_id": dag_id, "run_id": run_id}
    expected = {"dag_id": f"{job.client}__{job.project}", "run_id": f"gw.{job.id}"}
    faults = [Fault(name, "is not the job's") for name in told if told[name] != expected[name]]
    if faults:
        raise InvalidRequestError(errors=faults)


def require_own_work(job: Job, batch_id: str | None, attempt: int | None) -> None:
    """See to it that a run works on what its job is for; what it does not say is not compared.

    Raises
    ------
    OtherWorkError
    """
    if batch_id not in {None, job.batch_id} or attempt not in {None, job.attempt}:
        raise OtherWorkError


def page(
    session: Session,
    *,
    client: str | None,
    state: str | None = None,
    project: str | None = None,
    before: str | None = None,
    limit: int = 50,
) -> tuple[list[Job], str | None]:
    """Return jobs, newest first, and where the following page begins.

    Parameters
    ----------
    client
        Whose; None, for administrators only, means everybody's.
    """
    query = select(Job).order_by(Job.id.desc()).limit(limit + 1)
    exact = {Job.client: client, Job.state: state, Job.project: project}
    for column, value in exact.items():
        if value is not None:
            query = query.where(column == value)
    if before is not None:
        query = query.where(Job.id < before)
    found = list(session.scalars(query))
    return found[:limit], found[limit - 1].id if len(found) > limit else None


def of_batch(session: Session, client: str, batch_id: str) -> list[Job]:
    """Return the jobs of a client's batch, newest first."""
    query = select(Job).where(Job.client == client, Job.batch_id == batch_id)
    return list(session.scalars(query.order_by(Job.attempt.desc())))


def first_of_batch(session: Session, client: str, batch_id: str) -> Job:
    """Return the job that sealing a client's batch began."""
    query = select(Job).where(Job.client == client, Job.batch_id == batch_id, Job.attempt == 1)
    return session.scalars(query).one()


def is_active(session: Session, batch_id: str) -> bool:
    """Say whether a job of the batch has not ended."""
    query = select(exists().where(Job.batch_id == batch_id, Job.state.in_(ACTIVE)))
    return bool(session.scalar(query))


def view(session: Session, job: Job) -> JobView:
    """Return a job as its client sees it."""
    return views(session, [job])[0]


def views(session: Session, jobs: Sequence[Job]) -> list[JobView]:
    """Return jobs as their client sees them, with one query for all their steps."""
    by_job: dict[str, list[Summary]] = {}
    for summary in steps.summaries(session, [job.id for job in jobs]) if jobs else ():
        by_job.setdefault(summary.job_id, []).append(summary)
    return [shown(job, by_job.get(job.id, [])) for job in jobs]


def as_queued(job: Job) -> JobView:
    """Return a job as it was when it was queued: an answer that can be given again."""
    return shown(job, []).model_copy(
        update={"state": "queued", "waiting_reason": None, "finished_at": None, "error": None}
    )


def shown(job: Job, found: Sequence[Summary]) -> JobView:
    """Return a job and its steps as its client sees them."""
    failed = job.state == "failed" and job.error_code is not None
    error = JobError(code=job.error_code or "", detail=job.error_detail or "") if failed else None
    return JobView(
        id=job.id,
        batch=job.batch_id,
        attempt=job.attempt,
        cause=job.cause,
        state=job.state,
        waiting_reason=job.waiting_reason,
        steps=[_step_view(job, each) for each in found],
        rows=RowCounts(
            read=sum(each.rows_read for each in found),
            loaded=sum(each.rows_loaded for each in found),
            rejected=sum(each.rows_rejected for each in found),
        ),
        created_at=job.created_at,
        finished_at=job.finished_at,
        error=error,
        starts_from=job.starts_from,
        contract_sha256=job.contract_sha256,
    )


def _step_view(job: Job, summary: Summary) -> StepView:
    state = summary.state
    if state == "running" and job.state in ENDED:
        # Its tasks were stopped, or died without a word; nothing runs any more.
        state = job.state if job.state in {"failed", "canceled"} else "succeeded"
    is_over = state != "running" and (summary.running == 0 or job.state in ENDED)
    return StepView(
        name=summary.name,
        state=state,
        started_at=summary.started_at,
        finished_at=(summary.finished_at or job.finished_at) if is_over else None,
        done=summary.done,
        total=summary.total,
    )
