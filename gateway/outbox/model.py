"""The table of messages waiting to be carried out."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database import Base


class Message(Base):
    """One thing to do. ``attempts`` doubles as the claim's fencing number."""

    __tablename__ = "outbox_message"
    __table_args__ = (
        UniqueConstraint("topic", "key"),
        CheckConstraint("state IN ('pending', 'done', 'quarantined')", name="state"),
        Index("ix_outbox_message_due", "available_at", postgresql_where=text("state = 'pending'")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    topic: Mapped[str]
    key: Mapped[str]
    lane: Mapped[str]
    payload: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(default="pending")
    attempts: Mapped[int] = mapped_column(default=0)
    available_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    settled_at: Mapped[datetime | None]
