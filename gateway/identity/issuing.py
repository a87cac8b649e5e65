"""From a proven identity to tokens: the flows of RFC 6749, the same for doors and portal."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from gateway.audit import actions, trail
from gateway.identity import scopes, sessions, throttle, tokens
from gateway.identity.access import Access
from gateway.identity.accounts import Account, Kind, WrongCredentialsError
from gateway.identity.requests import (
    InvalidClientError,
    InvalidGrantError,
    InvalidScopeError,
    InvalidTargetError,
    Login,
    TokenRefusedError,
    Wish,
)
from gateway.identity.tokens import InvalidTokenError, KeyRing

UNKNOWN = "unknown"
WRONG = "Wrong name or password."


@dataclass(frozen=True, slots=True)
class Issued:
    """A token and what it is good for."""

    access_token: str
    expires_in: int
    scope: str
    client: str | None
    refresh_token: str | None


@dataclass(frozen=True, slots=True)
class Choice:
    """What a token will say beside whose it is."""

    client: str | None
    scope: frozenset[str]
    audience: str


class Issuer:
    """Issues, renews and revokes."""

    def __init__(self, access: Access, keys: KeyRing) -> None:
        self._access = access
        self._keys = keys
        self._config = access.config
        self._database = access.database

    def by_password(self, login: Login, wish: Wish, address: str) -> Issued:
        """Sign a person or a service in.

        Raises
        ------
        TokenRefusedError
            The name or password is wrong, or the wish goes beyond the account's rights.
        TooManyAttemptsError
            After too many failures, whether this was one or not.
        DirectoryUnavailableError
            Nobody can be signed in at present.
        """
        self._check_throttle(login.name, address)
        asked_at = time.monotonic()
        try:
            account = self._proven(login)
        except WrongCredentialsError as error:
            self._failed(login, error.account, address)
            raise _wrong(login.kind) from None
        self._check_throttle(account.name, address)
        self._access.membership.learn(account.name, account, asked_at)
        grants = self._access.grants(account)
        try:
            choice = self.choose(grants, wish)
        except TokenRefusedError as refusal:
            self._record_refusal(account, refusal, address)
            raise
        with self._database.begin() as session:
            return self._issue(session, account, choice, address)

    def by_refresh(self, refresh_token: str, wish: Wish, address: str) -> Issued:
        """Renew a person's tokens; the old refresh token is used up.

        The directory is asked before the old token is: while it is away, nothing is lost.

        Raises
        ------
        TokenRefusedError
            The token opens nothing (any more), or the wish is wider than what was granted.
        DirectoryUnavailableError
            Rights are not known at present.
        """
        with self._database.begin() as session:
            family = sessions.family_of(session, refresh_token)
        if family is None:
            raise InvalidGrantError
        asked_at = time.monotonic()
        account = self._access.directory.account(family.subject)
        self._access.membership.learn(family.subject, account, asked_at)
        if account is None or account.kind != family.kind:
            raise InvalidGrantError
        held = Choice(family.client, frozenset(family.scope.split()), family.audience)
        choice = _narrowed(held, wish, self._access.grants(account))
        with self._database.begin() as session:
            following = sessions.rotate(session, family.id, refresh_token)
            if following is not None:
                self._record(session, account, choice, address, "refresh_token")
        if following is None:
            raise InvalidGrantError
        return self._signed(account, choice, family.id, following)

    def revoke(self, token: str) -> None:
        """Revoke an access or a refresh token; one that is none of ours is none to revoke."""
        if token.startswith(sessions.PREFIX):
            with self._database.begin() as session:
                sessions.revoke_refresh(session, token)
            return
        claims = self._claims(token)
        if claims is None:
            return
        with self._database.begin() as session:
            sessions.revoke_access(
                session,
                jti=claims["jti"],
                expires_at=claims["exp"],
                subject=claims["sub"],
                client=claims.get("client"),
            )

    def choose(self, grants: scopes.Grants, wish: Wish) -> Choice:
        """Decide what a token says.

        Raises
        ------
        TokenRefusedError
            The wish goes beyond the rights, or leaves open for which client it is.
        """
        audience = wish.audience or self._config.tokens.audience
        allowed = frozenset(scopes.ALL)
        if audience == self._config.airflow.audience:
            allowed = scopes.FOR_AIRFLOW
        elif audience != self._config.tokens.audience:
            raise InvalidTargetError("No tokens are made for this audience.")
        client = wish.client or _only_client(grants)
        held = grants.scopes(client) & allowed
        if not held:
            raise InvalidScopeError("The account has no rights here, or none for this client.")
        scope = held if wish.scope is None else wish.scope
        if not scope or not scope <= held:
            raise InvalidScopeError("The account does not have these scopes.")
        return Choice(client, scope, audience)

    # --- steps ------------------------------------------------------------------------------

    def _check_throttle(self, name: str, address: str) -> None:
        counters = throttle.Counters.of(name, address)
        with self._database.begin() as session:
            throttle.check(session, self._config.throttle, counters)

    def _proven(self, login: Login) -> Account:
        known = None
        for name, password in login.readings:
            try:
                return self._access.directory.authenticate(name, password, login.kind)
            except WrongCredentialsError as error:
                known = known or error.account
        raise WrongCredentialsError(known)

    def _failed(self, login: Login, known: str | None, address: str) -> None:
        counters = throttle.Counters.of(known or login.name, address)
        with self._database.begin() as session:
            throttle.count_failure(session, self._config.throttle, counters)
            trail.record(
                session,
                # What was typed as a name may be a password: an unknown one is not kept.
                actor=known or UNKNOWN,
                action=actions.LOGIN_FAILED,
                subject=known or UNKNOWN,
                client=None,
                details={"kind": login.kind, "address": address},
            )

    def _record_refusal(self, account: Account, refusal: TokenRefusedError, address: str) -> None:
        with self._database.begin() as session:
            trail.record(
                session,
                actor=account.name,
                action=actions.LOGIN_FAILED,
                subject=account.name,
                client=None,
                details={"kind": account.kind, "address": address, "reason": refusal.code},
            )

    def _issue(self, session: Session, account: Account, choice: Choice, address: str) -> Issued:
        grant = "password" if account.kind == "person" else "client_credentials"
        self._record(session, account, choice, address, grant)
        if account.kind != "person":
            return self._signed(account, choice, None, None)
        descent = sessions.Descent(
            subject=account.name,
            kind=account.kind,
            client=choice.client,
            audience=choice.audience,
            scope=scopes.text(choice.scope),
        )
        family, first = sessions.begin(session, descent, self._config.tokens.refresh_seconds)
        return self._signed(account, choice, family, first)

    def _record(
        self, session: Session, account: Account, choice: Choice, address: str, grant: str
    ) -> None:
        trail.record(
            session,
            actor=account.name,
            action=actions.LOGIN_SUCCEEDED,
            subject=account.name,
            client=choice.client,
            details={
                "grant": grant,
                "audience": choice.audience,
                "scope": scopes.text(choice.scope),
                "address": address,
            },
        )

    def _signed(
        self, account: Account, choice: Choice, family: str | None, refresh_token: str | None
    ) -> Issued:
        config = self._config.tokens
        scope = scopes.text(choice.scope)
        claims = tokens.claims_for(
            config.issuer, choice.audience, account.name, scope, config.access_seconds
        )
        claims["jti"] = tokens.new_jti(family)
        if choice.client is not None:
            claims["client"] = choice.client
        signed = self._keys.sign(claims)
        return Issued(signed, config.access_seconds, scope, choice.client, refresh_token)

    def _claims(self, token: str) -> dict[str, Any] | None:
        issuer = self._config.tokens.issuer
        for audience in (self._config.tokens.audience, self._config.airflow.audience):
            try:
                return self._keys.verify(token, issuer=issuer, audience=audience)
            except InvalidTokenError:
                continue
        return None


def _wrong(kind: Kind) -> TokenRefusedError:
    return InvalidClientError(WRONG) if kind == "service" else InvalidGrantError(WRONG)


def _only_client(grants: scopes.Grants) -> str | None:
    """Return the client a token is for when none is named; the platform's rights come first."""
    if grants.platform or not grants.clients:
        return None
    if len(grants.clients) > 1:
        raise TokenRefusedError("The account belongs to several clients: name one as `client`.")
    return next(iter(grants.clients))


def _narrowed(held: Choice, wish: Wish, grants: scopes.Grants) -> Choice:
    if wish.audience not in {None, held.audience}:
        raise InvalidTargetError("The refresh token is for another audience.")
    if wish.client not in {None, held.client}:
        raise InvalidGrantError("The refresh token is for another client.")
    if wish.scope is not None and not wish.scope <= held.scope:
        raise InvalidScopeError("The refresh token does not carry these scopes.")
    left = (held.scope if wish.scope is None else wish.scope) & grants.scopes(held.client)
    if not left:
        raise InvalidGrantError("The account's rights have ended.")
    return Choice(held.client, left, held.audience)
