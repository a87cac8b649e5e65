"""Put, claim, settle, defer: each message is carried out at least once, by one worker at a time.

Time is the database's. A claim is a message whose ``available_at`` was moved ahead; it lapses by
itself when its worker dies. ``attempts`` is the fencing number: a worker that was too slow finds
that its claim is no longer the newest and changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Update, func, select, text, update
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
    given = {
        "topics": list(topics),
        "busy": json.dumps(dict(busy or {})),
        "width": lane_width,
        "most": limit,
        "seconds": float(claim_seconds),
    }
    taken = session.connection().exec_driver_sql(_CLAIM, given).all()
    return [
        Claim(id_, topic, key, lane, json.loads(payload), attempts)
        for _, id_, topic, key, lane, payload, attempts in sorted(taken)
    ]


# One statement, planned once: a worker claims again each time that it has a hand free.
_CLAIM = database.prepared(
    """
WITH due AS (
    SELECT id, row_number() OVER (PARTITION BY lane ORDER BY id)
        + coalesce((%(busy)s ->> lane)::integer, 0) AS turn
    FROM outbox_message
    WHERE state = 'pending' AND topic = ANY(%(topics)s) AND available_at <= clock_timestamp()
), chosen AS (
    SELECT message.id, due.turn
    FROM outbox_message AS message JOIN due ON due.id = message.id
    -- Checked again on the locked row: another worker may have claimed it in between.
    WHERE message.state = 'pending' AND message.available_at <= clock_timestamp()
        AND (%(width)s IS NULL OR due.turn <= %(width)s)
    ORDER BY due.turn, message.id
    LIMIT %(most)s
    FOR UPDATE OF message SKIP LOCKED
)
UPDATE outbox_message AS message SET attempts = attempts + 1,
    available_at = clock_timestamp() + make_interval(secs => %(seconds)s)
FROM chosen WHERE message.id = chosen.id
RETURNING chosen.turn, message.id, topic, key, lane, payload::text, attempts
""",
    topics="text[]",
    busy="jsonb",
    width="integer",
    most="integer",
    seconds="double precision",
)


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
