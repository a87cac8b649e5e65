"""The proxy does the harm it was told to do, and no other."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fakes.proxy import Plan, Proxy, running
from tests.parts import free_port


class Echo:
    """Answers ``got <n>`` when its client has said ``end``, and keeps what it was sent."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.received: list[bytes] = []
        self.ends: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        content = b""
        end = "FIN"
        with connection:
            try:
                while chunk := connection.recv(65536):
                    content += chunk
                    if content.endswith(b"end"):
                        connection.sendall(b"got %d" % len(content))
            except ConnectionResetError:
                end = "RST"
        self.received.append(content)
        self.ends.append(end)


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.listener.close()


@contextmanager
def connected(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as connection:
        yield connection


def until(server: Echo, count: int) -> None:
    deadline = time.monotonic() + 5
    while len(server.ends) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_without_a_plan_everything_passes_both_ways(echo: Echo) -> None:
    with running([echo.port]) as proxy, connected(proxy) as connection:
        connection.sendall(bytes(300_000) + b"end")
        assert connection.recv(100) == b"got 300003"
    assert proxy.acted == []


def test_a_cut_passes_just_so_many_bytes_and_ends_in_order(echo: Echo) -> None:
    plan = Plan("cut", after_bytes=1000)
    with running([echo.port], plan) as proxy:
        with connected(proxy) as connection:
            connection.sendall(bytes(5000))
            assert connection.recv(100) == b""
        until(echo, 1)
        assert (len(echo.received[0]), echo.ends) == (1000, ["FIN"])
        assert proxy.acted == [plan]
        with connected(proxy) as connection:  # only the first connection had a plan
            connection.sendall(b"end")
            assert connection.recv(100) == b"got 3"


def test_an_answer_can_be_cut_too(echo: Echo) -> None:
    plan = Plan("cut", after_bytes=2, way="down")
    with running([echo.port], plan) as proxy, connected(proxy) as connection:
        connection.sendall(b"end")
        assert connection.recv(100) == b"go"
        assert connection.recv(100) == b""


def test_a_reset_is_a_reset_on_both_sides(echo: Echo) -> None:
    with running([echo.port], Plan("reset", after_bytes=1000)) as proxy:
        with connected(proxy) as connection:
            connection.sendall(bytes(1000))
            with pytest.raises(ConnectionResetError):
                connection.recv(100)
        until(echo, 1)
    assert echo.ends == ["RST"]


def test_a_stalled_connection_says_nothing_to_either_side(echo: Echo) -> None:
    with running([echo.port], Plan("stall", after_bytes=10)) as proxy:
        with connected(proxy) as connection:
            connection.sendall(bytes(20))
            connection.settimeout(0.3)
            with pytest.raises(TimeoutError):
                connection.recv(100)
        time.sleep(0.2)
        assert echo.ends == []  # that the client has gone is not heard either
    until(echo, 1)
    assert echo.received == [bytes(10)]


def test_a_stall_can_end_for_the_client_alone(echo: Echo) -> None:
    plan = Plan("stall", after_bytes=10, stall_seconds=0.2)
    with running([echo.port], plan) as proxy, connected(proxy) as connection:
        connection.sendall(bytes(10))
        with pytest.raises(ConnectionResetError):
            connection.recv(100)
        assert echo.ends == []


def test_only_answers_to_large_requests_are_acted_on(echo: Echo) -> None:
    plan = Plan("drop_answer", after_bytes=1000)
    with running([echo.port], plan) as proxy, connected(proxy) as connection:
        connection.sendall(b"end")
        assert connection.recv(100) == b"got 3"
        connection.sendall(bytes(1000) + b"end")
        assert connection.recv(100) == b""


def test_an_answer_that_is_dropped_was_given(echo: Echo) -> None:
    with running([echo.port], Plan("drop_answer")) as proxy:
        with connected(proxy) as connection:
            connection.sendall(b"the request, to its end")
            assert connection.recv(100) == b""
        until(echo, 1)
    assert echo.received == [b"the request, to its end"]


def test_a_duplicate_is_sent_on_a_second_connection(echo: Echo) -> None:
    with running([echo.port], Plan("duplicate")) as proxy:
        with connected(proxy) as connection:
            connection.sendall(b"once, end")
            assert connection.recv(100) == b"got 9"
        until(echo, 2)
        assert echo.received == [b"once, end"] * 2
        assert proxy.duplicates == [b"got 9"]


def test_throttle_and_delay_take_their_time(echo: Echo) -> None:
    slow, late = Plan(bytes_per_second=100_000), Plan(delay_seconds=0.2)
    with running([echo.port], slow, late) as proxy:
        for size in (30_000, 10):
            began = time.monotonic()
            with connected(proxy) as connection:
                connection.sendall(bytes(size) + b"end")
                connection.recv(100)
            assert 0.25 < time.monotonic() - began < 3


def test_connections_take_turns_among_servers(echo: Echo) -> None:
    other = Echo()
    with running([echo.port, other.port]) as proxy:
        for _ in range(4):
            with connected(proxy) as connection:
                connection.sendall(b"end")
                connection.recv(100)
        until(echo, 2)
        until(other, 2)
    other.listener.close()


def test_a_server_that_is_gone_looks_like_a_connection_that_ends() -> None:
    with running([free_port()]) as proxy, connected(proxy) as connection:
        assert connection.recv(100) == b""
