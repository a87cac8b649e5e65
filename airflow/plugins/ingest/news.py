"""Tells the gateway that a run has changed, the moment the scheduler knows.

The scheduler only puts a few words into a bounded queue; a thread of its own carries them. Nothing
is repeated: the gateway looks after every run by itself, this makes it look at once.
"""

from __future__ import annotations

import logging
import os
import queue
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from ingest.bearer import Bearer

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT = httpx.Timeout(5.0, connect=2.0)
MOST_WAITING = 1000
PAUSE_SECONDS = 1.0
RUN_PREFIX = "gw."

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class News:
    """A run of the gateway's, and the state it has come to."""

    dag_id: str
    run_id: str
    state: str

    @property
    def job_id(self) -> str:
        """Return the job that the run is for."""
        return self.run_id.removeprefix(RUN_PREFIX)


class Teller:
    """Carries news to the gateway, with the deployment's own account.

    Parameters
    ----------
    url
        The gateway's.
    user, password_file
        The account that reports progress.
    """

    def __init__(self, url: str, user: str, password_file: str) -> None:
        self._url = url
        self._account = (user, Path(password_file))
        self._http = self._connections()
        self._waiting: queue.Queue[News] = queue.Queue(MOST_WAITING)
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process: int | None = None
        self._bearer = Bearer(self._signed_in)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Teller | None:
        """Read ``INGEST_GATEWAY_*``; None where the deployment names no account."""
        names = ("INGEST_GATEWAY_URL", "INGEST_GATEWAY_USER", "INGEST_GATEWAY_PASSWORD_FILE")
        found = [environ.get(name, "") for name in names]
        return cls(found[0].rstrip("/"), found[1], found[2]) if all(found) else None

    def tell(self, news: News) -> None:
        """Have it carried; never waits, and drops what there is no room for."""
        if not news.run_id.startswith(RUN_PREFIX):
            return
        try:
            self._waiting.put_nowait(news)
        except queue.Full:
            return
        self._ensure_thread()

    def _connections(self) -> httpx.Client:
        trust: Any = ssl.create_default_context() if self._url.startswith("https:") else True
        # Proxies of the environment are not asked: these calls stay inside the platform.
        return httpx.Client(base_url=self._url, timeout=TIMEOUT, trust_env=False, verify=trust)

    def _ensure_thread(self) -> None:
        # A process that was forked off has no thread, and must not share the connections.
        if self._process == os.getpid():
            return
        with self._starting:
            if self._process != os.getpid():
                if self._process is not None:
                    self._http = self._connections()
                self._process = os.getpid()
                self._thread = threading.Thread(target=self._carry, name="news", daemon=True)
                self._thread.start()

    def _carry(self) -> None:
        while True:
            news = self._waiting.get()
            try:
                self._send(news)
            except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
                # Only what kind: its text may hold what no log should.
                log.info("the gateway was not told of a run: %s", type(error).__name__)
                time.sleep(PAUSE_SECONDS)
                self._drop_old()

    def _drop_old(self) -> None:
        """Forget what waited while the gateway was away: it has long looked by itself."""
        while not self._waiting.empty():
            self._waiting.get_nowait()

    def _send(self, news: News) -> None:
        body = {"dag_id": news.dag_id, "run_id": news.run_id, "state": news.state}
        for _ in range(2):
            headers = self._bearer.headers()
            path = f"/v1/jobs/{news.job_id}/run"
            answer = self._http.post(path, json=body, headers=headers)
            if answer.status_code != httpx.codes.UNAUTHORIZED:
                break
            self._bearer.forget()
        if answer.is_server_error:
            answer.raise_for_status()

    def _signed_in(self) -> tuple[str, float]:
        user, file = self._account
        password = file.read_text(encoding="utf-8").rstrip("\r\n")
        form = {"grant_type": "client_credentials", "scope": "jobs:progress"}
        answer = self._http.post("/v1/token", data=form, auth=(user, password))
        answer.raise_for_status()
        said = answer.json()
        return str(said["access_token"]), float(said["expires_in"])
