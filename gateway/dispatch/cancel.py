"""The errand ``job.cancel``: end a job's run, if it has one that has not ended by itself."""

from __future__ import annotations

from gateway.dispatch import messenger, setbacks
from gateway.dispatch.messenger import Messenger
from gateway.dispatch.setbacks import RunTakenError, Setback
from gateway.jobs.model import Job
from gateway.outbox import queue
from gateway.outbox.queue import Claim

TOPIC = "job.cancel"
UNFINISHED = frozenset({"queued", "running"})


def carry(parts: Messenger, claim: Claim) -> Setback | None:
    """End the run of a job whose canceling was asked for; the watcher sees it end.

    Returns
    -------
    Setback or None
        Why it was put off; None when there is nothing left to do.
    """
    try:
        with parts.sessions.begin() as session:
            job = session.get_one(Job, claim.key)
        end_run(parts, job)
        with parts.sessions.begin() as session:
            queue.settle(session, claim)
    except Exception as error:  # noqa: BLE001 - every failure is judged in one place
        return setbacks.apply(parts, claim, error)
    return None


def end_run(parts: Messenger, job: Job) -> None:
    """Ask Airflow to end a job's run; no run, or an ended one, is as good.

    Notes
    -----
    Airflow would turn a run that has succeeded into a failed one, hence the look before.
    """
    dag, run_id = messenger.dag_id(job.client, job.project), messenger.run_id(job.id)
    token = parts.cancel_token(job.client, dag)
    run = parts.airflow_api.get_run(token, dag, run_id)
    if run is not None and run.conf.get("job_id") != job.id:
        raise RunTakenError(run_id)
    if run is not None and run.state in UNFINISHED:
        parts.airflow_api.cancel_run(token, dag, run_id)
