"""What a job starts from: a contract that no later change touches, and landed or staged bytes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gateway.clients.registry import Project
from gateway.jobs.model import Job, StepPart

Source = Literal["landing", "staged"]
Choice = Literal["pinned", "latest"]
LOADED = ("succeeded", "partially_succeeded")


@dataclass(frozen=True, slots=True)
class Start:
    """The contract and tolerance of a job, and the attempt whose staged rows it takes."""

    contract_sha256: str | None
    on_reject: dict[str, Any] | None
    staged_job: str | None = None


def latest(session: Session, client: str, project: str) -> Start:
    """Pin a project's contract as it stands."""
    query = select(Project.contract_sha256, Project.on_reject)
    found = session.execute(query.where(Project.client == client, Project.name == project)).first()
    return Start(None, None) if found is None else Start(*found)


def chosen(session: Session, client: str, project: str, batch_id: str, choice: Choice) -> Start:
    """Return the contract that is asked for.

    ``pinned`` is that of the last attempt that loaded the batch, or of the last one where none
    did; where that one ran before contracts were kept, it is the project's as it stands.
    """
    now = latest(session, client, project)
    if choice == "latest":
        return now
    query = select(Job).where(Job.client == client, Job.batch_id == batch_id)
    has_loaded = Job.state.in_(LOADED)
    job = session.scalars(query.order_by(has_loaded.desc(), Job.attempt.desc()).limit(1)).first()
    if job is None or job.contract_sha256 is None:
        return now
    return Start(job.contract_sha256, job.on_reject)


def last_staged(
    session: Session, batch_id: str, contract_sha256: str | None, *, after: datetime | None
) -> Job | None:
    """Return the last attempt all of whose files were processed under a contract.

    Parameters
    ----------
    after
        When staged rows of the batch were last taken away: earlier attempts have none.
    """
    attempts = select(Job.id).where(Job.batch_id == batch_id)
    processed = (
        select(StepPart.job_id)
        .where(
            StepPart.job_id.in_(attempts),
            StepPart.step == "process",
            StepPart.state == "succeeded",
        )
        .group_by(StepPart.job_id)
        .having(func.count() >= func.max(StepPart.total))
    )
    query = select(Job).where(
        Job.batch_id == batch_id,
        Job.contract_sha256 == contract_sha256,
        Job.id.in_(processed),
    )
    if after is not None:
        query = query.where(Job.created_at > after)
    return session.scalars(query.order_by(Job.attempt.desc()).limit(1)).first()
