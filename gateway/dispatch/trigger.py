"""The errand ``job.trigger``: exactly one DAG run for each job.

The run's id is the job's, so Airflow itself refuses a second one. Whatever happens in between, the
message is claimed again and the steps are repeated: the documents are written once more with the
same bytes, and a run that is there already is taken for what it is.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from gateway import logs
from gateway.batches import ledger, manifest, orders
from gateway.batches.model import Manifest
from gateway.dispatch import cancel, messenger, setbacks
from gateway.dispatch.airflow_api import (
    BadRequestError,
    ExistsError,
    NotThereError,
    OutcomeUnknownError,
)
from gateway.dispatch.messenger import Hold, Messenger
from gateway.dispatch.setbacks import RunTakenError, Setback
from gateway.jobs import states
from gateway.jobs.model import Job
from gateway.landing.zone import BatchPath
from gateway.outbox import queue
from gateway.outbox.queue import Claim

TOPIC = "job.trigger"
CONTRACT = 1
WAITING = frozenset({"queued", "blocked"})

log = logs.get("dispatch")


@dataclass(frozen=True, slots=True)
class _Errand:
    """A job; its batch's manifest and its own order while it waits for its run."""

    job: Job
    manifest: Manifest | None
    order: bytes = b""


def carry(parts: Messenger, claim: Claim) -> Setback | None:
    """Start the run of a claimed job; no transaction is open while Airflow or a disk is waited for.

    Returns
    -------
    Setback or None
        Why it was put off; None when there is nothing left to do.
    """
    try:
        _carry(parts, claim)
    except Exception as error:  # noqa: BLE001 - every failure is judged in one place
        return _put_off(parts, claim, error)
    return None


def conf(job: Job) -> dict[str, Any]:
    """Return what a run is told: ids alone, for everyone who may see the run can read it."""
    return {
        "contract": CONTRACT,
        "job_id": job.id,
        "batch_id": job.batch_id,
        "client": job.client,
        "project": job.project,
        "attempt": job.attempt,
    }


def _carry(parts: Messenger, claim: Claim) -> None:
    errand = _read(parts, claim)
    seen_before = claim.attempts > 1
    if errand.manifest is not None:
        job = errand.job
        _respect_hold(parts, job)
        documents = manifest.documents(errand.manifest)
        documents |= orders.documents(parts.keys, job, errand.order)
        parts.zone.write_documents(BatchPath(job.client, job.project, job.batch_id), documents)
        _start(parts, job, look_first=seen_before)
    run_may_exist = seen_before or errand.manifest is not None
    if not _settle(parts, claim, run_may_exist=run_may_exist):
        cancel.end_run(parts, errand.job)
        _settle(parts, claim, run_may_exist=False)


def _read(parts: Messenger, claim: Claim) -> _Errand:
    with parts.sessions.begin() as session:
        job = session.get_one(Job, claim.key)
        if job.state not in WAITING:
            return _Errand(job, None)
        batch = ledger.find(session, job.client, job.batch_id)
        found = manifest.of(session, job.client, batch.id)
        return _Errand(job, found, orders.document_of(session, job, batch))


def _start(parts: Messenger, job: Job, *, look_first: bool) -> None:
    dag = messenger.dag_id(job.client, job.project)
    token = parts.trigger_token(job.client, dag)
    if look_first and _there(parts, token, job):
        return
    try:
        parts.airflow_api.trigger(token, dag, messenger.run_id(job.id), conf(job))
    except (ExistsError, OutcomeUnknownError):
        if not _there(parts, token, job):
            raise
    except (NotThereError, BadRequestError) as error:
        parts.holds[dag] = Hold(time.monotonic() + parts.hold_seconds, type(error))
        raise


def _respect_hold(parts: Messenger, job: Job) -> None:
    """Spare Airflow the question while its answer is known: a DAG may have a thousand jobs."""
    hold = parts.holds.get(messenger.dag_id(job.client, job.project))
    if hold is not None and time.monotonic() < hold.until:
        raise hold.cause("held")


def _there(parts: Messenger, token: str, job: Job) -> bool:
    dag = messenger.dag_id(job.client, job.project)
    run = parts.airflow_api.get_run(token, dag, messenger.run_id(job.id))
    if run is not None and run.conf != conf(job):
        raise RunTakenError(run.run_id)
    return run is not None


def _settle(parts: Messenger, claim: Claim, *, run_may_exist: bool) -> bool:
    """Write down that Airflow has the run; only the newest claim changes anything.

    Returns
    -------
    bool
        False: the job was canceled meanwhile and its run must be ended first.
    """
    with parts.sessions.begin() as session:
        job = _locked(session, claim)
        if job is not None and job.state == "canceled" and run_may_exist:
            return False
        if queue.settle(session, claim) and job is not None and job.state in WAITING:
            states.move(session, job.id, "dispatched")
    log.info("trigger_carried", job_id=claim.key, attempts=claim.attempts)
    return True


def _put_off(parts: Messenger, claim: Claim, error: Exception) -> Setback:
    setback = setbacks.of(error, parts.settings.worker.max_attempts)
    with parts.sessions.begin() as session:
        job = _locked(session, claim)
        done = setbacks.put_off(session, claim, setback)
        if done == "quarantined":
            states.move(session, claim.key, "blocked", waiting_reason="quarantined")
        elif done == "deferred" and setback.blocks:
            states.move(session, claim.key, "blocked", waiting_reason=setback.reason)
        elif done == "deferred" and job is not None and job.state == "queued":
            job.waiting_reason = setback.reason
    setbacks.report(claim, setback, error, done)
    return setback


def _locked(session: Session, claim: Claim) -> Job | None:
    """Return the job, locked before the message is: everyone keeps to that order."""
    lock = {"key_share": True}
    return session.get(Job, claim.key, with_for_update=lock, populate_existing=True)
