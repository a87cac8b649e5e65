"""The life of a job: everything that makes one of the allowed transitions.

A job's state only moves forward, except that a blocked job may be queued again. Each move is an
``UPDATE … WHERE state IN (…)`` and writes its event and audit record in the same transaction, so
that two movers never both succeed and a poller never sees a state go back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from gateway import database
from gateway.audit import actions, trail
from gateway.errors import GatewayError
from gateway.events import feed
from gateway.jobs import outcomes, pinning, steps
from gateway.jobs.model import Job
from gateway.jobs.outcomes import RunState
from gateway.jobs.pinning import Start
from gateway.jobs.reading import (
    ACTIVE,
    ENDED,
    by_id,
    find,
    locked,
    page,
    require_own_run,
    require_own_work,
    view,
    views,
)
from gateway.jobs.transitions import ACTIONS, FROM, TIMES
from gateway.jobs.views import Cause, JobState, ProgressReport
from gateway.outbox import queue

# What other rooms ask of jobs, under one name.
__all__ = [
    "ACTIVE",
    "ENDED",
    "JobActiveError",
    "JobFinishedError",
    "JobState",
    "RunState",
    "by_id",
    "cancel",
    "find",
    "finish",
    "move",
    "page",
    "queue_job",
    "report",
    "retry",
    "view",
    "views",
]

GATEWAY = "gateway"


class JobActiveError(GatewayError):
    """The batch is being worked on already."""

    slug = "job-active"
    status = 409
    title = "A job of this batch is still active"


class JobFinishedError(GatewayError):
    """The job has ended; nothing about it changes any more."""

    slug = "job-finished"
    status = 409
    title = "The job has ended"


def queue_job(
    session: Session,
    *,
    client: str,
    project: str,
    batch_id: str,
    cause: Cause,
    created_by: str,
    reason: str | None = None,
    start: Start | None = None,
) -> Job:
    """Add the next processing attempt of a batch, and the message that will start it.

    The caller holds the batch's row lock: attempts are numbered without gaps. Without ``start``
    the job begins with what landed, under the project's contract as it stands.
    """
    start = start or pinning.latest(session, client, project)
    last = session.scalar(select(func.max(Job.attempt)).where(Job.batch_id == batch_id)) or 0
    job = Job(
        id=database.new_id("job"),
        client=client,
        project=project,
        batch_id=batch_id,
        attempt=last + 1,
        cause=cause,
        reason=reason,
        contract_sha256=start.contract_sha256,
        on_reject=start.on_reject,
        starts_from="staged" if start.staged_job else "landing",
        staged_job=start.staged_job,
        state="queued",
        created_by=created_by,
    )
    session.add(job)
    session.flush()
    queue.put(session, topic="job.trigger", key=job.id, lane=client, payload={"job_id": job.id})
    _tell(session, job, created_by)
    return job


def move(
    session: Session, job_id: str, to: JobState, *, actor: str = GATEWAY, **facts: str | None
) -> Job | None:
    """Move a job to another state.

    Parameters
    ----------
    facts
        ``waiting_reason`` for a blocked or queued job; ``error_code`` and ``error_detail`` for a failed one.

    Returns
    -------
    The moved job; None when the move is not allowed from where the job stands, or has been made.
    """
    values: dict[str, Any] = {"waiting_reason": None, **facts}
    if to in ENDED - {"failed"}:
        values |= {"error_code": None, "error_detail": None}
    for name in TIMES.get(to, ()):
        values[name] = func.coalesce(getattr(Job, name), func.clock_timestamp())
    statement = (
        update(Job)
        .where(Job.id == job_id, _may_become(to, facts))
        .values(state=to, updated_at=func.clock_timestamp(), **values)
        .returning(Job)
        .execution_options(populate_existing=True, synchronize_session=False)
    )
    job = session.scalars(statement).one_or_none()
    if job is not None:
        _tell(session, job, actor)
    return job


def _may_become(to: str, facts: Mapping[str, str | None]) -> ColumnElement[bool]:
    allowed = Job.state.in_(FROM[to])
    if to not in {"queued", "blocked"}:
        return allowed
    # Waiting for another reason than before is worth telling.
    reason = facts.get("waiting_reason")
    return or_(allowed, and_(Job.state == to, Job.waiting_reason.is_distinct_from(reason)))


def _tell(session: Session, job: Job, actor: str) -> None:
    facts: dict[str, Any] = {
        "batch": job.batch_id,
        "project": job.project,
        "attempt": job.attempt,
        "state": job.state,
    }
    for name in ("waiting_reason", "error_code", "reason"):
        if value := getattr(job, name):
            facts[name] = value
    trail.record(
        session,
        actor=actor,
        action=ACTIONS.get(job.state, actions.JOB_FINISHED),
        client=job.client,
        subject=job.id,
        details=facts,
    )
    kind = "finished" if job.state in ENDED else job.state
    feed.publish(session, client=job.client, type=f"job.{kind}", subject=job.id, data=facts)


def cancel(session: Session, client: str, job_id: str, *, actor: str) -> Job:
    """End a job that has not started, or ask for the end of one that has.

    The message that would have started the job stays and finds it canceled.

    Raises
    ------
    NotFoundError
        The client has no such job.
    JobFinishedError
        It ended in another way. Canceling a canceled job again is no error.
    """
    job = find(session, client, job_id, lock=True)
    if job.state in ENDED - {"canceled"}:
        raise JobFinishedError
    if job.state in {"queued", "blocked"}:
        return move(session, job_id, "canceled", actor=actor) or job
    if job.state != "canceled" and job.cancel_requested_at is None:
        job.cancel_requested_at = job.updated_at = database.now(session)
        queue.put(session, topic="job.cancel", key=job.id, lane=client, payload={"job_id": job.id})
        trail.record(
            session,
            actor=actor,
            action=actions.JOB_CANCEL_REQUESTED,
            client=client,
            subject=job.id,
            details={"state": job.state},
        )
    return job


def retry(session: Session, job_id: str, *, actor: str) -> Job:
    """Make a waiting, blocked or quarantined job due now, for whoever mended its cause.

    Raises
    ------
    NotFoundError
        No client has such a job.
    JobFinishedError
        The job has ended.
    """
    job = locked(session, job_id)
    if job.state in ENDED:
        raise JobFinishedError
    queue.release(session, topic="job.trigger", key=job_id)
    trail.record(
        session,
        actor=actor,
        action=actions.JOB_RETRIED,
        client=job.client,
        subject=job_id,
        details={"state": job.state},
    )
    return move(session, job_id, "queued", actor=actor) or job


# --- what tasks and Airflow say ---------------------------------------------------------------


def report(session: Session, job_id: str, said: ProgressReport) -> None:
    """Keep what a task of the job's run says; the first word of it makes the job running.

    Raises
    ------
    NotFoundError
        There is no such job.
    InvalidRequestError
        The report comes from another DAG or run than the job's.
    OtherWorkError
        It comes from a run that bears the job's name and works on something else.
    JobFinishedError
        The job has ended.
    """
    job = locked(session, job_id)
    require_own_run(job, said.dag_id, said.run_id)
    require_own_work(job, said.batch_id, said.attempt)
    if job.state in ENDED:
        raise JobFinishedError
    if steps.put(session, job_id, said):
        _keep_error(session, job, said)
    move(session, job_id, "running")


def _keep_error(session: Session, job: Job, said: ProgressReport) -> None:
    if said.state == "failed" and said.error is not None:
        job.error_code, job.error_detail = said.error.code, said.error.detail
    elif job.error_code is not None and not steps.any_failed(session, job.id):
        # The task that failed was tried again.
        job.error_code = job.error_detail = None
    session.flush()


def finish(
    session: Session, job_id: str, run_state: RunState, failed_step: str | None = None
) -> Job | None:
    """End a job whose DAG run has ended. None: it had ended already, or there is no such job.

    Reports wait for this, and are refused after it.
    """
    job = session.get(Job, job_id, with_for_update={"key_share": True}, populate_existing=True)
    if job is None or job.state in ENDED:
        return None
    # A run that ended was started, whether or not its trigger was settled here.
    move(session, job_id, "dispatched")
    found = outcomes.of(session, job, run_state, failed_step)
    return move(
        session,
        job_id,
        found.state,
        error_code=found.error_code,
        error_detail=found.error_detail,
    )
