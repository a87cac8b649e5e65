"""Drives independent tus clients as their users do, and looks at what became of their files."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import httpx
import requests
from tusclient import exceptions
from tusclient.client import TusClient

from tests.fakes.proxy import Proxy
from tests.faults.history import Client

DRIVER = Path(__file__).with_name("upload.mjs")
MIB = 1024**2
FAILURES = (exceptions.TusCommunicationError, requests.RequestException)
# What is a file's own; everything else is the same, however it came.
OWN = {"name", "size_bytes", "sha256", "media_type", "created_at", "completed_at"}
OWN |= {"received_bytes", "verified_bytes"}


@dataclass(frozen=True)
class Sent:
    """A file on the sender's disk."""

    path: Path
    size_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        return self.path.name


def written(path: Path, size_bytes: int) -> Sent:
    """Write a file whose mebibytes all differ."""
    digest, block = hashlib.sha256(), os.urandom(MIB)
    with path.open("wb") as file:
        for start in range(0, size_bytes, MIB):
            piece = (start.to_bytes(8, "big") + block[8:])[: size_bytes - start]
            digest.update(piece)
            file.write(piece)
    return Sent(path, size_bytes, digest.hexdigest())


class Uploading(Protocol):
    """A tus client: sends a file, trying again as it sees fit."""

    def send(
        self, endpoint: str, headers: dict[str, str], file: Sent, **options: Any
    ) -> dict[str, Any]:
        """Return ``outcome``: ``success`` or ``error``, and ``url``."""


class TusPy:
    """tuspy: a connection for each request, and pauses of whole chunks."""

    def send(
        self, endpoint: str, headers: dict[str, str], file: Sent, **options: Any
    ) -> dict[str, Any]:
        with file.path.open("rb") as stream:
            return self._sent(endpoint, headers, stream, file, options)

    def _sent(
        self,
        endpoint: str,
        headers: dict[str, str],
        stream: IO[bytes],
        file: Sent,
        options: dict[str, Any],
    ) -> dict[str, Any]:
        uploader = TusClient(endpoint, headers=headers).uploader(
            file_stream=stream,
            chunk_size=options.get("chunk_bytes", file.size_bytes),
            metadata={"filename": file.name, "sha256": file.sha256},
            retries=options.get("retries", 20),
            retry_delay=0.3,  # type: ignore[arg-type]
            upload_checksum=options.get("checksum", False),
        )
        try:
            uploader.upload()
        except FAILURES as error:
            status = getattr(error, "status_code", None)
            return {"outcome": "error", "status": status, "url": uploader.url}
        return {"outcome": "success", "url": uploader.url}


@dataclass(frozen=True)
class TusJs:
    """tus-js-client: one connection kept alive, and its own idea of when to try again."""

    node: Path
    packages: Path

    def send(
        self, endpoint: str, headers: dict[str, str], file: Sent, **options: Any
    ) -> dict[str, Any]:
        wanted = {
            "path": str(file.path),
            "endpoint": endpoint,
            "headers": headers,
            "metadata": {"filename": file.name, "sha256": file.sha256},
            "chunkSize": options.get("chunk_bytes"),
            "retryDelays": [300] * options.get("retries", 20),
            **options.get("javascript", {}),
        }
        given = json.dumps({name: value for name, value in wanted.items() if value is not None})
        done = subprocess.run(
            [self.node, DRIVER, given],
            cwd=self.packages,
            capture_output=True,
            text=True,
            check=False,
            timeout=options.get("timeout", 60),
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


@dataclass
class Delivery:
    """One batch, what is sent to it, and what must hold afterwards."""

    client: Client
    proxy: Proxy
    batch: str
    directory: Path

    @property
    def endpoint(self) -> str:
        return f"{self.proxy.url}/v1/batches/{self.batch}/uploads"

    def file(self, name: str = "a.bin", size_bytes: int = 3 * MIB + 7) -> Sent:
        return written(self.directory / name, size_bytes)

    def send(self, sender: Uploading, file: Sent, **options: Any) -> dict[str, Any]:
        """Send a file, and write down what was meant and what became of it."""
        facts = {"batch": self.batch, "name": file.name, "size_bytes": file.size_bytes}
        facts["sha256"] = file.sha256
        self.client.history.note("file", **facts)
        result = sender.send(self.endpoint, self.client.headers, file, **options)
        is_stored = result["outcome"] == "success"
        status = 204 if is_stored else 0
        self.client.history.note("file", status=status, acknowledged=is_stored, **facts)
        return result

    def check_stored(self, file: Sent) -> None:
        """See to it that the file is shown as one that was PUT is."""
        shown = self.client.ask("GET", f"/v1/batches/{self.batch}/files/{file.name}")
        assert shown.status_code == 200, shown.text
        assert (shown.json()["size_bytes"], shown.json()["sha256"]) == (
            file.size_bytes,
            file.sha256,
        )
        self.client.put(self.batch, "put.bin", b"put").raise_for_status()
        put = self.client.ask("GET", f"/v1/batches/{self.batch}/files/put.bin")
        assert _form(shown) == _form(put), (shown.text, put.text)


def _form(answer: httpx.Response) -> tuple[set[str], dict[str, Any]]:
    document = answer.json()
    return set(answer.headers), {name: document[name] for name in document.keys() - OWN}
