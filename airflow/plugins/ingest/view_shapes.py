"""What the gateway says, as the views take it: no more than they show.

An answer that lacks some of it is one that makes no sense; what is there besides is left alone.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel


class Step(BaseModel):
    """One step of a job; ``done`` of ``total`` tasks have succeeded."""

    name: str
    state: str
    started_at: datetime
    finished_at: datetime | None
    done: int
    total: int


class Rows(BaseModel):
    """Rows so far."""

    read: int
    loaded: int
    rejected: int


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    detail: str


class FileChange(BaseModel):
    """A file whose rows came out otherwise; None where an attempt did not meet it."""

    file: str
    before: Rows | None
    after: Rows | None


class RejectChanges(BaseModel):
    """Rejected rows that only one of two attempts has."""

    new: int
    gone: int
    is_complete: bool


class Changes(BaseModel):
    """How an attempt came out, held against an earlier one."""

    earlier_job: str
    contract_changed: bool | None
    rows_before: Rows
    files_changed: int
    files: list[FileChange]
    rejects: RejectChanges


class PlannedFile(BaseModel):
    """What was found of a file before its rows are read."""

    file: str
    format: str
    encoding: str | None
    delimiter: str | None
    size_bytes: int
    table: str | None
    refusal: str | None
    chunks: int


class Plan(BaseModel):
    """How a delivery is taken apart."""

    files_total: int
    chunks: int
    tasks: int
    files: list[PlannedFile]


class Job(BaseModel):
    """One processing attempt; whose it is, only administrators are told."""

    id: str
    batch: str
    attempt: int
    cause: str
    state: str
    waiting_reason: str | None
    steps: list[Step]
    rows: Rows
    created_at: datetime
    finished_at: datetime | None
    error: JobError | None
    changes: Changes | None = None
    plan: Plan | None = None
    client: str = ""
    project: str = ""


class File(BaseModel):
    """One file of a batch."""

    name: str
    state: str
    size_bytes: int | None
    sha256: str | None
    completed_at: datetime | None


class Period(BaseModel):
    """The time a delivery is about."""

    start: str
    end: str


class BatchSummary(BaseModel):
    """One delivery."""

    id: str
    project: str
    reference: str
    mode: str
    state: str
    period: Period | None
    metadata: dict[str, Any]
    supersedes: str | None
    file_count: int
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    sealed_at: datetime | None


class Batch(BatchSummary):
    """One delivery with its files and jobs."""

    files: list[File]
    jobs: list[Job]


class Reject(BaseModel):
    """A row that failed validation."""

    file: str
    line: int | None
    column: str | None
    rule: str
    value: str | None


class Client(BaseModel):
    """A client as administrators see it."""

    client: str
    name: str
    state: str
    projects: list[str]
    created_at: datetime


class Clients(BaseModel):
    """Every client."""

    items: list[Client]


class Lease(BaseModel):
    """A credential that a task was lent; what it was, nobody can see."""

    id: str
    client: str
    project: str
    job: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    resource: str
    state: str
    reason: str | None
    attempts: int
    last_error: str | None
    expires_at: datetime
    created_at: datetime


class Event(BaseModel):
    """One record of the audit trail."""

    number: int
    at: datetime
    actor: str
    action: str
    client: str | None
    subject: str
    details: dict[str, Any]


class Health(BaseModel):
    """What the gateway finds of the parts it needs."""

    status: str
    checks: dict[str, str]


class Batches(BaseModel):
    """A page of deliveries."""

    items: list[BatchSummary]
    next: str | None


class Jobs(BaseModel):
    """A page of jobs."""

    items: list[Job]
    next: str | None


class Leases(BaseModel):
    """A page of leases."""

    items: list[Lease]
    next: str | None


class Events(BaseModel):
    """A page of the audit trail."""

    items: list[Event]
    next: str | None
