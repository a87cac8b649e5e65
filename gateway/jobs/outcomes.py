"""How a job ends: what Airflow says of its run, weighed with what the tasks reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.orm import Session

from gateway.jobs import steps
from gateway.jobs.model import Job
from gateway.jobs.steps import Summary
from gateway.jobs.views import JobState

RunState = Literal["success", "failed", "lost"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ends."""

    state: JobState
    error_code: str | None = None
    error_detail: str | None = None


def of(session: Session, job: Job, run_state: RunState, failed_step: str | None = None) -> Outcome:
    """Decide how a job ends whose DAG run has ended.

    Parameters
    ----------
    failed_step
        The task Airflow knows to have failed, for a run in which no task said why.

    Notes
    -----
    Whether rows were loaded, only the publish step knows. Where it has reported its success, that
    is how the job ended, even if the run was ended, marked or deleted right after; and Airflow's
    ``success`` alone is no proof.
    """
    found = {each.name: each for each in steps.summaries(session, [job.id])}
    if "publish" in found and found["publish"].state == "succeeded":
        return _published(found)
    if run_state == "success":
        detail = "The run ended without saying what it published."
        return Outcome("failed", "no-result", detail)
    if job.cancel_requested_at is not None:
        return Outcome("canceled")
    if job.error_code is not None:
        return Outcome("failed", job.error_code, job.error_detail)
    if run_state == "lost":
        return Outcome("failed", "run-lost", "The run was deleted in Airflow before it ended.")
    step = failed_step or steps.first_failed(session, job.id)
    detail = f"The step {step} failed." if step else "The run failed before its first step."
    return Outcome("failed", "run-failed", detail)


def _published(found: Mapping[str, Summary]) -> Outcome:
    rejected = sum(each.rows_rejected for each in found.values())
    return Outcome("partially_succeeded" if rejected else "succeeded")
