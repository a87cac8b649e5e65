"""What clients use of their limits, counted as it happens."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database import Base


class DayUsage(Base):
    """Bytes that a project reserved or had acknowledged on a day (UTC)."""

    __tablename__ = "day_usage"
    __table_args__ = (
        ForeignKeyConstraint(["client", "project"], ["project.client", "project.name"]),
        CheckConstraint("received_bytes >= 0", name="received_bytes"),
    )

    client: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True, index=True)
    received_bytes: Mapped[int] = mapped_column(BigInteger)


class RequestWindow(Base):
    """The second that a client's requests are counted in, for all processes together.

    Unlogged: a count that a crash of the database loses would have been over by then.

    Attributes
    ----------
    began_at
        When the first request of this second came.
    allowed
        How many the second may have.
    taken
        How many were handed out to processes.
    granted
        How many of these the last statement got.
    """

    __tablename__ = "request_window"
    # Rewritten all the time: room on the page lets Postgres do that in place.
    __table_args__ = ({"prefixes": ["UNLOGGED"], "postgresql_with": {"fillfactor": 50}},)

    client: Mapped[str] = mapped_column(primary_key=True)
    began_at: Mapped[datetime]
    allowed: Mapped[int]
    taken: Mapped[int]
    granted: Mapped[int]
