"""From a proven identity to tokens: the flows of RFC 6749, the same for doors and portal."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from gateway.audit import actions, trail
from gateway.identity import choosing, codes, scopes, sessions, tokens
from gateway.identity.access import Access
from gateway.identity.accounts import Account
from gateway.identity.choosing import Choice
from gateway.identity.codes import Presented
from gateway.identity.model import AuthorizationCode, SignIn
from gateway.identity.proving import Prover
from gateway.identity.requests import (
    InvalidGrantError,
    InvalidTargetError,
    Login,
    TokenRefusedError,
    Wish,
)
from gateway.identity.tokens import InvalidTokenError, KeyRing

ID_TOKEN_TYPE = "JWT"  # noqa: S105 - a kind, not a token
ID_TOKEN_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Issued:
    """A token and what it is good for."""

    access_token: str
    expires_in: int
    scope: str
    client: str | None
    refresh_token: str | None
    id_token: str | None = None


class Issuer:
    """Issues, renews and revokes."""

    def __init__(self, access: Access, keys: KeyRing) -> None:
        self._access = access
        self._keys = keys
        self._config = access.config
        self._database = access.database
        self._prover = Prover(access)

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
        account = self._prover.prove(login, address)
        grants = self._access.grants(account)
        try:
            choice = choosing.choose(self._config, grants, wish)
        except TokenRefusedError as refusal:
            self._prover.record_refusal(account, refusal.code, address)
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
        choice = choosing.narrowed(held, wish, self._access.grants(account))
        with self._database.begin() as session:
            following = sessions.rotate(session, family.id, refresh_token)
            if following is not None:
                self._record(session, account, choice, address, "refresh_token")
        if following is None:
            raise InvalidGrantError
        return self._signed(account, choice, family.id, following)

    def by_code(self, presented: Presented, wish: Wish, address: str) -> Issued:
        """Give an application the tokens of the person who signed on to it.

        The directory is asked before the code is used up: while it is away, nothing is lost.

        Raises
        ------
        TokenRefusedError
            The code opens nothing (any more), or not with what it came with.
        DirectoryUnavailableError
            Rights are not known at present.
        """
        if wish.audience not in {None, presented.application.audience}:
            raise InvalidTargetError("The code is for another audience.")
        with self._database.begin() as session:
            found = codes.find(session, presented.code)
        account = None if found is None else self._access.membership.account(found[1].subject)
        grants = scopes.Grants() if account is None else self._access.grants(account)
        with self._database.begin() as session:
            used = codes.use(session, presented)
            issued = None
            if used is not None and account is not None:
                issued = self._from_code(session, used, account, grants, presented, address)
        if issued is None:
            raise InvalidGrantError("The code is not good, or no longer.")
        return issued

    def _from_code(
        self,
        session: Session,
        used: tuple[AuthorizationCode, SignIn],
        account: Account,
        grants: scopes.Grants,
        presented: Presented,
        address: str,
    ) -> Issued | None:
        code, sign_in = used
        left = frozenset(code.scope.split()) & grants.scopes(code.client)
        if not left:
            return None
        choice = Choice(code.client, left, presented.application.audience)
        life = self._config.tokens.refresh_seconds
        family = sessions.begin_from(session, sign_in, _descent(account, choice), life)
        code.family = family
        self._record(session, account, choice, address, "authorization_code")
        issued = self._signed(account, choice, family, None)
        if not code.is_openid:
            return issued
        return replace(issued, id_token=self._id_token(code, sign_in))

    def _id_token(self, code: AuthorizationCode, sign_in: SignIn) -> str:
        """Say who signed in, when, and to which question (OpenID Connect Core §2)."""
        now = int(time.time())
        claims = {
            "iss": self._config.tokens.issuer,
            "aud": code.application,
            "sub": sign_in.subject,
            "iat": now,
            "exp": now + ID_TOKEN_SECONDS,
            "auth_time": int(sign_in.created_at.timestamp()),
        }
        nonce = {"nonce": code.nonce} if code.nonce is not None else {}
        return self._keys.sign({**claims, **nonce}, typ=ID_TOKEN_TYPE)

    def revoke(self, token: str) -> None:
        """Revoke an access or a refresh token; one that is none of ours is none to revoke.

        An access token for Airflow may have been exchanged for a session there, which is known
        here by the token's family: so that ends too.
        """
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
            family = tokens.family_of(claims["jti"])
            if family is not None and claims["aud"] == self._config.airflow.audience:
                sessions.revoke(session, family)

    # --- steps ------------------------------------------------------------------------------

    def _issue(self, session: Session, account: Account, choice: Choice, address: str) -> Issued:
        grant = "password" if account.kind == "person" else "client_credentials"
        self._record(session, account, choice, address, grant)
        if account.kind != "person":
            return self._signed(account, choice, None, None)
        life = self._config.tokens.refresh_seconds
        family, first = sessions.begin(session, _descent(account, choice), life)
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


def _descent(account: Account, choice: Choice) -> sessions.Descent:
    return sessions.Descent(
        subject=account.name,
        kind=account.kind,
        client=choice.client,
        audience=choice.audience,
        scope=scopes.text(choice.scope),
    )
