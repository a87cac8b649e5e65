"""A job with all that there is to say of it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from gateway.errors import NotFoundError
from gateway.jobs import changes, reading, steps
from gateway.jobs.model import Job, Plan
from gateway.jobs.steps import Summary
from gateway.jobs.views import JobPlan, JobView


def found(session: Session, client: str, job_id: str) -> tuple[Job, JobView]:
    """Find a client's job, and show it: in one query while it goes on, for it is asked for often.

    Once it has ended, its differences to the attempt before belong to it.

    Raises
    ------
    NotFoundError
        The client has no such job.
    """
    reading.require_id(job_id)
    rows = session.execute(_whole(client, job_id)).all()
    if not rows:
        raise NotFoundError
    job, plan = rows[0][:2]
    of_steps = steps.in_order(Summary(*row[2:]) for row in rows if row[2] is not None)
    more = {
        "changes": changes.against_earlier(session, job),
        "plan": None if plan is None else JobPlan.model_validate(plan),
    }
    return job, reading.shown(job, of_steps).model_copy(update=more)


def _whole(client: str, job_id: str) -> Select[Any]:
    """Return the query for a job and its plan: a row for each of its steps, or one without."""
    each = steps.summarized([job_id]).subquery()
    return (
        select(Job, Plan.document, each)
        .outerjoin(Plan, Plan.job_id == Job.id)
        .outerjoin(each, each.c.job_id == Job.id)
        .where(Job.client == client, Job.id == job_id)
    )
