"""The chained trail: each record holds the digest of the one before it.

``record`` only notes what happened; the links are made when the transaction commits, so that
the head of the chain is locked for the shortest time, and always last: no change commits
without its record, and two transactions never wait for each other in a circle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import rfc8785
import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway import database
from gateway.audit.model import AuditEvent, AuditHead
from gateway.notes import Notes

GENESIS = "0" * 64


def record(
    session: Session,
    *,
    actor: str,
    action: str,
    subject: str,
    client: str | None,
    details: dict[str, Any] | None = None,
    request_id: str | None = None,
) -> None:
    """Note who did what to what; it becomes a link of the chain when ``session`` commits.

    Parameters
    ----------
    actor
        The account's login name, or ``gateway`` for what the gateway does by itself.
    action
        One of ``gateway.audit.actions``.
    subject
        The id of the object acted on.
    client
        The client concerned; None for the platform's own affairs.
    details
        JSON of the I-JSON subset (integers below 2**53), without secrets.
    request_id
        The request that asked for it, where it is not the one that this context works for.
    """
    if request_id is None:
        request_id = structlog.contextvars.get_contextvars().get("request_id")
    _NOTES.add(
        session,
        {
            "actor": actor,
            "action": action,
            "subject": subject,
            "client": client,
            "details": details or {},
            "request_id": request_id,
        },
    )


def _link(session: Session, noted: list[dict[str, Any]]) -> None:
    connection = session.connection()
    number, last, at = connection.exec_driver_sql(_LOCK_HEAD).one()
    rows = []
    for entry in noted:
        number += 1
        row = {**entry, "number": number, "id": database.new_id("evt"), "at": at}
        row["previous_hash"] = last
        last = row["hash"] = digest(row)
        rows.append(row)
    links = json.dumps(rows, default=_time, ensure_ascii=False)
    connection.exec_driver_sql(_APPEND, {"links": links, "number": number, "last": last})


# After everything else, so that the head of the chain is locked for the shortest time.
_NOTES = Notes(9, _link)
# The time is taken once the head is locked, so that times go up as numbers do.
_LOCK_HEAD = database.prepared("""
SELECT number, hash, clock_timestamp()
FROM (SELECT number, hash FROM audit_head FOR UPDATE) AS head
""")
# However many links there are, they are one document and one round trip.
_APPEND = database.prepared(
    """
INSERT INTO audit_event (number, id, at, actor, action, client, subject, details, request_id,
    previous_hash, hash)
SELECT number, id, at, actor, action, client, subject, details, request_id, previous_hash, hash
FROM json_populate_recordset(NULL::audit_event, %(links)s)
""",
    "UPDATE audit_head SET number = %(number)s, hash = %(last)s",
    links="json",
    number="bigint",
    last="text",
)


def digest(row: dict[str, Any]) -> str:
    """Return the hex SHA-256 over the RFC 8785 form of a record and its predecessor's hash."""
    names = [
        "number",
        "id",
        "actor",
        "action",
        "client",
        "subject",
        "details",
        "request_id",
        "previous_hash",
    ]
    content = {name: row[name] for name in names}
    content["at"] = _time(row["at"])
    return hashlib.sha256(_canonical(content)).hexdigest()


def _canonical(content: dict[str, Any]) -> bytes:
    """Return the RFC 8785 form.

    Of text and small integers Python's own encoder, five times as fast, makes the same bytes.
    """
    rest = [item for item in content.items() if item[0] != "details"]
    if all(map(_is_plain, [*rest, *content["details"].items()])):
        return _encoded(content).encode()
    return rfc8785.dumps(content)


def _is_plain(member: tuple[str, Any]) -> bool:
    name, value = member
    is_small = type(value) is int and abs(value) < _BIG
    return (type(value) is str or value is None or is_small) and name.isascii()


_BIG = 2**53
_encoded = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verification found.

    ``broken_at`` is the number of the first record that does not hold, None when all do.
    """

    records: int
    head: str
    broken_at: int | None
    reason: str | None = None


def verify(session: Session) -> Verdict:
    """Recompute the whole chain, from its first record to the head.

    Call it in a transaction of isolation level REPEATABLE READ, so that the head read first and
    the records read after it are of one moment.
    """
    head = session.execute(select(AuditHead.number, AuditHead.hash)).one()
    last, number = GENESIS, 0
    for row in _rows(session):
        number += 1
        if row["number"] != number:
            return Verdict(number - 1, last, number, "a record is missing")
        if row["previous_hash"] != last or digest(row) != row["hash"]:
            return Verdict(number - 1, last, number, "a record was changed")
        last = row["hash"]
    if (head.number, head.hash) != (number, last):
        return Verdict(number, last, number + 1, "the chain was cut short")
    return Verdict(number, last, None)


def lines(session: Session) -> Iterator[str]:
    """Yield every record, oldest first, as one line of RFC 8785 JSON."""
    for row in _rows(session):
        yield rfc8785.dumps({**row, "at": _time(row["at"])}).decode()


def head(session: Session) -> dict[str, Any]:
    """Return the chain's last number and hash: what to sign and keep elsewhere."""
    row = session.execute(select(AuditHead.number, AuditHead.hash)).one()
    return {"number": row.number, "hash": row.hash}


def _rows(session: Session) -> Iterator[dict[str, Any]]:
    query = select(AuditEvent.__table__).order_by(AuditEvent.number)
    for row in session.execute(query, execution_options={"yield_per": 1000}).mappings():
        yield dict(row)


def search(
    session: Session,
    *,
    actor: str | None = None,
    action: str | None = None,
    client: str | None = None,
    subject: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[AuditEvent]:
    """Return matching records, newest first, with numbers below ``before``."""
    query = select(AuditEvent).order_by(AuditEvent.number.desc()).limit(limit)
    exact = {"actor": actor, "action": action, "client": client, "subject": subject}
    for name, value in exact.items():
        if value is not None:
            query = query.where(getattr(AuditEvent, name) == value)
    if since is not None:
        query = query.where(AuditEvent.at >= since)
    if until is not None:
        query = query.where(AuditEvent.at < until)
    if before is not None:
        query = query.where(AuditEvent.number < before)
    return list(session.scalars(query))
