"""What a token or session is worth at this moment (RFC 7662), for the application that holds it."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.identity import scopes, sessions
from gateway.identity.access import Access
from gateway.identity.applications import Application
from gateway.identity.lookup import RESERVED_NAME
from gateway.identity.tokens import InvalidTokenError, KeyRing, family_of

SESSION = "session"


@dataclass(frozen=True, slots=True)
class Worth:
    """What a living token or session stands for.

    Attributes
    ----------
    expires_at
        Unix seconds: when it ends at the latest.
    fresh_seconds
        How long the directory's answer behind it may still be believed.
    """

    subject: str
    client: str | None
    scope: str
    expires_at: int
    fresh_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Introspection:
    """Answers applications; each is told of tokens for its own audience only."""

    access: Access
    keys: KeyRing

    def of_session(self, application: Application, identity: str) -> Worth | None:
        """Return what a session is worth, None if it has ended.

        Raises
        ------
        DirectoryUnavailableError
            Rights are not known at present.
        """
        with self.access.database.begin() as session:
            family = sessions.living(session, identity)
        if family is None or family.audience != application.audience:
            return None
        expires_at = int(family.expires_at.timestamp())
        return self._now(family.subject, family.client, family.scope, expires_at)

    def of_token(self, application: Application, token: str) -> Worth | None:
        """Return what an access token is worth, None if it is good for nothing.

        Raises
        ------
        DirectoryUnavailableError
            Rights are not known at present.
        """
        issuer = self.access.config.tokens.issuer
        try:
            claims = self.keys.verify(token, issuer=issuer, audience=application.audience)
        except InvalidTokenError:
            return None
        jti, client = claims["jti"], claims.get("client")
        with self.access.database() as session:
            session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            standing = sessions.standing(session, jti=jti, family=family_of(jti), client=client)
        if standing.revoked:
            return None
        if claims["sub"] == RESERVED_NAME:
            # The gateway's own, for one errand: its rights are in no directory.
            return Worth(RESERVED_NAME, client, claims["scope"], claims["exp"])
        return self._now(claims["sub"], client, claims["scope"], claims["exp"])

    def _now(self, subject: str, client: str | None, scope: str, expires_at: int) -> Worth | None:
        account = self.access.membership.account(subject)
        if account is None:
            return None
        left = frozenset(scope.split()) & self.access.grants(account).scopes(client)
        fresh = self.access.membership.seconds_left(subject)
        return Worth(subject, client, scopes.text(left), expires_at, fresh) if left else None
