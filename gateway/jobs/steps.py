"""What tasks said of their steps: parts, row counts, rejects. Decides nothing about a job."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, delete, exists, func, insert, or_, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from gateway.jobs.model import FilePart, Job, Plan, Reject, StepPart
from gateway.jobs.views import ProgressReport

ORDER = ("plan", "process", "publish")


@dataclass(frozen=True, slots=True)
class Summary:
    """One step over all its parts; ``state`` is what its parts amount to."""

    job_id: str
    name: str
    parts: int
    running: int
    failed: int
    done: int
    total: int
    started_at: datetime
    finished_at: datetime | None
    rows_read: int
    rows_loaded: int
    rows_rejected: int

    @property
    def state(self) -> str:
        """``failed`` when a part failed, ``succeeded`` when all did, else ``running``."""
        if self.failed:
            return "failed"
        return "succeeded" if self.done and self.done >= self.total else "running"


def put(session: Session, job_id: str, report: ProgressReport) -> bool:
    """Keep what a task said. False: something newer is known already, nothing changed.

    Notes
    -----
    Reports of one try may arrive twice and out of order, so ``running`` never replaces the end
    of the same try.
    """
    values = {
        "try_number": report.try_number,
        "state": report.state,
        "total": report.total,
        "rows_read": report.rows.read,
        "rows_loaded": report.rows.loaded,
        "rows_rejected": report.rows.rejected,
        "finished_at": None if report.state == "running" else func.clock_timestamp(),
    }
    key = {"job_id": job_id, "step": report.step, "map_index": report.map_index}
    same_try = StepPart.try_number == report.try_number
    if report.state == "running":
        same_try = and_(same_try, StepPart.state == "running")
    statement = (
        upsert(StepPart)
        .values(**key, **values, started_at=func.clock_timestamp())
        .on_conflict_do_update(
            index_elements=[StepPart.job_id, StepPart.step, StepPart.map_index],
            set_=values,
            where=or_(StepPart.try_number < report.try_number, same_try),
        )
        .returning(StepPart.job_id)
    )
    if session.execute(statement).first() is None:
        return False
    _replace_files(session, key, report)
    if report.plan is not None:
        session.merge(Plan(job_id=job_id, document=report.plan.model_dump()))
    _replace_rejects(session, key, report)
    return True


def _replace_files(session: Session, key: dict[str, Any], report: ProgressReport) -> None:
    session.execute(delete(FilePart).filter_by(**key))
    counts = {
        each.file: {
            "rows_read": each.read,
            "rows_loaded": each.loaded,
            "rows_rejected": each.rejected,
        }
        for each in report.files
    }
    if counts:
        rows = [{**key, "file": file, **of_file} for file, of_file in counts.items()]
        session.execute(insert(FilePart), rows)


def _replace_rejects(session: Session, key: dict[str, Any], report: ProgressReport) -> None:
    session.execute(delete(Reject).filter_by(**key))
    if report.rejects:
        session.execute(insert(Reject), [{**key, **each.model_dump()} for each in report.rejects])


def any_failed(session: Session, job_id: str) -> bool:
    """Say whether a part of the job stands failed."""
    query = select(exists().where(StepPart.job_id == job_id, StepPart.state == "failed"))
    return bool(session.scalar(query))


def first_failed(session: Session, job_id: str) -> str | None:
    """Return the name of the first step with a failed part."""
    return next((each.name for each in summaries(session, [job_id]) if each.failed), None)


def summarized(job_ids: Sequence[str]) -> Select[Any]:
    """Return the query whose rows are ``Summary``'s fields."""
    return (
        select(
            StepPart.job_id,
            StepPart.step,
            func.count(),
            func.count().filter(StepPart.state == "running"),
            func.count().filter(StepPart.state == "failed"),
            func.count().filter(StepPart.state == "succeeded"),
            func.max(StepPart.total),
            func.min(StepPart.started_at),
            func.max(StepPart.finished_at),
            *(
                # A sum of bigints is a numeric; counts are bounded well below 2**63.
                func.sum(column).cast(StepPart.rows_read.type)
                for column in (StepPart.rows_read, StepPart.rows_loaded, StepPart.rows_rejected)
            ),
        )
        .where(StepPart.job_id.in_(job_ids))
        .group_by(StepPart.job_id, StepPart.step)
    )


def summaries(session: Session, job_ids: Sequence[str]) -> list[Summary]:
    """Return the steps of these jobs, each job's in their order."""
    found = [Summary(*row) for row in session.execute(summarized(job_ids))]
    return in_order(found)


def in_order(found: Iterable[Summary]) -> list[Summary]:
    """Return a job's steps as they follow on each other."""
    return sorted(found, key=lambda each: ORDER.index(each.name))


Position = tuple[str, int, int]
START: Position = ("", -2, 0)


def rejects_after(
    session: Session, client: str, job_id: str, position: Position, limit: int
) -> list[Reject]:
    """Return the next rejects of a client's job, in order of step, part and arrival."""
    order = (Reject.step, Reject.map_index, Reject.id)
    query = (
        select(Reject)
        .join(Job, Job.id == Reject.job_id)
        .where(Job.client == client, Job.id == job_id, tuple_(*order) > tuple_(*position))
        .order_by(*order)
        .limit(limit)
    )
    return list(session.scalars(query))


def position_of(reject: Reject) -> Position:
    """Return where the page that ends with this reject ends."""
    return (reject.step, reject.map_index, reject.id)
