"""Passes: tokens that open the files of one batch to one task, until they are taken back.

A pass is no signed token: it is known here by its digest, so that its life can be prolonged while
the task runs, and ends at the very next request. No other door knows what it is.
"""

from __future__ import annotations

import hashlib
import secrets

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from gateway.clients.registry import Client
from gateway.identity.model import BatchPass

# Recognized by scanners that look for secrets in the wrong places.
PREFIX = "gwp_"


def grant(session: Session, id: str, *, client: str, batch_id: str, seconds: float) -> str:  # noqa: A002
    """Make a pass and return the token, which is known to nobody afterwards."""
    token = PREFIX + secrets.token_urlsafe(32)
    session.add(
        BatchPass(
            id=id,
            digest=_digest(token),
            client=client,
            batch_id=batch_id,
            expires_at=_in(seconds),
        )
    )
    session.flush()
    return token


def prolong(session: Session, id: str, seconds: float) -> bool:  # noqa: A002
    """Let a pass live so much longer from now on. False: there is none any more."""
    statement = update(BatchPass).where(BatchPass.id == id).values(expires_at=_in(seconds))
    return session.execute(statement.returning(BatchPass.id)).first() is not None


def withdraw(session: Session, id: str) -> None:  # noqa: A002
    """Take a pass back; an absent one is no error."""
    session.execute(delete(BatchPass).where(BatchPass.id == id))


def find(session: Session, token: str) -> BatchPass | None:
    """Return a pass that is good at this moment, of a client that has not left."""
    query = (
        select(BatchPass)
        .join(Client, Client.name == BatchPass.client)
        .where(BatchPass.digest == _digest(token), Client.state != "gone")
        .where(BatchPass.expires_at > func.clock_timestamp())
    )
    return session.scalars(query).one_or_none()


def _in(seconds: float) -> object:
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
