"""A job with all that there is to say of it."""

from __future__ import annotations

from sqlalchemy.orm import Session

from gateway.jobs import changes, reading
from gateway.jobs.model import Job
from gateway.jobs.views import JobView


def in_full(session: Session, job: Job) -> JobView:
    """Return a job with its plan and, once it has ended, its differences to the attempt before."""
    found = changes.against_earlier(session, job)
    more = {"changes": found, "plan": reading.plan_of(session, job.id)}
    return reading.view(session, job).model_copy(update=more)
