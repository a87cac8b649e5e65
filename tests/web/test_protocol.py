"""The server's protocol, spoken to byte by byte."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.web.incoming import LENT_FROM_BYTES
from gateway.web.lending import BUFFER_BYTES
from tests.web.wired import Application, Connect, Wire, get, put, serving

NOISE = random.Random(7).randbytes(5 * BUFFER_BYTES + 3)
SIZES = (
    0,
    1,
    LENT_FROM_BYTES - 1,
    LENT_FROM_BYTES,
    LENT_FROM_BYTES + 1,
    BUFFER_BYTES - 1,
    BUFFER_BYTES,
    BUFFER_BYTES + 1,
    3 * BUFFER_BYTES,
    len(NOISE),
)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def application() -> Application:
    return Application()


@pytest.fixture(scope="module")
def port(application: Application) -> Iterator[int]:
    with serving(application, header_seconds=1.0) as found:
        yield found


@pytest.fixture
def connect(port: int, application: Application) -> Iterator[Connect]:
    application.seen.clear()
    opened: list[Wire] = []

    def one() -> Wire:
        opened.append(Wire(port))
        return opened[-1]

    yield one
    for wire in opened:
        wire.close()


def chunked(*pieces: bytes, path: str = "/f", trailers: bytes = b"") -> bytes:
    head = f"PUT {path} HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return head + body + b"0\r\n" + trailers + b"\r\n"


@pytest.mark.parametrize("path", ["/f", "/whole", "/keep"])
def test_bodies_of_all_sizes_arrive_whole_over_one_connection(connect: Connect, path: str) -> None:
    wire = connect()
    for size in SIZES:
        wire.send(put(NOISE[:size], path))
        status, headers, found = wire.answer()
        assert (status, found["size"], found["sha256"]) == (200, size, sha256(NOISE[:size]))
        assert "connection" not in headers
        wire.send(get(method="HEAD"))
        assert wire.head().startswith(b"HTTP/1.1 200 ")


def test_a_head_and_its_body_may_come_apart_anywhere(connect: Connect) -> None:
    whole = put(NOISE)
    wire = connect()
    for cut in (1, 10, 60, 100, 70_000, BUFFER_BYTES, len(whole) - 1):
        wire.send(whole[:cut])
        time.sleep(0.05)
        wire.send(whole[cut:])
        assert wire.answer()[2]["sha256"] == sha256(NOISE)


def test_what_follows_a_large_body_at_once_is_the_next_request(connect: Connect) -> None:
    wire = connect()
    wire.send(put(NOISE) + get("/a") + put(b"x", "/b") + put(NOISE[1:], "/c") + get("/d"))
    found = [wire.answer()[2] for _ in range(5)]
    assert [each["path"] for each in found] == ["/f", "/a", "/b", "/c", "/d"]
    assert [each["size"] for each in found] == [len(NOISE), 0, 1, len(NOISE) - 1, 0]
    assert found[3]["sha256"] == sha256(NOISE[1:])


def test_a_body_one_byte_longer_than_announced_is_cut_there_and_the_rest_is_refused(
    connect: Connect, application: Application
) -> None:
    wire = connect()
    wire.send(put(NOISE + b"!", length=len(NOISE)))
    assert wire.answer()[2]["sha256"] == sha256(NOISE)
    wire.send(get("/never"))
    assert b"200" not in wire.rest()
    assert "/never" not in {each["path"] for each in application.seen}


def test_connection_close_is_honored_after_a_large_body(connect: Connect) -> None:
    wire = connect()
    wire.send(put(NOISE, "/f", "Connection: close"))
    status, headers, found = wire.answer()
    assert (status, headers["connection"], found["sha256"]) == (200, "close", sha256(NOISE))
    assert wire.is_at_end()


@pytest.mark.parametrize("sent", [1, LENT_FROM_BYTES, BUFFER_BYTES, 2 * BUFFER_BYTES + 5])
def test_a_sender_that_is_cut_off_is_noticed_after_all_it_sent(
    connect: Connect, application: Application, sent: int
) -> None:
    wire = connect()
    wire.send(put(NOISE[:sent], length=len(NOISE)))
    wire.close()
    assert eventually(lambda: application.seen[-1:] and application.seen[-1].get("is_cut"))
    assert application.seen[-1]["size"] == sent


@pytest.mark.parametrize("sent", [5, LENT_FROM_BYTES, BUFFER_BYTES + 70_000])
def test_what_came_is_handed_on_though_the_sender_pauses(
    connect: Connect, application: Application, sent: int
) -> None:
    wire = connect()
    wire.send(put(NOISE[:sent], length=len(NOISE)))
    assert eventually(lambda: application.seen[-1:] and application.seen[-1].get("size") == sent)
    wire.send(NOISE[sent : sent + 7])
    assert eventually(lambda: application.seen[-1]["size"] == sent + 7)
    wire.send(NOISE[sent + 7 :])
    assert wire.answer()[2]["sha256"] == sha256(NOISE)


def test_a_large_body_comes_in_full_buffers(connect: Connect) -> None:
    wire = connect()
    wire.send(put(NOISE * 8))
    found = wire.answer()[2]
    assert found["sha256"] == sha256(NOISE * 8)
    assert found["pieces"] <= len(NOISE) * 8 // BUFFER_BYTES + 20


def test_chunks_of_any_size_arrive_whole(connect: Connect) -> None:
    wire = connect()
    for pieces in (
        [NOISE],
        [NOISE[:9], NOISE[9:70_000], NOISE[70_000:]],
        [b"%d" % n for n in range(9999)],
    ):
        wire.send(chunked(*pieces))
        assert wire.answer()[2]["sha256"] == sha256(b"".join(pieces))


def test_trailers_are_passed_over(connect: Connect) -> None:
    wire = connect()
    wire.send(chunked(b"abc", trailers=b"Authorization: Bearer x\r\nHost: h\r\n") + get())
    assert wire.answer()[2]["size"] == 3
    assert wire.answer()[0] == 200


@pytest.mark.parametrize("start", [b"3;", b"0\r\nX: "])
def test_endless_extensions_and_trailers_are_refused(connect: Connect, start: bytes) -> None:
    wire = connect()
    wire.send(b"PUT /f HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n" + start)
    for _ in range(20):
        wire.send(b"a" * 10_000)
        time.sleep(0.01)
    status, _, problem = wire.answer()
    assert (status, problem["type"]) == (400, "/problems/malformed-request")


def test_a_sender_who_is_refused_while_it_sends_can_read_why(connect: Connect) -> None:
    for size in (1000, BUFFER_BYTES, 200 * 1024**2):
        wire = connect()
        wire.send(put(b"", "/refuse", length=size))
        block = b"x" * 65_536
        for _ in range(size // len(block)):
            wire.send(block)
        assert wire.answer()[0] == 401
        assert wire.is_at_end()


def test_an_answer_before_the_end_of_a_body_ends_the_connection(connect: Connect) -> None:
    for size in (LENT_FROM_BYTES // 2, 50 * BUFFER_BYTES):
        wire = connect()
        wire.send(put(b"x", "/first", length=size))
        assert wire.answer()[0] == 200
        wire.send(get())
        assert wire.is_at_end()


def test_who_goes_on_sending_after_its_refusal_is_not_listened_to_forever(
    connect: Connect,
) -> None:
    wire = connect()
    wire.send(put(b"", "/refuse", length=10**9))
    assert wire.answer()[0] == 401
    begun = time.monotonic()
    assert is_stopped(wire, b"x" * 10**6, 0)
    assert time.monotonic() < begun + 20
    silent = connect()
    silent.send(put(b"", "/refuse", length=10**9))
    assert silent.answer()[0] == 401
    time.sleep(3)
    assert is_stopped(silent, b"x", 0.1)


def test_nobody_is_told_to_continue_who_is_refused(connect: Connect) -> None:
    wire = connect()
    wire.send(put(b"", "/refuse", "Expect: 100-continue", length=len(NOISE)))
    assert wire.answer()[0] == 401
    wire = connect()
    wire.send(put(b"", "/f", "Expect: 100-continue", length=len(NOISE)))
    assert wire.head() == b"HTTP/1.1 100 Continue"
    wire.send(NOISE)
    assert wire.answer()[2]["sha256"] == sha256(NOISE)


@pytest.mark.parametrize("begun", [b"", b"G", b"GET /f HTTP/1.1\r\nHost: g\r\n", b"\r\n"])
def test_a_head_has_to_come_soon(connect: Connect, begun: bytes) -> None:
    wire = connect()
    started = time.monotonic()
    wire.send(begun)
    if begun:
        status, headers, problem = wire.answer()
        assert (status, headers["connection"]) == (408, "close")
        assert problem["type"] == "/problems/request-timeout"
    assert wire.is_at_end()
    assert 0.9 < time.monotonic() - started < 10


def test_a_head_that_trickles_in_is_not_waited_for(connect: Connect) -> None:
    for before in (b"", put(NOISE)):
        wire = connect()
        wire.send(before)
        if before:
            assert wire.answer()[0] == 200
        for letter in b"GET /abcdefg":
            wire.send(bytes([letter]))
            time.sleep(0.15)
        assert wire.answer()[0] == 408
        assert wire.is_at_end()


def test_a_head_is_refused_before_it_is_all_there(
    connect: Connect, application: Application
) -> None:
    wire = connect()
    wire.send(b"GET /f HTTP/1.1\r\nHost: g\r\n")
    for number in range(20):
        wire.send(b"X-%d: " % number + b"a" * 4000 + b"\r\n")
        time.sleep(0.01)
    status, headers, problem = wire.answer()
    assert (status, headers["connection"]) == (431, "close")
    assert problem["type"] == "/problems/headers-too-large"
    assert wire.is_at_end()
    assert application.seen == []


@pytest.mark.parametrize("content", [b"\x16\x03\x01\x02\x00", b"SSH-2.0-x\r\n", b"hello\r\n\r\n"])
def test_what_is_no_http_is_a_problem(connect: Connect, content: bytes) -> None:
    wire = connect()
    wire.send(content)
    status, headers, problem = wire.answer()
    assert (status, headers["connection"]) == (400, "close")
    assert headers["content-type"] == "application/problem+json"
    assert problem["request_id"] == headers["x-request-id"]
    assert wire.is_at_end()


def test_a_request_before_rubbish_is_answered(connect: Connect) -> None:
    for before in (get("/a"), put(NOISE, "/a")):
        wire = connect()
        wire.send(before + b"\0\0\0\r\n\r\n")
        assert wire.answer()[2]["path"] == "/a"


def test_an_upgrade_is_not_taken_and_ends_the_connection(
    connect: Connect, application: Application
) -> None:
    for upgrade in ("h2c", "websocket"):
        for request in (
            get("/a", "Connection: Upgrade", f"Upgrade: {upgrade}"),
            put(NOISE, "/a", "Connection: Upgrade", f"Upgrade: {upgrade}"),
        ):
            application.seen.clear()
            wire = connect()
            wire.send(request + get("/smuggled"))
            status, _, found = wire.answer()
            assert (status, found["path"]) == (200, "/a")
            wire.send(get("/b"))
    assert "/smuggled" not in {each["path"] for each in application.seen}


def is_stopped(wire: Wire, content: bytes, pause_seconds: float) -> bool:
    """Send the same again and again until the connection is reset."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            wire.send(content)
        except (ConnectionResetError, BrokenPipeError):
            return True
        time.sleep(pause_seconds)
    return False


def eventually(true: Any, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
