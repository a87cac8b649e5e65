"""What a client did and was told, in its own words, on its own disk: what a checker believes.

One JSON object a line. Before a request goes out its intent is written (``status`` null); what was
answered is a second line. Every line is on the disk before the next thing happens.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

RETRIES = 20
TUS = {"Tus-Resumable": "1.0.0"}
STREAM = {**TUS, "Content-Type": "application/offset+octet-stream"}
STORED = frozenset({200, 201})


class History:
    """An append-only record; threads may share one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()

    def note(
        self, what: str, *, status: int | None = None, acknowledged: bool = False, **facts: Any
    ) -> None:
        """Write one line, durably.

        Parameters
        ----------
        what
            ``batch``, ``file``, ``offset``, ``seal``, ``delete`` or ``cancel``.
        status
            The answer's; None says that the request is about to be sent.
        acknowledged
            Whether the server took on what it was asked for.
        """
        line = {
            "what": what,
            "at": time.time(),
            "status": status,
            "acknowledged": acknowledged,
            **facts,
        }
        with self._lock:
            os.write(self._fd, json.dumps(line).encode() + b"\n")
            os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


@dataclass
class Client:
    """A client system that writes down what it does."""

    url: str
    headers: dict[str, str]
    history: History
    client: str = "acme"
    project: str = "flights"
    timeout: float = 30

    def at(self, url: str) -> Client:
        """Return the same client, at another server."""
        return replace(self, url=url)

    def ask(self, method: str, path: str, **named: Any) -> httpx.Response:
        headers = {**self.headers, **named.pop("headers", {})}
        # One connection each: a killed server must not be met twice. Each client would load the
        # machine's certificates first, which takes longer than what is asked here.
        with httpx.Client(timeout=self.timeout, verify=False) as speaker:
            return speaker.request(method, f"{self.url}{path}", headers=headers, **named)

    def batch(self, reference: str) -> str:
        facts = {"client": self.client, "project": self.project, "reference": reference}
        body = {"project": self.project, "reference": reference}
        answer = self.ask("POST", "/v1/batches", json=body)
        assert answer.status_code == 201, answer.text
        identity: str = answer.json()["id"]
        self.history.note("batch", status=201, acknowledged=True, batch=identity, **facts)
        return identity

    def put(
        self, batch: str, name: str, content: bytes, *, is_announced: bool = True, **headers: str
    ) -> httpx.Response:
        """Put; without its length where that is not announced."""
        facts = facts_of(batch, name, content)
        self.history.note("file", **facts)
        path = f"/v1/batches/{batch}/files/{quote(name, safe='')}"
        body = content if is_announced else iter([content])
        answer = self.ask("PUT", path, content=body, headers=headers)
        is_stored = answer.status_code in STORED
        self.history.note("file", status=answer.status_code, acknowledged=is_stored, **facts)
        if is_stored:
            assert answer.json()["sha256"] == facts["sha256"]
        return answer

    def create_upload(self, batch: str, name: str, content: bytes) -> str:
        """Begin a resumable upload (tus 1.0.0) and return its path."""
        facts = facts_of(batch, name, content)
        self.history.note("file", **facts)
        told = f"filename {_encoded(name)},sha256 {_encoded(facts['sha256'])}"
        headers = {**TUS, "Upload-Length": str(len(content)), "Upload-Metadata": told}
        for _ in range(RETRIES):
            answer = self.ask("POST", f"/v1/batches/{batch}/uploads", headers=headers)
            if answer.status_code == 201:
                return answer.headers["location"]
            assert answer.json()["retryable"], answer.text
            time.sleep(0.2)
        raise AssertionError(answer.text)

    def offset(self, place: str) -> int:
        """Ask how far an upload is."""
        answer = self.ask("HEAD", place, headers=TUS)
        assert answer.status_code == 200, answer.headers
        self._note_offset(place, answer)
        return int(answer.headers["upload-offset"])

    def patch(self, place: str, offset: int, piece: Any, **headers: str) -> httpx.Response:
        """Append."""
        stream = {**STREAM, "Upload-Offset": str(offset), **headers}
        answer = self.ask("PATCH", place, headers=stream, content=piece)
        if answer.status_code == 204:
            self._note_offset(place, answer)
        return answer

    def resume(self, place: str, batch: str, name: str, content: bytes) -> None:
        """Send what an upload lacks, as often as it takes, until the file is stored."""
        for _ in range(RETRIES):
            offset = self.offset(place)
            answer = self.patch(place, offset, content[offset:])
            if answer.status_code == 204 and self.offset(place) == len(content):
                facts = facts_of(batch, name, content)
                self.history.note("file", status=204, acknowledged=True, **facts)
                return
            assert answer.status_code == 204 or answer.json()["retryable"], answer.text
            time.sleep(0.2)
        raise AssertionError(answer.text)

    def _note_offset(self, place: str, answer: httpx.Response) -> None:
        told = {"upload": place.rsplit("/", 1)[1]}
        offset = int(answer.headers["upload-offset"])
        self.history.note(
            "offset", status=answer.status_code, acknowledged=True, offset_bytes=offset, **told
        )

    def seal(self, batch: str) -> httpx.Response:
        self.history.note("seal", batch=batch)
        answer = self.ask("POST", f"/v1/batches/{batch}/seal")
        is_sealed = answer.status_code == 202
        job = {"job": answer.json()["job"]["id"]} if is_sealed else {}
        self.history.note(
            "seal", status=answer.status_code, acknowledged=is_sealed, batch=batch, **job
        )
        return answer

    def delete(self, batch: str, name: str) -> httpx.Response:
        self.history.note("delete", batch=batch, name=name)
        answer = self.ask("DELETE", f"/v1/batches/{batch}/files/{quote(name, safe='')}")
        is_gone = answer.is_success
        self.history.note(
            "delete", status=answer.status_code, acknowledged=is_gone, batch=batch, name=name
        )
        return answer

    def store(self, batch: str, name: str, content: bytes) -> None:
        """Put until it is stored, as a client would: what may be tried again is."""
        for _ in range(RETRIES):
            answer = self.put(batch, name, content)
            if answer.status_code in STORED:
                return
            assert answer.json()["retryable"], answer.text
            time.sleep(0.2)
        raise AssertionError(answer.text)

    def deliver(self, batch: str, name: str, content: bytes) -> None:
        """Store and seal, however often it has been tried before."""
        self.store(batch, name, content)
        sealed = self.seal(batch)
        assert sealed.status_code == 202, sealed.text


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def facts_of(batch: str, name: str, content: bytes) -> dict[str, Any]:
    return {
        "batch": batch,
        "name": name,
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
