"""Each client's feed: numbered without gaps or reuse, in order of commit.

What is published is written when its transaction commits (``gateway.notes``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from gateway.database import Base, later, new_id, prepared
from gateway.notes import Notes


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
    publish_all(session, client=client, events=[{"type": type, "subject": subject, "data": data}])


def publish_all(session: Session, *, client: str, events: Iterable[dict[str, Any]]) -> None:
    """Append many events in this order, each with ``type``, ``subject`` and ``data``."""
    for each in events:
        _NOTES.add(session, (client, {"id": new_id("evt"), **each}))


def _append(session: Session, noted: list[tuple[str, dict[str, Any]]]) -> None:
    of_client: dict[str, list[dict[str, Any]]] = {}
    for client, row in noted:
        of_client.setdefault(client, []).append(row)
    # In one order everywhere: each locks the head of a feed.
    for client, rows in sorted(of_client.items()):
        events = json.dumps(rows, ensure_ascii=False)
        later(session, _APPEND, {"client": client, "count": len(rows), "events": events})


_NOTES = Notes(1, _append)


# The head's lock is taken and the events are written in one round trip, however many there are.
_APPEND = prepared(
    """
WITH head AS (
    INSERT INTO feed_head (client, last_number) VALUES (%(client)s, %(count)s)
    ON CONFLICT (client)
    DO UPDATE SET last_number = feed_head.last_number + excluded.last_number
    RETURNING last_number - %(count)s AS before
)
INSERT INTO event (client, number, id, type, subject, data)
SELECT %(client)s, before + place, value->>'id', value->>'type', value->>'subject', value->'data'
FROM head, jsonb_array_elements(%(events)s) WITH ORDINALITY AS each (value, place)
""",
    client="text",
    count="bigint",
    events="jsonb",
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
