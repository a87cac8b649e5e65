"""Shapes of jobs as doors give and take them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

JobState = Literal[
    "queued",
    "blocked",
    "dispatched",
    "running",
    "succeeded",
    "partially_succeeded",
    "failed",
    "canceled",
]
Cause = Literal["seal", "replay", "history"]
Step = Literal["plan", "process", "publish"]
Layer = Literal["landing", "staged"]

MAX_REJECTS = 1000
MAX_FILES = 10_000
MAX_PLANNED = 1000
Word = Annotated[str, StringConstraints(min_length=1, max_length=100)]
# A thousand parts' counts together still fit the database's and JSON's integers.
Count = Annotated[int, Field(ge=0, le=10**12)]


class StepView(BaseModel):
    """One step; ``done`` of ``total`` tasks have succeeded."""

    name: Step
    state: Literal["running", "succeeded", "failed", "canceled"]
    started_at: datetime
    finished_at: datetime | None
    done: int
    total: int


class RowCounts(BaseModel):
    """Rows so far."""

    read: int
    loaded: int
    rejected: int


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    detail: str


class FileRows(BaseModel):
    """Rows of one file in an attempt."""

    read: int
    loaded: int
    rejected: int


class FileChange(BaseModel):
    """A file whose rows came out otherwise; None where an attempt did not meet it."""

    file: str
    before: FileRows | None
    after: FileRows | None


class RejectChanges(BaseModel):
    """Rejects that only one of two attempts has, by file, line, column and rule.

    ``is_complete`` is false where more rows were rejected than are kept one by one.
    """

    new: int
    gone: int
    is_complete: bool


class JobChanges(BaseModel):
    """How an attempt came out, held against the earlier one.

    ``files`` names the first thousand of ``files_changed``.
    """

    earlier_job: str
    contract_changed: bool | None
    rows_before: RowCounts
    files_changed: int
    files: list[FileChange]
    rejects: RejectChanges


class PlannedFile(BaseModel):
    """What was found of a file before its rows are read; ``table`` is None where it fits none."""

    file: str
    format: str
    encoding: str | None
    delimiter: str | None
    size_bytes: int
    table: str | None
    refusal: str | None
    chunks: int


class JobPlan(BaseModel):
    """How a delivery is taken apart; ``files`` names the first thousand of ``files_total``."""

    files_total: int
    chunks: int
    tasks: int
    files: list[PlannedFile]


class JobView(BaseModel):
    """One processing attempt of a sealed batch."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "job_01kaz3v4e8m3w5q9r7t2y6x0bc",
                    "batch": "bat_01kaz3tzs1c8d5f7g9h2j4k6mn",
                    "attempt": 1,
                    "cause": "seal",
                    "state": "running",
                    "waiting_reason": None,
                    "steps": [
                        {
                            "name": "process",
                            "state": "running",
                            "started_at": "2026-01-01T00:00:01Z",
                            "finished_at": None,
                            "done": 3,
                            "total": 12,
                        }
                    ],
                    "rows": {"read": 81012, "loaded": 0, "rejected": 3},
                    "created_at": "2026-01-01T00:00:00Z",
                    "finished_at": None,
                    "error": None,
                }
            ]
        }
    )

    id: str
    batch: str
    attempt: int
    cause: Cause
    state: JobState
    waiting_reason: str | None
    steps: list[StepView]
    rows: RowCounts
    created_at: datetime
    finished_at: datetime | None
    error: JobError | None
    starts_from: Layer = "landing"
    contract_sha256: str | None = None
    changes: JobChanges | None = None
    plan: JobPlan | None = None


class JobPage(BaseModel):
    """Jobs, newest first; ``next`` is the cursor of the following page."""

    items: list[JobView]
    next: str | None


class RejectView(BaseModel):
    """A row that failed validation: one line of ``/rejects``."""

    file: str
    line: int | None
    column: str | None
    rule: str
    value: str | None


class ReportedRows(BaseModel):
    """Rows one task has dealt with."""

    model_config = ConfigDict(extra="forbid", strict=True)

    read: Count
    loaded: Count
    rejected: Count


class ReportedFile(ReportedRows):
    """Rows of one file one task has dealt with."""

    file: Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class ReportedReject(BaseModel):
    """A row that failed validation, as the task names it; the task shortens what is too long."""

    model_config = ConfigDict(extra="forbid", strict=True)

    file: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    line: Count | None = None
    column: Annotated[str, StringConstraints(max_length=256)] | None = None
    rule: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    value: Annotated[str, StringConstraints(max_length=1000)] | None = None


class ReportedError(BaseModel):
    """Why a task failed, in words for the client."""

    model_config = ConfigDict(extra="forbid", strict=True)

    code: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
    detail: Annotated[str, StringConstraints(max_length=2000)]


class RunNews(BaseModel):
    """What Airflow says of a job's run the moment it changes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    dag_id: Annotated[str, StringConstraints(max_length=250)]
    run_id: Annotated[str, StringConstraints(max_length=250)]
    state: Literal["running", "success", "failed"]


class ReportedPlannedFile(BaseModel):
    """What the first step found of one file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    file: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    format: Word
    encoding: Word | None
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] | None
    size_bytes: Annotated[int, Field(ge=0, le=2**53 - 1)]
    table: Annotated[str, StringConstraints(max_length=63)] | None
    refusal: Word | None
    chunks: Annotated[int, Field(ge=1, le=10_000_000)]


class ReportedPlan(BaseModel):
    """How the first step took a delivery apart."""

    model_config = ConfigDict(extra="forbid", strict=True)

    files_total: Annotated[int, Field(ge=0, le=10_000_000)]
    chunks: Annotated[int, Field(ge=0, le=10_000_000)]
    tasks: Annotated[int, Field(ge=0, le=1_000_000)]
    files: Annotated[list[ReportedPlannedFile], Field(max_length=MAX_PLANNED)]


class ProgressReport(BaseModel):
    """What one try of one task says of its part of a step.

    Repeating it changes nothing; a later try replaces an earlier one.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    dag_id: Annotated[str, StringConstraints(max_length=250)]
    run_id: Annotated[str, StringConstraints(max_length=250)]
    batch_id: Annotated[str, StringConstraints(max_length=50)] | None = None
    attempt: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    task_id: Annotated[str, StringConstraints(min_length=1, max_length=250)]
    map_index: Annotated[int, Field(ge=-1, le=1_000_000)]
    try_number: Annotated[int, Field(ge=0, le=1_000_000)]
    step: Step
    state: Literal["running", "succeeded", "failed"]
    total: Annotated[int, Field(ge=0, le=1_000_000)]
    rows: ReportedRows
    files: Annotated[list[ReportedFile], Field(max_length=MAX_FILES)] = []
    rejects: Annotated[list[ReportedReject], Field(max_length=MAX_REJECTS)] = []
    plan: ReportedPlan | None = None
    error: ReportedError | None = None
