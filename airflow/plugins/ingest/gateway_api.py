"""Calls to the gateway: its public keys, signing a person on and off, what a session is worth.

One place owns time-outs, size limits and the translation of every failure into the answer a login
page needs. Nothing here logs a password or a token.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable

_TIMEOUT = httpx.Timeout(5.0)
_TOTAL_SECONDS = 8.0
# A request of somebody's waits for this one.
_SHORT_TIMEOUT = httpx.Timeout(2.0)
_SHORT_SECONDS = 3.0
# Shorter than servers keep an idle connection: none is used that is just being closed.
_LIMITS = httpx.Limits(max_connections=20, max_keepalive_connections=10, keepalive_expiry=3.0)
SESSION = "session"
_ANSWER_LIMIT_BYTES = 64 * 1024
_AUDIENCE = "airflow"

_UNAUTHORIZED = 401
_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
_OK = 200
_DEFAULT_WAIT_SECONDS = 30


class LoginError(Exception):
    """A login did not succeed; the subclass says what to tell the person."""


class WrongCredentialsError(LoginError):
    """The gateway does not accept this name and password."""


class AccountNotAllowedError(LoginError):
    """The password is right, but the account has no use for Airflow."""


class ClientNeededError(LoginError):
    """The gateway cannot act on the request; most often the account has several clients."""


class TooManyAttemptsError(LoginError):
    """The gateway asks to wait before another attempt."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__()
        self.retry_after_seconds = retry_after_seconds


class GatewayAwayError(LoginError):
    """The gateway cannot be reached, or its answer makes no sense."""


@dataclass(frozen=True)
class SignedOn:
    """The tokens that a code was exchanged for. Nothing in them has been verified yet."""

    access_token: str
    id_token: str


@dataclass(frozen=True)
class Worth:
    """What a living session or token stands for at the gateway.

    Attributes
    ----------
    expires_at
        Unix seconds: when it ends at the latest.
    fresh_seconds
        How long this may be believed.
    """

    client: str | None
    scopes: frozenset[str]
    expires_at: int
    fresh_seconds: float


class GatewayApi:
    """The gateway's doors for applications.

    Parameters
    ----------
    application
        The ``client_id`` and the secret by which the gateway knows this Airflow.
    """

    def __init__(self, url: str, application: tuple[str, str]) -> None:
        self._url = url
        self.application = application

    def key_set(self) -> dict[str, Any]:
        """Fetch the public keys (RFC 7517).

        Raises
        ------
        GatewayAwayError
            No answer in time, or not a key set.
        """
        return self._expected("GET", "/.well-known/jwks.json")

    def check(self) -> None:
        """Do nothing when the gateway can be reached.

        Raises
        ------
        GatewayAwayError
            It cannot.
        """
        self._expected("GET", "/healthz", is_short=True)

    def person_token(self, username: str, password: str, client: str | None = None) -> str:
        """Exchange a person's name and password for an access token for Airflow.

        Raises
        ------
        LoginError
            One of its subclasses; a retry makes sense after `GatewayAwayError` and `TooManyAttemptsError`.
        """
        form = {
            "grant_type": "password",
            "username": username,
            "password": password,
            "audience": _AUDIENCE,
        }
        if client:
            form["client"] = client
        return _text(self._tokens(form), "access_token")

    def code_tokens(self, code: str, redirect_uri: str, verifier: str) -> SignedOn:
        """Exchange an authorization code for the tokens of the person it stands for.

        Raises
        ------
        LoginError
            One of its subclasses. A code is good for one attempt.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
            "audience": _AUDIENCE,
        }
        body = self._tokens(form, auth=self.application)
        return SignedOn(_text(body, "access_token"), _text(body, "id_token"))

    def worth(self, token: str, kind: str | None) -> Worth | None:
        """Ask what a session or token is worth (RFC 7662); None when it has ended.

        Raises
        ------
        GatewayAwayError
            No answer in time, or none that makes sense.
        """
        body = self._expected("POST", "/v1/token/introspect", _named(token, kind), is_short=True)
        if body.get("active") is not True:
            if body.get("active") is False:
                return None
            raise GatewayAwayError
        try:
            return Worth(
                client=body.get("client"),
                scopes=frozenset(str(body["scope"]).split()),
                expires_at=int(body["exp"]),
                fresh_seconds=float(body["fresh_seconds"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise GatewayAwayError from error

    def end_session(self, identity: str) -> None:
        """Sign a person out at the gateway, by the session that they had here.

        Raises
        ------
        GatewayAwayError
            It could not be told.
        """
        form = _named(identity, SESSION)
        status, _, _ = self.call("POST", "/v1/token/revoke", form, auth=self.application)
        if status != _OK:
            raise GatewayAwayError

    def _tokens(self, form: dict[str, str], auth: tuple[str, str] | None = None) -> dict[str, Any]:
        status, headers, content = self.call("POST", "/v1/token", form, auth=auth)
        body = _object(content)
        if status != _OK:
            raise _refusal(status, headers, body)
        if str(body.get("token_type", "")).lower() != "bearer":
            raise GatewayAwayError
        return body

    def _expected(
        self, method: str, path: str, form: dict[str, str] | None = None, *, is_short: bool = False
    ) -> dict[str, Any]:
        auth = self.application if form else None
        status, _, content = self.call(method, path, form, auth=auth, is_short=is_short)
        if status != _OK:
            raise GatewayAwayError
        return _object(content)

    def call(
        self,
        method: str,
        path: str,
        form: dict[str, str] | None = None,
        *,
        auth: tuple[str, str] | None = None,
        headers: dict[str, str] | None = None,
        is_short: bool = False,
        read: Callable[[httpx.Response, float], bytes] | None = None,
    ) -> tuple[int, httpx.Headers, bytes]:
        """Ask once; return status, headers and body.

        Parameters
        ----------
        read
            Takes the body, within so many seconds; without it, no more than a small one is taken.

        Raises
        ------
        GatewayAwayError
            No answer in time, or too much of one.
        """
        timeout, seconds = (
            (_SHORT_TIMEOUT, _SHORT_SECONDS) if is_short else (_TIMEOUT, _TOTAL_SECONDS)
        )
        credentials = httpx.BasicAuth(*auth) if auth else None
        try:
            with self._http.stream(
                method,
                self._url + path,
                data=form,
                auth=credentials,
                headers=headers,
                timeout=timeout,
            ) as response:
                content = (read or _bounded)(response, seconds)
                return response.status_code, response.headers, content
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise GatewayAwayError from error

    @cached_property
    def _http(self) -> httpx.Client:
        # The environment's proxies are ignored: a password goes to the gateway and nowhere else.
        return httpx.Client(follow_redirects=False, trust_env=False, limits=_LIMITS)


def _named(token: str, kind: str | None) -> dict[str, str]:
    return {"token": token, **({"token_type_hint": kind} if kind else {})}


def _object(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise GatewayAwayError from error
    if not isinstance(body, dict):
        raise GatewayAwayError
    return body


def _text(body: dict[str, Any], name: str) -> str:
    found = body.get(name)
    if not isinstance(found, str):
        raise GatewayAwayError
    return found


def _bounded(response: httpx.Response, seconds: float) -> bytes:
    deadline = time.monotonic() + seconds
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > _ANSWER_LIMIT_BYTES or time.monotonic() > deadline:
            raise GatewayAwayError
    return bytes(body)


def _refusal(status: int, headers: httpx.Headers, body: dict[str, Any]) -> LoginError:
    """Read an RFC 6749 error; its description is never shown."""
    if status == _TOO_MANY_REQUESTS:
        return TooManyAttemptsError(_seconds(headers.get("retry-after")))
    if status >= _SERVER_ERROR:
        return GatewayAwayError()
    error = body.get("error")
    if error in {"invalid_grant", "invalid_client"} or status == _UNAUTHORIZED:
        return WrongCredentialsError()
    if error in {"invalid_scope", "unauthorized_client", "access_denied", "invalid_target"}:
        return AccountNotAllowedError()
    if error == "invalid_request":
        return ClientNeededError()
    return GatewayAwayError()


def _seconds(value: str | None) -> int:
    return int(value) if value and value.isdecimal() and len(value) < 5 else _DEFAULT_WAIT_SECONDS  # noqa: PLR2004
