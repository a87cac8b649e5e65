"""What an application gets for a person who signed on to it: a look at the gateway (RFC 8693).

The application names the session and proves itself by its secret. It gets an access token of that
very person, for the scopes it asks for and no more than looking, for a minute; the token dies with
the sign-on.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from gateway import database
from gateway.audit import actions, trail
from gateway.identity import browsers, scopes, sessions, tokens
from gateway.identity.access import Access
from gateway.identity.applications import Application
from gateway.identity.issuing import Issued
from gateway.identity.model import SignIn, TokenFamily
from gateway.identity.requests import (
    InvalidScopeError,
    InvalidTargetError,
    TokenRefusedError,
    Wish,
)
from gateway.identity.tokens import KeyRing

LIFE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Exchange:
    """Makes tokens of people for applications."""

    access: Access
    keys: KeyRing

    def for_session(
        self, application: Application, identity: str, wish: Wish, address: str
    ) -> Issued:
        """Return a token of the person whose session this is.

        Raises
        ------
        TokenRefusedError
            The session has ended, is another application's or no browser's; or the wish goes
            beyond looking, or beyond the person's rights.
        DirectoryUnavailableError
            Rights are not known at present.
        """
        audience = self.access.config.tokens.audience
        if wish.audience not in {None, audience}:
            raise InvalidTargetError("Only tokens for the gateway itself are made so.")
        if not wish.scope or not wish.scope <= scopes.READING:
            raise InvalidScopeError(f"Ask for some of {scopes.text(scopes.READING)}.")
        with self.access.database.begin() as session:
            family = _living(session, application, identity)
        scope = self._granted(family, wish)
        with self.access.database.begin() as session:
            # The directory may have taken its time: the person may be gone by now.
            family = _living(session, application, identity)
            left = family.expires_at - database.now(session)
            _record(session, application, family, scope, address)
        life = min(LIFE_SECONDS, max(1, int(left.total_seconds())))
        return self._signed(family, scope, life)

    def _granted(self, family: TokenFamily, wish: Wish) -> str:
        account = self.access.membership.account(family.subject)
        if account is None or account.kind != family.kind:
            raise TokenRefusedError("The session has ended.")
        if wish.client not in {None, family.client}:
            raise TokenRefusedError("The session is for another client.")
        held = frozenset(family.scope.split())
        held &= self.access.grants(account).scopes(family.client)
        if scopes.within(wish.scope or (), held) != wish.scope:
            raise InvalidScopeError("The person does not have these scopes.")
        return scopes.text(wish.scope)

    def _signed(self, family: TokenFamily, scope: str, life_seconds: int) -> Issued:
        config = self.access.config.tokens
        claims = tokens.claims_for(
            config.issuer, config.audience, family.subject, scope, life_seconds
        )
        claims["jti"] = tokens.new_jti(family.id)
        if family.client is not None:
            claims["client"] = family.client
        return Issued(self.keys.sign(claims), life_seconds, scope, family.client, None)


def _living(session: Session, application: Application, identity: str) -> TokenFamily:
    """Return a session that a person began in a browser, for this application.

    Scripts have sessions too; they hold a password, and ask the gateway themselves.
    """
    family = sessions.living(session, identity)
    if family is None or family.audience != application.audience or family.sign_in is None:
        raise TokenRefusedError("There is no such session, or no longer.")
    sign_in = session.get(SignIn, family.sign_in)
    if sign_in is None or not browsers.is_alive(session, sign_in):
        raise TokenRefusedError("There is no such session, or no longer.")
    return family


def _record(
    session: Session, application: Application, family: TokenFamily, scope: str, address: str
) -> None:
    trail.record(
        session,
        actor=family.subject,
        action=actions.TOKEN_EXCHANGED,
        subject=family.id,
        client=family.client,
        details={"application": application.client_id, "scope": scope, "address": address},
    )
