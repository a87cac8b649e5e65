"""The audit trail's tables; triggers of the migration refuse every change but an append."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database import Base


class AuditHead(Base):
    """The last link of the chain; a single row whose lock orders the links."""

    __tablename__ = "audit_head"
    __table_args__ = (CheckConstraint("only_row", name="only_row"),)

    only_row: Mapped[bool] = mapped_column(primary_key=True, default=True)
    number: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str]


class AuditEvent(Base):
    """One link: what happened, and the hash that ties it to all before it."""

    __tablename__ = "audit_event"
    __table_args__ = (
        Index("ix_audit_event_client_number", "client", "number"),
        Index("ix_audit_event_subject_number", "subject", "number"),
        Index("ix_audit_event_actor_number", "actor", "number"),
    )

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(unique=True)
    at: Mapped[datetime]
    actor: Mapped[str]
    action: Mapped[str]
    client: Mapped[str | None]
    subject: Mapped[str]
    details: Mapped[dict[str, Any]]
    request_id: Mapped[str | None]
    previous_hash: Mapped[str]
    hash: Mapped[str]
