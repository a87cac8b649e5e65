"""Browsers that have signed in at the gateway's page, and how that ends."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from gateway import database
from gateway.audit import actions, trail
from gateway.identity.model import SignIn, TokenFamily

# Recognized by scanners that look for secrets in the wrong places.
PREFIX = "gws_"
CHARACTERS = 64


def begin(session: Session, subject: str, life_seconds: int) -> str:
    """Keep that a person signed in; return what the browser's cookie holds, new each time."""
    cookie = PREFIX + secrets.token_urlsafe(32)
    expires_at = database.now(session) + timedelta(seconds=life_seconds)
    identity = database.new_id("sgn")
    session.add(SignIn(id=identity, digest=_digest(cookie), subject=subject, expires_at=expires_at))
    session.flush()
    return cookie


def find(session: Session, cookie: str) -> SignIn | None:
    """Return the living sign-in of a cookie."""
    if not cookie.startswith(PREFIX) or len(cookie) > CHARACTERS:
        return None
    found = session.scalar(select(SignIn).where(SignIn.digest == _digest(cookie)))
    return found if found is not None and is_alive(session, found) else None


def is_alive(session: Session, sign_in: SignIn) -> bool:
    """Say whether a sign-in still holds."""
    return sign_in.ended_at is None and sign_in.expires_at > database.now(session)


def end(session: Session, identity: str) -> bool:
    """End a sign-in with every token that came of it; say whether there was one to end."""
    sign_in = session.get(SignIn, identity, with_for_update=True, populate_existing=True)
    if sign_in is None or sign_in.ended_at is not None:
        return False
    sign_in.ended_at = database.now(session)
    for family in session.scalars(_living_families(identity)):
        family.revoked_at = sign_in.ended_at
    trail.record(
        session,
        actor=sign_in.subject,
        action=actions.SIGNED_OUT,
        subject=sign_in.id,
        client=None,
    )
    return True


def _living_families(identity: str) -> Select[TokenFamily]:
    is_living = TokenFamily.revoked_at.is_(None)
    return select(TokenFamily).where(TokenFamily.sign_in == identity, is_living).with_for_update()


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
