"""Asks the gateway for a running task's credential, with the API server's own account.

No task has this account: what a task may have, the API server asks for in its place.
"""

from __future__ import annotations

import json
import os
import ssl
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from ingest.bearer import Bearer
from ingest.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT = httpx.Timeout(20.0, connect=5.0)
ANSWER_LIMIT_BYTES = 64 * 1024
# A task may ask before the gateway has noted that its run began.
TRIES, PAUSE_SECONDS = 5, 0.3
# What the gateway adds to what Airflow calls a connection.
OURS = ("lease_id", "expires_at")
FIELDS = frozenset({"conn_type", "host", "port", "schema", "login", "password", "extra"})

_UNAUTHORIZED, _CONFLICT, _TOO_MANY, _SERVER_ERROR = 401, 409, 429, 500


class LeaseRefusedError(Exception):
    """The task gets nothing; asking again would change nothing."""


class LeaseUnavailableError(Exception):
    """Nothing can be said at present; asking again makes sense."""


@dataclass(frozen=True)
class LeaseRequest:
    """Which running task asks for what."""

    resource: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int


@dataclass(frozen=True)
class Account:
    """The account that may ask; ``shared`` are connections that every task may have besides."""

    user: str
    password_file: Path
    shared: frozenset[str]

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Account:
        """Read ``INGEST_LEASES_*`` and ``INGEST_SHARED_CONNECTIONS``.

        Raises
        ------
        SettingsError
            A variable is missing.
        """
        names = ("INGEST_LEASES_USER", "INGEST_LEASES_PASSWORD_FILE")
        missing = [name for name in names if not environ.get(name)]
        if missing:
            message = f"{missing[0]} must be set"
            raise SettingsError(message)
        listed = environ.get("INGEST_SHARED_CONNECTIONS", "").split(",")
        shared = frozenset(name.strip() for name in listed if name.strip())
        return cls(environ[names[0]], Path(environ[names[1]]), shared)


class LeaseApi:
    """The gateway's door for leases; safe to share between threads."""

    def __init__(self, url: str, account: Account) -> None:
        self._account = account
        trust: Any = ssl.create_default_context() if url.startswith("https:") else True
        # The environment's proxies are ignored: these credentials stay inside the platform.
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False, verify=trust)
        self._bearer = Bearer(self._signed_in)

    def connection(self, wanted: LeaseRequest) -> dict[str, Any]:
        """Return a connection's fields.

        Raises
        ------
        LeaseRefusedError
            The gateway knows no such running task, or does not offer what it asks for.
        LeaseUnavailableError
            The gateway, or what it asks, is away or has no room at present.
        """
        for tried in range(TRIES):
            status, body = self._ask(wanted)
            if status < 300:  # noqa: PLR2004
                return _connection(body)
            if status == _UNAUTHORIZED:
                self._bearer.forget()
            elif status == _TOO_MANY or status >= _SERVER_ERROR:
                break
            elif not (status == _CONFLICT and body.get("retryable") is True):
                raise LeaseRefusedError(str(body.get("type", status)))
            if tried < TRIES - 1:
                time.sleep(PAUSE_SECONDS)
        raise LeaseUnavailableError

    def _ask(self, wanted: LeaseRequest) -> tuple[int, dict[str, Any]]:
        headers = self._bearer.headers()
        return self._call("/v1/leases", json=asdict(wanted), headers=headers)

    def _signed_in(self) -> tuple[str, float]:
        try:
            password = self._account.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise LeaseUnavailableError from error
        form = {"grant_type": "client_credentials", "scope": "leases"}
        status, body = self._call("/v1/token", data=form, auth=(self._account.user, password))
        token, life = body.get("access_token"), body.get("expires_in")
        if status != httpx.codes.OK or not isinstance(token, str) or not isinstance(life, int):
            raise LeaseUnavailableError
        return token, life

    def _call(self, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
        try:
            with self._http.stream("POST", path, **options) as response:
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > ANSWER_LIMIT_BYTES:
                        raise LeaseUnavailableError
            found = json.loads(bytes(body))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
            # Not the cause itself: its request holds what no log should.
            raise LeaseUnavailableError(type(error).__name__) from None
        return response.status_code, found if isinstance(found, dict) else {}


def _connection(body: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in body.items() if name not in OURS}
    if not isinstance(found.get("conn_type"), str) or not found.keys() <= FIELDS:
        raise LeaseUnavailableError
    return found
