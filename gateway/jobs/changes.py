"""How an attempt came out, held against the one before it."""

from __future__ import annotations

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from gateway.jobs import steps
from gateway.jobs.model import FilePart, Job, Reject, StepPart
from gateway.jobs.reading import ENDED
from gateway.jobs.views import (
    MAX_REJECTS,
    FileChange,
    FileRows,
    JobChanges,
    RejectChanges,
    RowCounts,
)

LISTED = 1000


def against_earlier(session: Session, job: Job) -> JobChanges | None:
    """Compare a job that has ended with the last earlier attempt that processed anything.

    Returns
    -------
    JobChanges or None
        None: there is no such attempt, or the job has not come out yet.
    """
    is_over = job.attempt > 1 and job.state in ENDED
    earlier = _earlier(session, job) if is_over else None
    if earlier is None:
        return None
    before, after = _files(session, earlier.id), _files(session, job.id)
    names = sorted(name for name in before | after if before.get(name) != after.get(name))
    files = [
        FileChange(file=name, before=before.get(name), after=after.get(name))
        for name in names[:LISTED]
    ]
    return JobChanges(
        earlier_job=earlier.id,
        contract_changed=_contract_changed(earlier, job),
        rows_before=_rows(session, earlier.id),
        files_changed=len(names),
        files=files,
        rejects=_rejects(session, earlier.id, job.id),
    )


def _earlier(session: Session, job: Job) -> Job | None:
    worked = select(StepPart.job_id).where(StepPart.step == "process")
    query = select(Job).where(
        Job.client == job.client,
        Job.batch_id == job.batch_id,
        Job.attempt < job.attempt,
        Job.id.in_(worked),
    )
    return session.scalars(query.order_by(Job.attempt.desc()).limit(1)).first()


def _contract_changed(earlier: Job, job: Job) -> bool | None:
    if earlier.contract_sha256 is None or job.contract_sha256 is None:
        return None
    return earlier.contract_sha256 != job.contract_sha256


def _files(session: Session, job_id: str) -> dict[str, FileRows]:
    columns = (FilePart.rows_read, FilePart.rows_loaded, FilePart.rows_rejected)
    sums = [func.sum(column).cast(column.type) for column in columns]
    query = select(FilePart.file, *sums).where(FilePart.job_id == job_id).group_by(FilePart.file)
    return {
        file: FileRows(read=read, loaded=loaded, rejected=rejected)
        for file, read, loaded, rejected in session.execute(query)
    }


def _rows(session: Session, job_id: str) -> RowCounts:
    found = steps.summaries(session, [job_id])
    return RowCounts(
        read=sum(each.rows_read for each in found),
        loaded=sum(each.rows_loaded for each in found),
        rejected=sum(each.rows_rejected for each in found),
    )


def _rejects(session: Session, earlier: str, later: str) -> RejectChanges:
    return RejectChanges(
        new=_only_in(session, later, earlier),
        gone=_only_in(session, earlier, later),
        is_complete=not _is_capped(session, earlier) and not _is_capped(session, later),
    )


def _only_in(session: Session, job_id: str, other: str) -> int:
    only = _places(job_id).except_all(_places(other)).subquery()
    return session.scalar(select(func.count()).select_from(only)) or 0


def _places(job_id: str) -> Select[str, int | None, str | None, str]:
    columns = (Reject.file, Reject.line, Reject.column, Reject.rule)
    return select(*columns).where(Reject.job_id == job_id)


def _is_capped(session: Session, job_id: str) -> bool:
    full = (
        select(Reject.step)
        .where(Reject.job_id == job_id)
        .group_by(Reject.step, Reject.map_index)
        .having(func.count() >= MAX_REJECTS)
    )
    return session.execute(full.limit(1)).first() is not None
