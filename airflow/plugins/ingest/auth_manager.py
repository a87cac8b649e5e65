"""The auth manager Airflow is configured with: ``ingest.auth_manager.GatewayAuthManager``.

It says who is asking. Tokens are judged in `tokens`, rights in `decisions` and `rights`.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airflow.configuration import conf
from airflow.models.revoked_token import RevokedToken
from fastapi import HTTPException
from jwt import InvalidTokenError

from ingest import (
    doors,
    gateway_api,
    jwks,
    login,
    login_pages,
    settings,
    standing,
    tokens,
    view_doors,
)
from ingest.decisions import Decisions
from ingest.registry import Registry
from ingest.signon import SignOn
from ingest.users import CLIENTS_PEOPLE, PEOPLE, GatewayUser, Kind
from ingest.view_parts import MENU, Parts

if TYPE_CHECKING:
    from airflow.api_fastapi.common.types import ExtraMenuItem
    from fastapi import FastAPI

    from ingest.registry import Ownership

AWAY = "The identity provider is not available"
# How long the gateway's answer about a token is believed; of all others it is asked at every use.
_BELIEVED_SECONDS = {
    **dict.fromkeys(PEOPLE, standing.PEOPLE_SECONDS),
    Kind.WATCHER: standing.WATCHER_SECONDS,
}
# A session's cookie is not written anew more often than this.
_RENEWED_SECONDS = 60
_TELL_AGAIN_SECONDS = (1, 5, 15, 60, 300)


class GatewayAuthManager(Decisions):
    """Lets the gateway's people and services into Airflow."""

    @cached_property
    def _settings(self) -> settings.Settings:
        return settings.from_environment()

    @cached_property
    def _gateway(self) -> gateway_api.GatewayApi:
        return gateway_api.GatewayApi(self._settings.gateway_url, self._settings.application)

    @cached_property
    def _keys(self) -> jwks.KeyRing:
        return jwks.KeyRing(self._gateway.key_set)

    @cached_property
    def _standing(self) -> standing.Standing:
        return standing.Standing(self._gateway.worth)

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
            403: the token is good, and not for this door.
        """
        return _let_in(await self._user_of(token))

    async def _user_of(self, token: str) -> GatewayUser:
        parsed = tokens.parse(token)
        if parsed.claims.get("iss") != self._settings.issuer:
            user: GatewayUser = await super().get_user_from_token(token)  # type: ignore[assignment]
            return await self._still_signed_on(user)
        try:
            return await asyncio.to_thread(self._gateway_user, parsed)
        except tokens.TokenRefusedError as error:
            self.log.warning("A gateway token was refused: %s", error)
            raise

    async def _still_signed_on(self, user: GatewayUser) -> GatewayUser:
        """Return the user of one of Airflow's own sessions with the rights of this moment.

        While the gateway is away a session goes on, until it expires, with the rights that it has.
        """
        session = str(user.session)
        found = self._standing.remembered(session)
        if found is None:
            try:
                found = await asyncio.to_thread(
                    self._standing.confirmed,
                    session,
                    session,
                    gateway_api.SESSION,
                    at_most_seconds=standing.PEOPLE_SECONDS,
                )
            except gateway_api.GatewayAwayError:
                return user
        return _confirmed(user, found)

    def _gateway_user(self, parsed: tokens.Unverified) -> GatewayUser:
        # Before the gateway is asked: who has no business here costs it nothing.
        user = _let_in(self._verified(parsed))
        identity = _revocation_id(parsed)
        if user.kind in PEOPLE and RevokedToken.is_revoked(identity):
            raise tokens.TokenRefusedError("revoked")
        try:
            found = self._standing.confirmed(
                identity, parsed.text, None, at_most_seconds=_BELIEVED_SECONDS.get(user.kind, 0.0)
            )
        except gateway_api.GatewayAwayError as error:
            if user.kind in PEOPLE:
                return user
            raise HTTPException(503, AWAY, {"Retry-After": "2"}) from error
        return _confirmed(user, found)

    def _verified(self, parsed: tokens.Unverified) -> GatewayUser:
        try:
            return tokens.verify(parsed, keys=self._keys, issuer=self._settings.issuer)
        except jwks.KeysUnavailableError as error:
            raise HTTPException(503, AWAY, {"Retry-After": "5"}) from error

    def refresh_user(self, *, user: GatewayUser) -> GatewayUser | None:
        """Let a session go on that the gateway has confirmed lately: asked for every request."""
        if user.session and user.confirmed_until >= user.expires_at + _RENEWED_SECONDS:
            return replace(user, expires_at=user.confirmed_until)
        return None

    def revoke_token(self, token: str) -> None:
        """Sign out, here and at the gateway, whichever kind of token was presented."""
        try:
            parsed = tokens.parse(token)
            if parsed.claims.get("iss") == self._settings.issuer:
                user = self._verified(parsed)
                ends = datetime.fromtimestamp(user.expires_at, tz=UTC)
                RevokedToken.revoke(_revocation_id(parsed), ends)
                session = user.session
            else:
                claims = self._get_token_validator().validated_claims(token)
                session = str(claims.get("session") or "")
                super().revoke_token(token)
        except (InvalidTokenError, HTTPException):
            return
        if session:
            self._sign_out_at_gateway(session)

    def _sign_out_at_gateway(self, session: str) -> None:
        self._standing.forget(session)
        try:
            self._gateway.end_session(session)
        except gateway_api.GatewayAwayError:
            self.log.warning("The gateway does not know yet that somebody signed out")
            threading.Thread(target=self._tell_later, args=(session,), daemon=True).start()

    def _tell_later(self, session: str) -> None:
        for pause_seconds in _TELL_AGAIN_SECONDS:
            time.sleep(pause_seconds)
            try:
                self._gateway.end_session(session)
            except gateway_api.GatewayAwayError:
                continue
            return
        self.log.error("The gateway was never told that somebody signed out")

    def serialize_user(self, user: GatewayUser) -> dict[str, Any]:
        """Say who a session belongs to. Nothing in it is secret."""
        return {
            "sub": user.sub,
            "kind": user.kind.value,
            "client": user.client,
            "scopes": sorted(user.scopes),
            "session": user.session,
        }

    def deserialize_user(self, token: dict[str, Any]) -> GatewayUser:
        """Read a session of Airflow's own; only people have one."""
        user = GatewayUser(
            sub=str(token["sub"]),
            kind=Kind(token["kind"]),
            client=token["client"],
            scopes=frozenset(token["scopes"]),
            expires_at=int(token["exp"]),
            session=token["session"],
        )
        is_bound = user.session and (user.client or user.kind not in CLIENTS_PEOPLE)
        if user.kind not in PEOPLE or not is_bound:
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
        """Return where signing in begins."""
        wanted = kwargs.get("next_url")
        return login_pages.LOGIN_PATH + (f"?{urlencode({'next': wanted})}" if wanted else "")

    def get_url_logout(self) -> str:
        """Return the page that ends signing out."""
        return login_pages.SIGNED_OUT_PATH

    def get_fastapi_app(self) -> FastAPI:
        """Return the application Airflow mounts at ``/auth``."""
        # Only the API server comes here; what knows its callers is the API server's.
        from airflow.api_fastapi.core_api.security import get_user  # noqa: PLC0415

        signon = SignOn(self._settings, self._gateway, self._keys, self.generate_jwt)
        app = login.create_app(signon)
        parts = Parts(self._gateway, self.ownership, self._may_see, get_user)
        app.mount("/views", view_doors.create_app(parts))
        return app

    def _may_see(self, user: GatewayUser, view: str) -> bool:
        return self.is_authorized_custom_view(method="GET", resource_name=view, user=user)

    def get_extra_menu_items(self, *, user: GatewayUser) -> list[ExtraMenuItem]:
        """Return the views this user may see, for Airflow's menu."""
        return [item for view, item in MENU.items() if self._may_see(user, view)]


def _let_in(user: GatewayUser) -> GatewayUser:
    if not doors.lets_in(user.kind):
        raise HTTPException(403, "Forbidden")
    return user


def _confirmed(user: GatewayUser, found: standing.Confirmed) -> GatewayUser:
    """Return a user with what the gateway still grants; services' tokens say all by themselves."""
    if found.worth is None:
        raise tokens.TokenExpiredError
    if user.kind not in PEOPLE:
        return user
    left = tokens.narrowed(user, found.worth.client, found.worth.scopes)
    if left is None:
        raise tokens.TokenExpiredError
    until = min(found.worth.expires_at, int(found.at) + tokens.PERSON_LIFE_SECONDS)
    return replace(left, confirmed_until=until)


def _revocation_id(parsed: tokens.Unverified) -> str:
    """Shorten a token's id to what Airflow's table of revoked tokens holds: 32 characters."""
    return hashlib.sha256(parsed.claims["jti"].encode()).hexdigest()[:32]
