"""Calls to the gateway: its public keys, and logging a person in.

One place owns time-outs, size limits and the translation of every failure into the answer a login
page needs. Nothing here logs a password or a token.
"""

from __future__ import annotations

import json
import time
from typing import Any

import httpx

_TIMEOUT = httpx.Timeout(5.0)
_TOTAL_SECONDS = 8.0
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


class GatewayApi:
    """The gateway's token endpoint and key set."""

    def __init__(self, url: str) -> None:
        self._url = url

    def key_set(self) -> dict[str, Any]:
        """Fetch the public keys (RFC 7517).

        Raises
        ------
        GatewayAwayError
            No answer in time, or not a key set.
        """
        status, _, body = self._call("GET", "/.well-known/jwks.json")
        if status != _OK:
            raise GatewayAwayError
        return body

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
        status, headers, body = self._call("POST", "/v1/token", data=form)
        if status != _OK:
            raise _refusal(status, headers, body)
        token = body.get("access_token")
        if not isinstance(token, str) or str(body.get("token_type", "")).lower() != "bearer":
            raise GatewayAwayError
        return token

    def _call(
        self, method: str, path: str, data: dict[str, str] | None = None
    ) -> tuple[int, httpx.Headers, dict[str, Any]]:
        # The environment's proxies are ignored: a password goes to the gateway and nowhere else.
        options = {"timeout": _TIMEOUT, "follow_redirects": False, "trust_env": False}
        try:
            with (
                httpx.Client(**options) as http,  # type: ignore[arg-type]
                http.stream(method, self._url + path, data=data) as response,
            ):
                body = json.loads(_bounded(response))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
            raise GatewayAwayError from error
        if not isinstance(body, dict):
            raise GatewayAwayError
        return response.status_code, response.headers, body


def _bounded(response: httpx.Response) -> bytes:
    deadline = time.monotonic() + _TOTAL_SECONDS
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
