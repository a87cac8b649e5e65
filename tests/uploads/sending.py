"""A sender of files, in process or over a socket, and the books that must balance afterwards."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from gateway.audit import trail
from gateway.batches.model import Batch, File
from tests.parts import GatewayServer

CONTENT = b"id,note\n1,one\n"
OTHER = b"id,note\n2,two\n"
LIVE = ("open", "sealed")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def digest(content: bytes) -> str:
    encoded = base64.b64encode(hashlib.sha256(content).digest()).decode()
    return f"sha-256=:{encoded}:"


def address(batch: str, name: str) -> str:
    return f"/v1/batches/{batch}/files/{quote(name, safe='')}"


def slug(answer: Any) -> str:
    """Return a problem's slug, having looked at its form."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert body["status"] == answer.status_code
    assert {"title", "request_id", "retryable"} <= body.keys()
    found: str = body["type"].removeprefix("/problems/")
    return found


def eventually(true: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@dataclass
class Sender:
    """One account, and what it does."""

    speaker: TestClient | httpx.Client
    headers: dict[str, str]
    project: str = "flights"

    def batch(self, reference: str = "r", **fields: Any) -> str:
        body = {"project": self.project, "reference": reference, **fields}
        answer = self.speaker.post("/v1/batches", json=body, headers=self.headers)
        assert answer.status_code == 201, answer.text
        identity: str = answer.json()["id"]
        return identity

    def put(
        self, batch: str, name: str = "a.csv", content: Any = CONTENT, **headers: str
    ) -> httpx.Response:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        answer: Any = self.speaker.put(
            address(batch, name), content=content, headers={**self.headers, **named}
        )
        return answer

    def ask(self, method: str, path: str, **named: Any) -> httpx.Response:
        headers = {**self.headers, **named.pop("headers", {})}
        answer: Any = self.speaker.request(method, path, headers=headers, **named)
        return answer

    def get(self, batch: str, name: str = "a.csv", **headers: str) -> httpx.Response:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.ask("GET", f"{address(batch, name)}/content", headers=named)

    def seal(self, batch: str) -> httpx.Response:
        return self.ask("POST", f"/v1/batches/{batch}/seal")


def signed_in(server: GatewayServer, user: str, password: str) -> dict[str, str]:
    form = {"grant_type": "client_credentials"}
    answer = httpx.post(f"{server.url}/v1/token", data=form, auth=(user, password), verify=False)
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


@dataclass
class Line:
    """One connection, on which a request can be begun and cut."""

    port: int
    headers: dict[str, str]
    connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def begin(self, method: str, path: str, **headers: str) -> Line:
        self.connection.putrequest(method, path)
        for name, value in {**self.headers, **headers}.items():
            self.connection.putheader(name.replace("_", "-"), value)
        self.connection.endheaders()
        return self

    def send(self, content: bytes) -> None:
        self.connection.send(content)

    def chunk(self, content: bytes) -> None:
        self.connection.send(b"%x\r\n%s\r\n" % (len(content), content))

    def cut(self) -> None:
        self.connection.close()

    def answer(self) -> tuple[int, http.client.HTTPMessage, dict[str, Any]]:
        try:
            with self.connection.getresponse() as found:
                body = found.read()
        finally:
            self.connection.close()
        return found.status, found.headers, json.loads(body or b"{}")


@dataclass
class Books:
    """The ledger and the landing zone of one test."""

    sessions: sessionmaker[Session]
    root: Path

    def rows(self, batch: str) -> dict[str, str]:
        with self.sessions.begin() as session:
            query = select(File.name, File.state).where(File.batch_id == batch)
            return dict(session.execute(query).all())

    def of(self, batch: str) -> Batch:
        with self.sessions.begin() as session:
            return session.get_one(Batch, batch)

    def on_disk(self, batch: str) -> dict[str, bytes]:
        found = {}
        for place in self.root.glob(f"*/*/{batch}/files/*"):
            assert not place.is_symlink()
            found[place.name] = place.read_bytes()
        return found

    def parts(self) -> list[str]:
        return [each.name for each in (self.root / ".parts").iterdir()]

    def set_aside(self) -> list[bytes]:
        return [each.read_bytes() for each in (self.root / ".quarantine").iterdir()]

    def lying(self) -> list[str]:
        """Return everything that lies in the landing zone, whatever it is."""
        return [str(each) for each in self.root.rglob("*") if each.is_file()]

    def actions(self) -> list[str]:
        with self.sessions.begin() as session:
            return [each.action for each in trail.search(session, limit=1000)]

    def check(self) -> None:
        """Every count is the sum; every complete row has its bytes; nothing else lies about."""
        assert self.parts() == []
        with self.sessions.begin() as session:
            batches = session.scalars(select(Batch)).all()
            files = session.scalars(select(File)).all()
            assert trail.verify(session).broken_at is None
        for batch in batches:
            mine = [each for each in files if each.batch_id == batch.id]
            assert batch.file_count == len(mine)
            assert batch.reserved_bytes == sum(each.reserved_bytes for each in mine)
            stored = self.on_disk(batch.id)
            complete = {each.name: each for each in mine if each.state == "complete"}
            assert stored.keys() == complete.keys(), batch.state
            for name, content in stored.items():
                assert sha256(content) == complete[name].sha256
                assert len(content) == complete[name].size_bytes == complete[name].reserved_bytes
        received = sum(action == "file.received" for action in self.actions())
        assert received >= sum(each.state == "complete" for each in files)

    def check_nothing(self, batch: str) -> None:
        """See to it that a batch holds no file, no row, no room."""
        self.check()
        assert self.rows(batch) == {}
        assert self.on_disk(batch) == {}
        assert (self.of(batch).reserved_bytes, self.of(batch).file_count) == (0, 0)
