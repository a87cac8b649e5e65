"""Makes jobs and reports for the tests of jobs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from gateway.audit.model import AuditEvent
from gateway.database import new_id
from gateway.events import feed
from gateway.jobs import states
from gateway.jobs.model import Job
from gateway.jobs.views import ProgressReport


def queued(sessions: sessionmaker[Session], client: str = "acme", batch: str = "") -> Job:
    with sessions.begin() as session:
        return states.queue_job(
            session,
            client=client,
            project="flights",
            batch_id=batch or new_id("bat"),
            cause="seal",
            created_by="acme-uploader",
        )


def said(job: Job, **fields: Any) -> dict[str, Any]:
    """Return the body of a report, as a task sends it."""
    return {
        "dag_id": f"{job.client}__{job.project}",
        "run_id": f"gw.{job.id}",
        "task_id": fields.get("step", "process"),
        "map_index": -1,
        "try_number": 1,
        "step": "process",
        "state": "succeeded",
        "total": 1,
        "rows": {"read": 0, "loaded": 0, "rejected": 0},
        "rejects": [],
        "error": None,
        **fields,
    }


def report(sessions: sessionmaker[Session], job: Job, **fields: Any) -> None:
    with sessions.begin() as session:
        states.report(session, job.id, ProgressReport.model_validate(said(job, **fields)))


def rows(read: int = 0, loaded: int = 0, rejected: int = 0) -> dict[str, int]:
    return {"read": read, "loaded": loaded, "rejected": rejected}


def rejects(count: int, **fields: Any) -> list[dict[str, Any]]:
    one = {"file": "a.csv", "line": 1, "column": "id", "rule": "type", "value": "x", **fields}
    return [{**one, "line": number} for number in range(1, count + 1)]


def now(sessions: sessionmaker[Session], job: Job) -> Job:
    with sessions.begin() as session:
        return session.get_one(Job, job.id)


def told(sessions: sessionmaker[Session], job: Job) -> tuple[list[str], list[str]]:
    """Return the types of a job's events, and the actions of its audit records."""
    with sessions.begin() as session:
        events = [
            each.type for each in feed.after(session, job.client, 0, 1000) if each.subject == job.id
        ]
        query = select(AuditEvent.action).where(AuditEvent.subject == job.id)
        return events, list(session.scalars(query.order_by(AuditEvent.number)))
