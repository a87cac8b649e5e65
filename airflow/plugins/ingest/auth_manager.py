"""The auth manager Airflow is configured with: ``ingest.auth_manager.GatewayAuthManager``.

It says who is asking. Tokens are judged in `tokens`, rights in `decisions` and `rights`.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airflow.configuration import conf
from airflow.models.revoked_token import RevokedToken
from fastapi import HTTPException

from ingest import gateway_api, jwks, login, login_pages, settings, tokens
from ingest.decisions import Decisions
from ingest.registry import Registry
from ingest.users import PEOPLE, GatewayUser, Kind

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ingest.registry import Ownership


class GatewayAuthManager(Decisions):
    """Lets the gateway's people and services into Airflow."""

    @cached_property
    def _settings(self) -> settings.Settings:
        return settings.from_environment()

    @cached_property
    def _gateway(self) -> gateway_api.GatewayApi:
        return gateway_api.GatewayApi(self._settings.gateway_url)

    @cached_property
    def _keys(self) -> jwks.KeyRing:
        return jwks.KeyRing(self._gateway.key_set)

    @cached_property
    def _registry(self) -> Registry:
        return Registry(self._settings.registry_path)

    def init(self) -> None:
        """Refuse to start with an incomplete or unsafe environment."""
        super().init()
        _ = (self._settings, self._keys, self._registry)

    def ownership(self) -> Ownership:
        """Return what the registry says now."""
        return self._registry.current()

    async def get_user_from_token(self, token: str) -> GatewayUser:
        """Accept the gateway's tokens, and Airflow's own sessions.

        Raises
        ------
        InvalidTokenError
            Airflow answers 401 when a good token has expired and 403 otherwise.
        HTTPException
            503: the gateway's keys cannot be had, so the token can be neither taken nor refused.
        """
        parsed = tokens.parse(token)
        if parsed.claims.get("iss") != self._settings.issuer:
            return await super().get_user_from_token(token)  # type: ignore[return-value]
        try:
            return await asyncio.to_thread(self._gateway_user, parsed)
        except tokens.TokenRefusedError as error:
            self.log.warning("A gateway token was refused: %s", error)
            raise

    def _gateway_user(self, parsed: tokens.Unverified) -> GatewayUser:
        user = self._verified(parsed)
        # Services never sign out, and theirs are the calls that come by the thousand.
        if user.kind in PEOPLE and RevokedToken.is_revoked(_revocation_id(parsed)):
            raise tokens.TokenRefusedError("revoked")
        return user

    def _verified(self, parsed: tokens.Unverified) -> GatewayUser:
        try:
            return tokens.verify(parsed, keys=self._keys, issuer=self._settings.issuer)
        except jwks.KeysUnavailableError as error:
            raise HTTPException(
                503, "The identity provider is not available", {"Retry-After": "5"}
            ) from error

    def revoke_token(self, token: str) -> None:
        """Sign out, whichever kind of token was presented."""
        try:
            parsed = tokens.parse(token)
            if parsed.claims.get("iss") == self._settings.issuer:
                ends = datetime.fromtimestamp(self._verified(parsed).expires_at, tz=UTC)
                RevokedToken.revoke(_revocation_id(parsed), ends)
                return
        except (tokens.TokenRefusedError, tokens.TokenExpiredError, HTTPException):
            return
        super().revoke_token(token)

    def serialize_user(self, user: GatewayUser) -> dict[str, Any]:
        """Say who a session belongs to. Nothing in it is secret."""
        return {
            "sub": user.sub,
            "kind": user.kind.value,
            "client": user.client,
            "scopes": sorted(user.scopes),
        }

    def deserialize_user(self, token: dict[str, Any]) -> GatewayUser:
        """Read a session of Airflow's own; only people have one."""
        user = GatewayUser(
            sub=str(token["sub"]),
            kind=Kind(token["kind"]),
            client=token["client"],
            scopes=frozenset(token["scopes"]),
            expires_at=int(token["exp"]),
        )
        if user.kind not in PEOPLE or (user.kind is Kind.PERSON and not user.client):
            message = "not a session"
            raise ValueError(message)
        return user

    def generate_jwt(
        self,
        user: GatewayUser,
        *,
        expiration_time_in_seconds: int = conf.getint("api_auth", "jwt_expiration_time"),
    ) -> str:
        """Make a session that ends no later than what it was made from.

        Rights are looked up in the directory when the gateway issues a token, so a session may not
        carry them further; nor may a service's token be exchanged for one.
        """
        seconds = min(expiration_time_in_seconds, user.expires_at - int(time.time()))
        if user.kind not in PEOPLE or seconds <= 0:
            raise HTTPException(403, "No session can be made from this token")
        signer = self._get_token_signer()
        return signer.generate(self.serialize_user(user), valid_for=seconds)

    def get_url_login(self, **kwargs: Any) -> str:
        """Return the address of the sign-in page."""
        wanted = kwargs.get("next_url")
        return login_pages.LOGIN_PATH + (f"?{urlencode({'next': wanted})}" if wanted else "")

    def get_fastapi_app(self) -> FastAPI:
        """Return the application Airflow mounts at ``/auth``."""
        return login.create_app(self._open_session)

    def _open_session(self, credentials: login.Credentials) -> login.Session:
        token = self._gateway.person_token(
            credentials.username, credentials.password, credentials.client or None
        )
        try:
            user = self._verified(tokens.parse(token))
        except (tokens.TokenRefusedError, tokens.TokenExpiredError) as error:
            self.log.warning("The gateway issued a token that opens no session: %s", error)
            raise gateway_api.AccountNotAllowedError from error
        except HTTPException as error:
            raise gateway_api.GatewayAwayError from error
        if user.kind not in PEOPLE:
            raise gateway_api.AccountNotAllowedError
        ends = int(time.time()) + conf.getint("api_auth", "jwt_expiration_time")
        return login.Session(self.generate_jwt(user), min(user.expires_at, ends))


def _revocation_id(parsed: tokens.Unverified) -> str:
    """Shorten a token's id to what Airflow's table of revoked tokens holds: 32 characters."""
    return hashlib.sha256(parsed.claims["jti"].encode()).hexdigest()[:32]
