"""The gateway, as the pipeline speaks to it: its keys, and the progress of a job."""

from __future__ import annotations

import random
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from pipeline.errors import DeliveryError

TRIES = 4
TIMEOUT = httpx.Timeout(15, connect=5)
_EARLY_SECONDS = 30
# What a person reads in the log of a run that they have cleared too late.
CLOSED = (
    "the job of this run has ended, so nothing more is loaded by it;"
    " to have the batch processed again, ask the gateway for a replay"
)
_REFUSED = (400, 401, 403, 404, 409, 410, 413, 422)

_tokens: dict[tuple[str, str], tuple[str, float]] = {}
_tokens_lock = threading.Lock()


class Gateway:
    """Speaks for this Airflow deployment, with its own service account.

    Every call is tried `TRIES` times with growing, random pauses. What fails in the end raises,
    so that Airflow tries the task again: the truth has to reach the gateway.
    """

    def __init__(self, url: str, user: str, password_file: str) -> None:
        self.url = url.rstrip("/")
        self.user = user
        self.password_file = password_file
        # Proxies of the environment are not asked: these calls stay inside the platform.
        self._http = httpx.Client(timeout=TIMEOUT, trust_env=False, verify=_trust(self.url))

    def close(self) -> None:
        """Let go of connections."""
        self._http.close()

    def jwks(self) -> dict[str, Any]:
        """Give the gateway's public keys.

        Raises
        ------
        httpx.HTTPError
            If they cannot be had.
        """
        response = self._send("GET", "/.well-known/jwks.json")
        response.raise_for_status()
        keys = response.json()
        if not isinstance(keys, dict) or not isinstance(keys.get("keys"), list):
            msg = "the gateway's answer is no key set"
            raise httpx.DecodingError(msg)
        return keys

    def progress(self, job_id: str, body: dict[str, Any], *, tries: int = TRIES) -> None:
        """Report a step's part; the gateway keeps the latest per step and map index.

        Raises
        ------
        DeliveryError
            ``job-closed`` if the gateway takes no reports of this run for the job, or no more.
        httpx.HTTPError
            If the report cannot be delivered.
        """
        path = f"/v1/jobs/{job_id}/progress"
        response = self._send("POST", path, tries, json=body, headers=self._authorization(tries))
        if response.status_code == httpx.codes.UNAUTHORIZED:
            _forget(self.url, self.user)
            response = self._send(
                "POST", path, tries, json=body, headers=self._authorization(tries)
            )
        if response.status_code in (404, 409, 410):
            raise DeliveryError("job-closed", CLOSED)
        response.raise_for_status()

    def _authorization(self, tries: int) -> dict[str, str]:
        with _tokens_lock:
            token, expires = _tokens.get((self.url, self.user), ("", 0.0))
            if time.monotonic() >= expires:
                token, expires = self._fetch_token(tries)
                _tokens[self.url, self.user] = (token, expires)
        return {"Authorization": f"Bearer {token}"}

    def _fetch_token(self, tries: int) -> tuple[str, float]:
        password = Path(self.password_file).read_text(encoding="utf-8").rstrip("\r\n")
        form = {"grant_type": "client_credentials", "scope": "jobs:progress"}
        response = self._send("POST", "/v1/token", tries, data=form, auth=(self.user, password))
        response.raise_for_status()
        answer = response.json()
        life = max(float(answer["expires_in"]) - _EARLY_SECONDS, 0.0)
        return str(answer["access_token"]), time.monotonic() + life

    def _send(self, method: str, path: str, tries: int = TRIES, **request: Any) -> httpx.Response:
        for tried in range(1, tries + 1):
            try:
                response = self._http.request(method, self.url + path, **request)
                if response.is_success or response.status_code in _REFUSED or tried == tries:
                    return response
            except httpx.TransportError:
                if tried == tries:
                    raise
            time.sleep(random.uniform(0, 0.25 * 2**tried))  # noqa: S311 - jitter
        raise AssertionError


def _trust(url: str) -> ssl.SSLContext:
    """Give the machine's trusted roots; nothing to load (and nothing trusted) for plain HTTP."""
    if url.startswith("https:"):
        return ssl.create_default_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _forget(url: str, user: str) -> None:
    with _tokens_lock:
        _tokens.pop((url, user), None)
