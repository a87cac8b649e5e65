"""Each client's feed: numbered without gaps or reuse, in order of commit."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Mapped, Session, mapped_column

from gateway.database import Base, new_id


class FeedHead(Base):
    """The last number given out; its row lock orders a client's commits."""

    __tablename__ = "feed_head"

    client: Mapped[str] = mapped_column(primary_key=True)
    last_number: Mapped[int] = mapped_column(BigInteger)


class Event(Base):
    """One thing that happened."""

    __tablename__ = "event"

    client: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    type: Mapped[str]
    subject: Mapped[str]
    data: Mapped[dict[str, Any]]
    at: Mapped[datetime] = mapped_column(server_default=func.now())


def publish(
    session: Session,
    *,
    client: str,
    type: str,  # noqa: A002 - the word of the feed's readers
    subject: str,
    data: dict[str, Any],
) -> None:
    """Append to a client's feed; readers see it, in its place, once ``session`` commits."""
    step = (
        upsert(FeedHead)
        .values(client=client, last_number=1)
        .on_conflict_do_update(
            index_elements=[FeedHead.client], set_={"last_number": FeedHead.last_number + 1}
        )
        .returning(FeedHead.last_number)
    )
    number = session.execute(step).scalar_one()
    session.execute(
        insert(Event).values(
            client=client,
            number=number,
            id=new_id("evt"),
            type=type,
            subject=subject,
            data=data,
        )
    )


def after(session: Session, client: str, number: int, limit: int) -> list[Event]:
    """Return a client's events with numbers above ``number``, oldest first."""
    query = (
        select(Event)
        .where(Event.client == client, Event.number > number)
        .order_by(Event.number)
        .limit(limit)
    )
    return list(session.scalars(query))
