"""Uploads that outlive a request: what the tus doors keep between two of them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database import Base

ACTIVE = ("receiving", "verifying")


class Upload(Base):
    """One resumable upload.

    ``offset_bytes`` is durable: it moves after a sync, never before. ``fence`` counts who has taken
    the upload over: only the newest may move the offset. ``part`` names the bytes in the landing
    zone. ``is_comparison``: the batch has a file of this name, with which the bytes are compared.
    """

    __tablename__ = "upload"
    __table_args__ = (
        CheckConstraint("state IN ('receiving', 'verifying', 'complete', 'gone')", name="state"),
        CheckConstraint("offset_bytes BETWEEN 0 AND length_bytes", name="offset_within_length"),
        Index(
            "ix_upload_active",
            "batch_id",
            "name",
            postgresql_where=text("state IN ('receiving', 'verifying')"),
        ),
        Index("ix_upload_expires_at", "expires_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    client: Mapped[str]
    project: Mapped[str]
    batch_id: Mapped[str] = mapped_column(ForeignKey("batch.id"))
    name: Mapped[str]
    length_bytes: Mapped[int] = mapped_column(BigInteger)
    offset_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    sha256: Mapped[str | None]
    metadata_header: Mapped[str]
    part: Mapped[str]
    fence: Mapped[int] = mapped_column(default=0)
    state: Mapped[str] = mapped_column(default="receiving")
    is_comparison: Mapped[bool] = mapped_column(default=False)
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
