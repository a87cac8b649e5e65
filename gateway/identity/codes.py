"""Authorization codes: bound to all that they were asked with, short-lived, used once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway import database
from gateway.audit import actions, trail
from gateway.identity import browsers, sessions
from gateway.identity.applications import Application
from gateway.identity.authorization import VERIFIER, Asked
from gateway.identity.model import AuthorizationCode, SignIn, TokenFamily

# Recognized by scanners that look for secrets in the wrong places.
PREFIX = "gwc_"
CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Presented:
    """A code, and what has to come with it (RFC 6749 §4.1.3, RFC 7636 §4.5)."""

    application: Application
    code: str
    redirect_uri: str
    verifier: str


def issue(
    session: Session, sign_in: str, asked: Asked, client: str | None, scope: str, seconds: int
) -> str:
    """Make a code for a person who is signed in."""
    code = PREFIX + secrets.token_urlsafe(32)
    session.add(
        AuthorizationCode(
            digest=_digest(code),
            sign_in=sign_in,
            application=asked.target.application.client_id,
            redirect_uri=asked.target.redirect_uri,
            challenge=asked.challenge,
            nonce=asked.nonce,
            is_openid=asked.is_openid,
            client=client,
            scope=scope,
            expires_at=database.now(session) + timedelta(seconds=seconds),
        )
    )
    return code


def find(session: Session, code: str) -> tuple[AuthorizationCode, SignIn] | None:
    """Return a code with the sign-in that it came of, good or not, locked; None if unknown."""
    if not code.startswith(PREFIX) or len(code) > CHARACTERS:
        return None
    query = (
        select(AuthorizationCode, SignIn)
        .join(SignIn, SignIn.id == AuthorizationCode.sign_in)
        .where(AuthorizationCode.digest == _digest(code))
        .with_for_update(of=AuthorizationCode)
    )
    found = session.execute(query).one_or_none()
    return None if found is None else (found[0], found[1])


def use(session: Session, presented: Presented) -> tuple[AuthorizationCode, SignIn] | None:
    """Use a code up; return it where it is good, with the sign-in that it came of.

    Notes
    -----
    A code that comes again was seen by somebody else: what it gave is taken back (RFC 6749
    §4.1.2). One that comes with a wrong verifier, address or application was stolen on its way:
    it is used up as well, so that a second try with the right one finds nothing.
    """
    found = find(session, presented.code)
    if found is None:
        return None
    code, sign_in = found
    if code.used_at is not None:
        _take_back(session, code, sign_in)
        return None
    code.used_at = database.now(session)
    if not _fits(code, presented):
        _record(session, code, sign_in, actions.CODE_REFUSED)
        return None
    is_alive = code.expires_at > code.used_at and browsers.is_alive(session, sign_in)
    return (code, sign_in) if is_alive else None


def _fits(code: AuthorizationCode, presented: Presented) -> bool:
    return (
        code.application == presented.application.client_id
        and code.redirect_uri == presented.redirect_uri
        and VERIFIER.fullmatch(presented.verifier) is not None
        and hmac.compare_digest(code.challenge, challenge_of(presented.verifier))
    )


def challenge_of(verifier: str) -> str:
    """Return the S256 challenge of a verifier (RFC 7636 §4.2)."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _take_back(session: Session, code: AuthorizationCode, sign_in: SignIn) -> None:
    _record(session, code, sign_in, actions.CODE_REUSED)
    family = session.get(TokenFamily, code.family, with_for_update=True) if code.family else None
    if family is not None:
        sessions.end(session, family, actions.TOKEN_REVOKED)


def _record(session: Session, code: AuthorizationCode, sign_in: SignIn, action: str) -> None:
    trail.record(
        session,
        actor=sign_in.subject,
        action=action,
        subject=sign_in.id,
        client=code.client,
        details={"application": code.application},
    )


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()
