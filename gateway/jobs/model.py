"""Tables of jobs. ``batch_id`` is no foreign key: batches know jobs, jobs do not know batches."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database import Base


class Job(Base):
    """One processing attempt of one sealed batch; one DAG run.

    ``contract_sha256`` and ``on_reject`` are pinned when it is queued; ``staged_job`` is the
    attempt whose staged rows it starts from.
    """

    __tablename__ = "job"
    __table_args__ = (
        UniqueConstraint("batch_id", "attempt"),
        CheckConstraint(
            "state IN ('queued', 'blocked', 'dispatched', 'running', 'succeeded',"
            " 'partially_succeeded', 'failed', 'canceled')",
            name="state",
        ),
        CheckConstraint("starts_from IN ('landing', 'staged')", name="starts_from"),
        CheckConstraint("cause IN ('seal', 'replay', 'history')", name="cause"),
        Index("ix_job_client_id", "client", "id"),
        Index(
            "ix_job_active",
            "state",
            postgresql_where=text("state IN ('queued', 'blocked', 'dispatched', 'running')"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    client: Mapped[str]
    project: Mapped[str]
    batch_id: Mapped[str]
    attempt: Mapped[int]
    cause: Mapped[str]
    contract_sha256: Mapped[str | None] = mapped_column(ForeignKey("contract_version.sha256"))
    on_reject: Mapped[dict[str, Any] | None]
    starts_from: Mapped[str] = mapped_column(server_default="landing")
    staged_job: Mapped[str | None]
    reason: Mapped[str | None]
    state: Mapped[str] = mapped_column(default="queued")
    waiting_reason: Mapped[str | None]
    error_code: Mapped[str | None]
    error_detail: Mapped[str | None]
    cancel_requested_at: Mapped[datetime | None]
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    dispatched_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class StepPart(Base):
    """What one task instance said of its step; a task tried again says it anew."""

    __tablename__ = "job_step_part"
    __table_args__ = (CheckConstraint("state IN ('running', 'succeeded', 'failed')", name="state"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    step: Mapped[str] = mapped_column(primary_key=True)
    map_index: Mapped[int] = mapped_column(primary_key=True)
    try_number: Mapped[int]
    state: Mapped[str]
    total: Mapped[int]
    rows_read: Mapped[int] = mapped_column(BigInteger)
    rows_loaded: Mapped[int] = mapped_column(BigInteger)
    rows_rejected: Mapped[int] = mapped_column(BigInteger)
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]


class Plan(Base):
    """How a job's first step took the delivery apart, as it said (``views.JobPlan``)."""

    __tablename__ = "job_plan"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    document: Mapped[dict[str, Any]]


class FilePart(Base):
    """What one part of a step said of the rows of one file."""

    __tablename__ = "job_file"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    step: Mapped[str] = mapped_column(primary_key=True)
    map_index: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[str] = mapped_column(primary_key=True)
    rows_read: Mapped[int] = mapped_column(BigInteger)
    rows_loaded: Mapped[int] = mapped_column(BigInteger)
    rows_rejected: Mapped[int] = mapped_column(BigInteger)


class Reject(Base):
    """A row that failed validation: where it stands and why it was refused."""

    __tablename__ = "reject"
    __table_args__ = (Index("ix_reject_job_id_step_map_index", "job_id", "step", "map_index"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"))
    step: Mapped[str]
    map_index: Mapped[int]
    file: Mapped[str]
    line: Mapped[int | None] = mapped_column(BigInteger)
    column: Mapped[str | None]
    rule: Mapped[str]
    value: Mapped[str | None]
