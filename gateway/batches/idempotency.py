"""Answers given once and given again: the ``Idempotency-Key`` header.

A key belongs to one account of one client. What is kept is written in the transaction that did
the work: either both are there after a crash, or neither.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import rfc8785
from pydantic import BaseModel
from sqlalchemy import ColumnElement, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from gateway.batches.model import IdempotencyKey
from gateway.errors import Fault, GatewayError, InvalidRequestError

_KEY = re.compile(r"[!-~]{1,255}")


class KeyReusedError(GatewayError):
    """The key was used for another request."""

    slug = "idempotency-key-reused"
    status = 422
    title = "This Idempotency-Key belongs to another request"


class KeyInFlightError(GatewayError):
    """The first request with this key is still being answered."""

    slug = "idempotency-key-in-flight"
    status = 409
    title = "A request with this Idempotency-Key is still running"
    retryable = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered."""

    status: int
    location: str | None
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Key:
    """A caller's key, and for how long its answer is kept."""

    client: str
    subject: str
    text: str
    life_seconds: int


def once(session: Session, key: Key, request: BaseModel, answer: Callable[[], Answer]) -> Answer:
    """Answer a request, or give again what it was answered before.

    Raises
    ------
    InvalidRequestError
        The key is not 1 to 255 visible ASCII characters.
    KeyInFlightError
        Another transaction is answering the same key at this moment.
    KeyReusedError
        The key came with another request before.
    """
    if _KEY.fullmatch(key.text) is None:
        fault = Fault("Idempotency-Key", "must be 1 to 255 visible ASCII characters")
        raise InvalidRequestError(errors=[fault])
    _lock(session, key)
    wanted = hashlib.sha256(rfc8785.dumps(request.model_dump(mode="json"))).hexdigest()
    kept = session.scalars(_of(key)).one_or_none()
    if kept is None:
        given = answer()
        _keep(session, key, wanted, given)
        return given
    if kept.request_sha256 != wanted:
        raise KeyReusedError
    return Answer(kept.status, kept.location, kept.body)


def purge(session: Session, life_seconds: int) -> int:
    """Forget answers older than this; return how many."""
    statement = delete(IdempotencyKey).where(~_is_fresh(life_seconds))
    return len(session.execute(statement.returning(IdempotencyKey.key)).all())


def _lock(session: Session, key: Key) -> None:
    # Held until the transaction ends. Two keys with one hash at worst ask each other to wait.
    name = f"{key.client}\n{key.subject}\n{key.text}"
    taken = select(func.pg_try_advisory_xact_lock(func.hashtextextended(name, 0)))
    if not session.scalar(taken):
        raise KeyInFlightError(headers={"Retry-After": "1"})


def _of(key: Key) -> Any:
    return (
        select(IdempotencyKey)
        .filter_by(client=key.client, subject=key.subject, key=key.text)
        .where(_is_fresh(key.life_seconds))
    )


def _is_fresh(life_seconds: int) -> ColumnElement[bool]:
    age = text(f"interval '{int(life_seconds)} seconds'")
    return IdempotencyKey.created_at > func.clock_timestamp() - age


def _keep(session: Session, key: Key, wanted: str, given: Answer) -> None:
    values = {
        "request_sha256": wanted,
        "status": given.status,
        "location": given.location,
        "body": given.body,
        "created_at": func.clock_timestamp(),
    }
    names = {"client": key.client, "subject": key.subject, "key": key.text}
    statement = insert(IdempotencyKey).values(**names, **values)
    # One that has expired gives way.
    session.execute(
        statement.on_conflict_do_update(index_elements=["client", "subject", "key"], set_=values)
    )
