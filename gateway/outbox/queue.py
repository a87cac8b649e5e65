"""Put, claim, settle, defer: each message is carried out at least once, by one worker at a time.

Time is the database's. A claim is a message whose ``available_at`` was moved ahead; it lapses by
itself when its worker dies. ``attempts`` is the fencing number: a worker that was too slow finds
that its claim is no longer the newest and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Update, case, func, literal, select, text, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from gateway import database
from gateway.outbox.model import Message

CHANNEL = "gateway_outbox"
_NOTIFY = "SELECT pg_notify(%(channel)s, %(topic)s)"


@dataclass(frozen=True, slots=True)
class Claim:
    """A message this worker may carry out until the claim lapses."""

    id: int
    topic: str
    key: str
    lane: str
    payload: dict[str, Any]
    attempts: int


def put(session: Session, *, topic: str, key: str, lane: str, payload: dict[str, Any]) -> None:
    """Add a message; workers are woken when ``session`` commits. The same key twice is one."""
    values = {"topic": topic, "key": key, "lane": lane, "payload": payload}
    session.execute(insert(Message).values(values).on_conflict_do_nothing())
    database.later(session, _NOTIFY, {"channel": CHANNEL, "topic": topic})


def claim(
    session: Session,
    *,
    topics: Sequence[str],
    limit: int,
    claim_seconds: int,
    busy: Mapping[str, int] | None = None,
    lane_width: int | None = None,
) -> list[Claim]:
    """Take up to ``limit`` due messages: the oldest of each lane first, then the second oldest.

    Parameters
    ----------
    busy
        How many messages of a lane this worker is carrying: they had their turns.
    lane_width
        How many of one lane it may carry at a time; None for any number.

    Notes
    -----
    Lanes take turns, so that one client's thousand messages do not stand before another's one; and
    none takes every hand there is, so that a newcomer does not wait for one to be free.
    """
    carried = case(busy, value=Message.lane, else_=0) if busy else literal(0)
    due = (
        select(
            Message.id,
            (
                func.row_number().over(partition_by=Message.lane, order_by=Message.id) + carried
            ).label("turn"),
        )
        .where(
            Message.state == "pending",
            Message.topic.in_(topics),
            Message.available_at <= func.clock_timestamp(),
        )
        .subquery()
    )
    query = (
        select(Message.id)
        .join(due, due.c.id == Message.id)
        # Checked again on the locked row: another worker may have claimed it in between.
        .where(Message.state == "pending", Message.available_at <= func.clock_timestamp())
        .where(true() if lane_width is None else due.c.turn <= lane_width)
        .order_by(due.c.turn, Message.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=Message)
    )
    ids = list(session.scalars(query))
    taken = (
        update(Message)
        .where(Message.id.in_(ids))
        .values(attempts=Message.attempts + 1, available_at=_in_seconds(claim_seconds))
        .returning(
            Message.id,
            Message.topic,
            Message.key,
            Message.lane,
            Message.payload,
            Message.attempts,
        )
    )
    claims = {row.id: Claim(*row) for row in session.execute(taken)} if ids else {}
    return [claims[each] for each in ids if each in claims]


def settle(session: Session, claim: Claim) -> bool:
    """Mark as carried out. False: the claim lapsed, somebody else has the message."""
    return _still_ours(session, claim, {"state": "done", "settled_at": func.clock_timestamp()})


def defer(session: Session, claim: Claim, *, delay_seconds: float, error: str) -> bool:
    """Try again later. False: the claim lapsed."""
    return _still_ours(
        session, claim, {"available_at": _in_seconds(delay_seconds), "last_error": error}
    )


def quarantine(session: Session, claim: Claim, *, error: str) -> bool:
    """Set aside for a person to look at. False: the claim lapsed."""
    return _still_ours(session, claim, {"state": "quarantined", "last_error": error})


def release(session: Session, *, topic: str, key: str) -> bool:
    """Make a waiting or quarantined message due now, for an operator who mended its cause."""
    statement = update(Message).where(
        Message.topic == topic, Message.key == key, Message.state != "done"
    )
    released = _changed(
        session, statement.values(state="pending", available_at=func.clock_timestamp())
    )
    session.execute(select(func.pg_notify(CHANNEL, topic)))
    return released


def _still_ours(session: Session, claim: Claim, values: dict[str, Any]) -> bool:
    statement = update(Message).where(
        Message.id == claim.id, Message.state == "pending", Message.attempts == claim.attempts
    )
    return _changed(session, statement.values(values))


def _changed(session: Session, statement: Update) -> bool:
    return session.execute(statement.returning(Message.id)).first() is not None


def _in_seconds(seconds: float) -> Any:
    return func.clock_timestamp() + text(f"interval '{float(seconds)} seconds'")
