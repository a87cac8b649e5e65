"""Sign-ins that outlive an access token: families of refresh tokens, and what was revoked."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from gateway import database
from gateway.audit import actions, trail
from gateway.clients.registry import Client
from gateway.identity.model import (
    AuthorizationCode,
    RefreshToken,
    RevokedToken,
    SignIn,
    TokenFamily,
)

# Recognized by scanners that look for secrets in the wrong places.
PREFIX = "gwr_"


@dataclass(frozen=True, slots=True)
class Standing:
    """What the database says about a token at this moment."""

    revoked: bool
    client_state: str | None


def standing(session: Session, *, jti: str, family: str | None, client: str | None) -> Standing:
    """Ask in one query whether a token was revoked, and for its client's state."""
    values = {"jti": jti, "family": family, "client": client}
    row = session.connection().exec_driver_sql(_STANDING, values).one()
    return Standing(row[0], row[1])


# Asked for every request, so planned once for each connection.
_STANDING = database.prepared(
    """
SELECT
    EXISTS (SELECT FROM revoked_token WHERE jti = %(jti)s)
    OR EXISTS (SELECT FROM token_family WHERE id = %(family)s AND revoked_at IS NOT NULL),
    (SELECT state FROM client WHERE name = %(client)s)
""",
    jti="text",
    family="text",
    client="text",
)


def asked(tokens: Mapping[str, str | None]) -> dict[str, list[str]]:
    """Return the values of ``REVOKED`` for tokens: ``jti`` to family."""
    families = [family for family in tokens.values() if family is not None]
    return {"jtis": list(tokens), "families": families}


# Which of the tokens and families asked about are no longer good: part of a larger statement.
REVOKED = """
SELECT jti FROM revoked_token WHERE jti = ANY(%(jtis)s)
UNION ALL
SELECT id FROM token_family WHERE id = ANY(%(families)s) AND revoked_at IS NOT NULL
"""


def client_states(session: Session, names: Iterable[str]) -> dict[str, str]:
    """Return which of the named clients exist, each with its state; who has left does not."""
    query = select(Client.name, Client.state).where(
        Client.name.in_(sorted(names)), Client.state != "gone"
    )
    return {row.name: row.state for row in session.execute(query.order_by(Client.name))}


@dataclass(frozen=True, slots=True)
class Descent:
    """What all tokens of a family have in common."""

    subject: str
    kind: str
    client: str | None
    audience: str
    scope: str


def begin(session: Session, descent: Descent, life_seconds: int) -> tuple[str, str]:
    """Begin a family; return its id and its first refresh token."""
    family = _begun(session, descent, database.now(session) + timedelta(seconds=life_seconds))
    return family.id, _add_token(session, family.id)


def begin_from(session: Session, sign_in: SignIn, descent: Descent, life_seconds: int) -> str:
    """Begin a family that ends with a browser's sign-in at the latest; return its id.

    It has no refresh token: as long as the sign-in lasts, the browser can fetch another code.
    """
    ends_at = database.now(session) + timedelta(seconds=life_seconds)
    family = _begun(session, descent, min(ends_at, sign_in.expires_at))
    family.sign_in = sign_in.id
    return family.id


def living(session: Session, family_id: str) -> TokenFamily | None:
    """Return a family that was neither revoked nor has expired."""
    family = session.get(TokenFamily, family_id)
    if family is None or family.revoked_at is not None:
        return None
    return family if family.expires_at > database.now(session) else None


def _begun(session: Session, descent: Descent, expires_at: datetime) -> TokenFamily:
    family = TokenFamily(
        id=database.new_id("fam"),
        subject=descent.subject,
        kind=descent.kind,
        client=descent.client,
        audience=descent.audience,
        scope=descent.scope,
        expires_at=expires_at,
    )
    session.add(family)
    session.flush()
    return family


def family_of(session: Session, refresh_token: str) -> TokenFamily | None:
    """Return the living family of a refresh token; None when it opens nothing.

    A token that was used before has been stolen, or its answer was lost: nobody can say which,
    so the whole family is revoked (RFC 9700 §4.14.2).
    """
    query = (
        select(TokenFamily, RefreshToken.used_at)
        .join(RefreshToken, RefreshToken.family == TokenFamily.id)
        .where(RefreshToken.digest == _digest(refresh_token))
    )
    found = session.execute(query).one_or_none()
    if found is None:
        return None
    family, used_at = found
    if used_at is not None:
        _reused(session, family)
        return None
    alive = family.revoked_at is None and family.expires_at > database.now(session)
    return family if alive else None


def rotate(session: Session, family_id: str, refresh_token: str) -> str | None:
    """Use up a refresh token and return the next; None when another request was faster."""
    family = session.get(TokenFamily, family_id, with_for_update=True, populate_existing=True)
    if family is None or family.revoked_at is not None:
        return None
    used = session.execute(
        update(RefreshToken)
        .where(RefreshToken.digest == _digest(refresh_token), RefreshToken.used_at.is_(None))
        .values(used_at=func.clock_timestamp())
        .returning(RefreshToken.digest)
    )
    if used.scalar_one_or_none() is None:
        _reused(session, family)
        return None
    return _add_token(session, family_id)


def revoke_refresh(session: Session, refresh_token: str) -> bool:
    """Revoke the family of a refresh token; say whether there was one to revoke."""
    family = session.scalar(
        select(TokenFamily)
        .join(RefreshToken, RefreshToken.family == TokenFamily.id)
        .where(RefreshToken.digest == _digest(refresh_token), TokenFamily.revoked_at.is_(None))
        .with_for_update(of=TokenFamily)
    )
    if family is not None:
        end(session, family, actions.TOKEN_REVOKED)
    return family is not None


def revoke(session: Session, family_id: str) -> None:
    """Revoke a family; a second time changes nothing."""
    family = session.get(TokenFamily, family_id, with_for_update=True, populate_existing=True)
    if family is not None and family.revoked_at is None:
        end(session, family, actions.TOKEN_REVOKED)


def revoke_access(
    session: Session, *, jti: str, expires_at: int, subject: str, client: str | None
) -> None:
    """Revoke one access token until it would have expired; a second time changes nothing."""
    values = {"jti": jti, "expires_at": datetime.fromtimestamp(expires_at, UTC)}
    statement = insert(RevokedToken).values(values).on_conflict_do_nothing()
    if session.execute(statement.returning(RevokedToken.jti)).scalar_one_or_none():
        trail.record(
            session, actor=subject, action=actions.TOKEN_REVOKED, subject=jti, client=client
        )


def sweep(session: Session) -> int:
    """Forget what has expired; return how many rows went.

    A family is kept for a day beyond its end, so that late reuse is still recognized; a code as
    long, and a sign-in until all that came of it is gone.
    """
    now = database.now(session)
    over = select(TokenFamily.id).where(TokenFamily.expires_at < now - timedelta(days=1))
    is_over = AuthorizationCode.expires_at < now - timedelta(days=1)
    statements = (
        delete(AuthorizationCode).where(or_(is_over, AuthorizationCode.family.in_(over))),
        delete(RevokedToken).where(RevokedToken.expires_at < now - timedelta(minutes=1)),
        delete(RefreshToken).where(RefreshToken.family.in_(over)),
        delete(TokenFamily).where(TokenFamily.id.in_(over)),
        delete(SignIn).where(SignIn.expires_at < now - timedelta(days=2)),
    )
    return sum(int(getattr(session.execute(each), "rowcount", 0)) for each in statements)


def _add_token(session: Session, family: str) -> str:
    token = PREFIX + secrets.token_urlsafe(32)
    session.add(RefreshToken(digest=_digest(token), family=family))
    return token


def _reused(session: Session, family: TokenFamily) -> None:
    if family.revoked_at is None:
        end(session, family, actions.TOKEN_REUSED)


def end(session: Session, family: TokenFamily, action: str) -> None:
    """End a locked family, and keep why."""
    family.revoked_at = database.now(session)
    trail.record(
        session, actor=family.subject, action=action, subject=family.id, client=family.client
    )


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
