"""Requests that two readers could read differently, at the real server: refused, never served."""

from __future__ import annotations

import socket

import pytest
from sqlalchemy.orm import Session, sessionmaker

from deploy.local.directory import Directory as DirectoryServer
from tests import factories
from tests.attacks import state
from tests.parts import GatewayServer
from tests.uploads.sending import signed_in
from tests.web.wired import Wire

BODY = '{"project": "flights", "reference": "r"}'
SMUGGLED = "GET /v1/me HTTP/1.1\r\nHost: g\r\n\r\n"
JSON = "Content-Type: application/json\r\n"
POST = "POST /v1/batches HTTP/1.1\r\nHost: g\r\n{auth}" + JSON
# What is sent, and the one status that comes back.
REQUESTS: dict[str, tuple[str, int]] = {
    "a length and chunks": (
        POST + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        400,
    ),
    "two lengths": (POST + f"Content-Length: 0\r\nContent-Length: 40\r\n\r\n{BODY}", 400),
    "a list of lengths": (POST + f"Content-Length: 40, 40\r\n\r\n{BODY}", 400),
    "a signed length": (POST + f"Content-Length: +40\r\n\r\n{BODY}", 400),
    "a negative length": (POST + f"Content-Length: -1\r\n\r\n{BODY}", 400),
    "a hexadecimal length": (POST + f"Content-Length: 0x28\r\n\r\n{BODY}", 400),
    "a length beyond all": (POST + f"Content-Length: {'9' * 30}\r\n\r\n{BODY}", 400),
    "an unknown coding": (POST + f"Transfer-Encoding: xchunked\r\n\r\n{BODY}", 400),
    "chunks not last": (POST + f"Transfer-Encoding: chunked, identity\r\n\r\n{BODY}", 400),
    "a chunk without a size": (POST + "Transfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n", 400),
    "a folded header": (POST + "X: a\r\n b\r\n\r\n", 400),
    "a space before the colon": ("GET /v1/me HTTP/1.1\r\nHost : g\r\n{auth}\r\n", 400),
    "bare line feeds": ("GET /v1/me HTTP/1.1\nHost: g\n\n", 400),
    "a NUL in a header": ("GET /v1/me HTTP/1.1\r\nHost: g\r\nX: a\0b\r\n{auth}\r\n", 400),
    "an endless address": ("GET /v1/batches?x=" + "a" * 200_000 + " HTTP/1.1\r\n\r\n", 431),
    "raw bytes in the address": ("GET /v1/batches/\xff HTTP/1.1\r\nHost: g\r\n\r\n", 400),
    "two hosts": ("GET /v1/me HTTP/1.1\r\nHost: g\r\nHost: h\r\n{auth}\r\n", 422),
    "no host": ("GET /v1/me HTTP/1.0\r\n{auth}\r\n", 422),
    "two credentials": ("GET /v1/me HTTP/1.1\r\nHost: g\r\n{auth}{auth}\r\n", 422),
    "large headers": ("GET /v1/me HTTP/1.1\r\nHost: g\r\nX: " + "a" * 40_000 + "\r\n\r\n", 431),
    "many headers": ("GET /v1/me HTTP/1.1\r\nHost: g\r\n" + "X: a\r\n" * 101 + "\r\n", 431),
    "another method by a header": (
        "GET /v1/batches/x HTTP/1.1\r\nHost: g\r\n{auth}X-HTTP-Method-Override: DELETE\r\n\r\n",
        404,
    ),
    "a method nobody knows": ("FOO /v1/me HTTP/1.1\r\nHost: g\r\n{auth}\r\n", 400),
    "a trace": ("TRACE /v1/me HTTP/1.1\r\nHost: g\r\n{auth}\r\n", 405),
}


def spoken(port: int, request: str) -> bytes:
    """Send a request, say that no more comes, and return all that is answered."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as wire:
        wire.sendall(request.encode("latin-1"))
        wire.settimeout(1)
        try:
            while more := wire.recv(65_536):
                answer += more
        except (TimeoutError, ConnectionResetError):
            pass
    return answer


@pytest.fixture
def auth(
    server: GatewayServer, directory_server: DirectoryServer, sessions: sessionmaker[Session]
) -> str:
    factories.onboard_two(sessions)
    password = directory_server.passwords["acme-uploader"]
    return f"Authorization: {signed_in(server, 'acme-uploader', password)['Authorization']}\r\n"


def test_no_ambiguous_request_is_served(
    server: GatewayServer, auth: str, sessions: sessionmaker[Session]
) -> None:
    before = state.rows(sessions)
    for kind, (request, status) in REQUESTS.items():
        answer = spoken(server.port, request.replace("{auth}", auth))
        # An address too long for the parser is refused as such where it arrives in one piece.
        expected = {status, 400} if kind == "an endless address" else {status}
        assert int(answer.split(b" ")[1]) in expected, (kind, answer)
        assert answer.count(b"HTTP/1.1 ") == 1, (kind, answer)
        assert auth.rsplit(maxsplit=1)[-1].encode() not in answer
    assert state.rows(sessions) == before


def test_no_ambiguous_request_is_served_after_a_large_body(
    server: GatewayServer, auth: str, sessions: sessionmaker[Session]
) -> None:
    batch, large = opened(server, auth), b"x" * 3_000_000
    target = f"/v1/batches/{batch}/files/a.csv"
    head = f"PUT {target} HTTP/1.1\r\nHost: g\r\n{auth}Content-Length: {len(large)}\r\n\r\n"
    first = head.encode() + large
    with Wire(server.port) as wire:
        wire.send(first)
        assert wire.answer()[0] == 201
    before = state.rows(sessions)
    for kind, (request, status) in REQUESTS.items():
        with Wire(server.port) as wire:
            wire.send(first)
            assert wire.answer()[0] == 200
            wire.send(request.replace("{auth}", auth).encode("latin-1"))
            expected = {status, 400} if kind == "an endless address" else {status}
            assert wire.answer()[0] in expected, kind
            assert b"HTTP/1.1 " not in wire.rest(), kind
    assert state.rows(sessions) == before


def test_requests_that_follow_a_large_body_at_once_are_each_answered_in_turn(
    server: GatewayServer, auth: str
) -> None:
    batch, large = opened(server, auth), b"x" * 3_000_000
    target = f"/v1/batches/{batch}/files/"
    head = f" HTTP/1.1\r\nHost: g\r\n{auth}"
    length = f"Content-Length: {len(large)}\r\n\r\n"
    with Wire(server.port) as wire:
        wire.send(
            f"PUT {target}a{head}{length}".encode()
            + large
            + f"GET {target}a{head}\r\nPUT {target}b{head}{length}".encode()
            + large
            + f"GET /v1/me{head}\r\nGET {target}b{head}\r\n".encode()
        )
        answers = [wire.answer() for _ in range(5)]
    assert [status for status, _, _ in answers] == [201, 200, 201, 200, 200]
    assert [body.get("name") for _, _, body in answers] == ["a", "a", "b", None, "b"]


def opened(server: GatewayServer, auth: str) -> str:
    with Wire(server.port) as wire:
        wire.send((POST.format(auth=auth) + f"Content-Length: {len(BODY)}\r\n\r\n{BODY}").encode())
        status, _, body = wire.answer()
    assert status == 201
    identity: str = body["id"]
    return identity
