"""The table of leases. It says what has to be revoked and how; never the secret itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database import Base

UNSETTLED = "state IN ('intended', 'issued', 'revoking')"


class Lease(Base):
    """One credential for one data system, for one try of one task.

    Attributes
    ----------
    handle
        What revoking needs, known before anything was made.
    reason
        Why it had to end.
    attempts
        How often revoking was tried.
    due_at
        When the reaper looks at it again; for as long nobody else does.
    """

    __tablename__ = "lease"
    __table_args__ = (
        CheckConstraint(
            "state IN ('intended', 'issued', 'revoking', 'revoked', 'irrevocable')", name="state"
        ),
        CheckConstraint("attempts >= 0", name="attempts"),
        Index("ix_lease_unrevoked", "state", "due_at", postgresql_where=text("state <> 'revoked'")),
        Index("ix_lease_job", "job"),
        Index("ix_lease_unsettled", "client", postgresql_where=text(UNSETTLED)),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    client: Mapped[str]
    project: Mapped[str]
    job: Mapped[str] = mapped_column(ForeignKey("job.id"))
    dag_id: Mapped[str]
    run_id: Mapped[str]
    task_id: Mapped[str]
    map_index: Mapped[int]
    try_number: Mapped[int]
    resource: Mapped[str]
    driver: Mapped[str]
    handle: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(default="intended")
    reason: Mapped[str | None]
    expires_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str | None]
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    issued_at: Mapped[datetime | None]
    renewed_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
