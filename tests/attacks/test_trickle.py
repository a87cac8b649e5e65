"""Bodies that come in crumbs, to hold a place for as long as it pleases."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from deploy.local.directory import Directory as DirectoryServer
from gateway.batches.model import Batch
from tests import factories
from tests.attacks import state
from tests.nursery import Nursery
from tests.parts import GatewayServer, serve
from tests.uploads.sending import signed_in

IDLE_SECONDS = 1.0


@pytest.fixture
def impatient(
    nursery: Nursery, environment: dict[str, str], tmp_path: Path
) -> Iterator[GatewayServer]:
    """A real server that waits for no sender."""
    changed = {**environment, "GATEWAY_SERVER_BODY_IDLE_SECONDS": str(IDLE_SECONDS)}
    started = serve(nursery, changed, tmp_path)
    yield started
    started.stop()


@pytest.fixture
def headers(
    impatient: GatewayServer, directory_server: DirectoryServer, sessions: sessionmaker[Session]
) -> dict[str, str]:
    factories.onboard_two(sessions)
    return signed_in(impatient, "acme-uploader", directory_server.passwords["acme-uploader"])


def opened(server: GatewayServer, headers: dict[str, str]) -> str:
    body = b'{"project": "flights", "reference": "r"}'
    head = {**headers, "Content-Type": "application/json", "Content-Length": str(len(body))}
    status, answer = dripped(server, "POST /v1/batches", head, itertools.repeat(body, 1), 0)
    assert status == 201
    identity: str = answer["id"]
    return identity


def dripped(
    server: GatewayServer,
    line: str,
    headers: dict[str, str],
    pieces: Iterator[bytes],
    pause_seconds: float,
) -> tuple[int, dict[str, Any]]:
    """Send pieces with pauses until there is an answer, and return it."""
    shown = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as wire:
        wire.sendall(f"{line} HTTP/1.1\r\nHost: g\r\n{shown}\r\n".encode())
        for piece in pieces:
            wire.sendall(piece)
            wire.settimeout(pause_seconds or 10)
            try:
                return _read(wire)
            except TimeoutError:
                continue
        wire.settimeout(10)
        return _read(wire)


def _read(wire: socket.socket) -> tuple[int, dict[str, Any]]:
    answer = wire.recv(65_536)
    wire.settimeout(10)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = next(
        int(each.split(b":")[1])
        for each in head.lower().split(b"\r\n")
        if each.startswith(b"content-length")
    )
    while len(body) < length:
        body += wire.recv(65_536)
    return int(answer.split()[1]), json.loads(body)


@pytest.mark.parametrize("door", ["POST /v1/batches", "POST /v1/submissions", "PUT file"])
def test_a_body_that_trickles_in_is_given_up_and_leaves_nothing(
    impatient: GatewayServer,
    headers: dict[str, str],
    sessions: sessionmaker[Session],
    environment: dict[str, str],
    door: str,
) -> None:
    batch = opened(impatient, headers)
    line = f"PUT /v1/batches/{batch}/files/a.csv" if door == "PUT file" else door
    media = {"POST /v1/submissions": "multipart/form-data; boundary=b"}
    head = {
        **headers,
        "Content-Type": media.get(door, "application/json"),
        # Long enough to be received without the parser, but for the door that takes little.
        "Content-Length": "100000" if door == "POST /v1/batches" else "10000000",
    }
    # Only the batch's version and time of change, and a day of no bytes, may tell that a file was
    # begun and given back.
    before = state.rows(sessions, without=("batch", "day_usage")), state.on_disk(environment)
    begun = time.monotonic()
    status, answer = dripped(impatient, line, head, itertools.repeat(b"\r\n", 25), 0.2)
    assert status == 408
    assert answer["type"] == "/problems/request-timeout"
    assert IDLE_SECONDS <= time.monotonic() - begun < 5 * IDLE_SECONDS
    assert (
        state.rows(sessions, without=("batch", "day_usage")),
        state.on_disk(environment),
    ) == before
    with sessions.begin() as session:
        (held,) = session.scalars(select(Batch)).all()
    assert (held.id, held.file_count, held.reserved_bytes) == (batch, 0, 0)


def test_a_slow_line_is_waited_for(
    impatient: GatewayServer, headers: dict[str, str], environment: dict[str, str]
) -> None:
    batch = opened(impatient, headers)
    pieces = [b"x" * 1000] * 10
    head = {**headers, "Content-Length": str(sum(map(len, pieces)))}
    begun = time.monotonic()
    status, answer = dripped(
        impatient, f"PUT /v1/batches/{batch}/files/a.csv", head, iter(pieces), 0.4
    )
    assert (status, answer["size_bytes"]) == (201, 10_000)
    assert time.monotonic() - begun > 2 * IDLE_SECONDS
    assert [size for name, size in state.on_disk(environment) if name.endswith("a.csv")] == [10_000]
