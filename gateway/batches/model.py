"""Tables of deliveries. Every query on them takes the caller's client."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database import Base


class Batch(Base):
    """One delivery. ``reserved_bytes`` and ``file_count`` are its part of the quota."""

    __tablename__ = "batch"
    __table_args__ = (
        ForeignKeyConstraint(["client", "project"], ["project.client", "project.name"]),
        CheckConstraint(
            "state IN ('open', 'sealed', 'canceled', 'expired', 'purged')", name="state"
        ),
        CheckConstraint("mode IN ('load', 'validate')", name="mode"),
        Index(
            "uq_batch_live_reference",
            "client",
            "project",
            "reference",
            unique=True,
            postgresql_where=text("state IN ('open', 'sealed')"),
        ),
        Index("ix_batch_client_id", "client", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    client: Mapped[str]
    project: Mapped[str]
    reference: Mapped[str]
    mode: Mapped[str] = mapped_column(default="load")
    period_start: Mapped[str | None]
    period_end: Mapped[str | None]
    details: Mapped[dict[str, Any]] = mapped_column("metadata")
    supersedes: Mapped[str | None]
    state: Mapped[str] = mapped_column(default="open")
    reserved_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    file_count: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column(default=1)
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    sealed_at: Mapped[datetime | None]


class File(Base):
    """One file of a batch. ``upload`` names the attempt that owns a pending row (fencing).

    ``received_bytes`` and ``verified_bytes`` tell how far a resumable upload has come. Until
    ``held_until`` somebody moves what lies under the name: nobody else may take it or give it up.
    """

    __tablename__ = "file"
    __table_args__ = (
        UniqueConstraint("batch_id", "collision_key"),
        Index("ix_file_pending", "batch_id", postgresql_where=text("state = 'pending'")),
        CheckConstraint("state IN ('pending', 'complete', 'error')", name="state"),
        CheckConstraint(
            "state <> 'complete' OR (size_bytes IS NOT NULL AND sha256 IS NOT NULL)",
            name="complete_is_known",
        ),
    )

    batch_id: Mapped[str] = mapped_column(ForeignKey("batch.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    collision_key: Mapped[str]
    state: Mapped[str] = mapped_column(default="pending")
    upload: Mapped[str]
    reserved_bytes: Mapped[int] = mapped_column(BigInteger)
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str | None]
    received_bytes: Mapped[int | None] = mapped_column(BigInteger)
    verified_bytes: Mapped[int | None] = mapped_column(BigInteger)
    media_type: Mapped[str | None]
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    completed_at: Mapped[datetime | None]
    held_until: Mapped[datetime | None]


class Manifest(Base):
    """A sealed batch's immutable list of files: the exact bytes, and the same signed."""

    __tablename__ = "manifest"

    batch_id: Mapped[str] = mapped_column(ForeignKey("batch.id"), primary_key=True)
    document: Mapped[bytes] = mapped_column(LargeBinary)
    sha256: Mapped[str]
    receipt: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class BatchLayer(Base):
    """What retention took of a batch: decided at ``purged_at``, gone at ``cleared_at``."""

    __tablename__ = "batch_layer"
    __table_args__ = (CheckConstraint("layer IN ('landing', 'staged', 'curated')", name="layer"),)

    batch_id: Mapped[str] = mapped_column(ForeignKey("batch.id"), primary_key=True)
    layer: Mapped[str] = mapped_column(primary_key=True)
    purged_at: Mapped[datetime] = mapped_column(server_default=func.now())
    cleared_at: Mapped[datetime | None]


class LegalHold(Base):
    """What must be kept, whatever retention says: a client's all, a project's, or one batch."""

    __tablename__ = "legal_hold"

    id: Mapped[str] = mapped_column(primary_key=True)
    client: Mapped[str] = mapped_column(ForeignKey("client.name"), index=True)
    project: Mapped[str | None]
    batch_id: Mapped[str | None]
    reason: Mapped[str]
    set_by: Mapped[str]
    set_at: Mapped[datetime] = mapped_column(server_default=func.now())
    lifted_by: Mapped[str | None]
    lifted_at: Mapped[datetime | None]


class IdempotencyKey(Base):
    """An answer given once, kept to be given again."""

    __tablename__ = "idempotency_key"

    client: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[str]
    status: Mapped[int]
    location: Mapped[str | None]
    body: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
