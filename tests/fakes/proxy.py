"""A TCP proxy that does harm: between a client and a server, a plan for each connection.

It knows nothing of what is spoken, except where a plan waits for the answer: that is whatever
comes back. Counts are bytes of the stream, from its beginning.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Way = Literal["up", "down"]
CHUNK_BYTES = 64 * 1024
LINGER_NOT = struct.pack("ii", 1, 0)
TURN_SECONDS = 0.05
ON_ANSWER = ("drop_answer", "duplicate")


@dataclass(frozen=True)
class Plan:
    """What happens to one connection.

    Attributes
    ----------
    act
        ``pass`` lets everything through. Once ``after_bytes`` went ``way``, ``cut`` ends the
        connection with a FIN on both sides, ``reset`` with an RST, and ``stall`` passes nothing
        more either way, as a black hole does: the server never hears of it. Once a request had
        ``after_bytes``, ``drop_answer`` ends the connection when its answer begins, which nobody
        sees, and ``duplicate`` sends it once more then, on a connection of its own: of requests
        with ``marker`` in them, after ``skipped`` such.
    way
        ``up``: counted is what the client sends; ``down``: what the server sends.
    bytes_per_second
        Each way; None is unlimited.
    delay_seconds
        Before each chunk is passed on.
    stall_seconds
        After so long the client's side of a stalled connection is reset.
    """

    act: Literal["pass", "cut", "reset", "stall", "drop_answer", "duplicate"] = "pass"
    after_bytes: int = 0
    way: Way = "up"
    bytes_per_second: int | None = None
    delay_seconds: float = 0.0
    stall_seconds: float = math.inf
    marker: bytes = b""
    skipped: int = 0


PASS = Plan()


@dataclass
class Proxy:
    """A running proxy.

    Attributes
    ----------
    targets
        Ports of servers: connections take turns among them.
    plans
        For the connections to come, one each; those after the last are passed.
    """

    targets: list[int]
    plans: list[Plan] = field(default_factory=list)
    port: int = 0
    connections: int = 0
    acted: list[Plan] = field(default_factory=list)
    duplicates: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        self.port = self._listener.getsockname()[1]
        self._is_closed = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def plan(self, *plans: Plan) -> None:
        """Say what happens to the next connections."""
        self.plans.extend(plans)

    def close(self) -> None:
        """End every connection."""
        self._is_closed.set()
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=5)

    def _accept(self) -> None:
        self._listener.settimeout(TURN_SECONDS)
        while not self._is_closed.is_set():
            with contextlib.suppress(TimeoutError, OSError):
                client, _ = self._listener.accept()
                plan = self.plans.pop(0) if self.plans else PASS
                target = self.targets[self.connections % len(self.targets)]
                self.connections += 1
                thread = threading.Thread(
                    target=self._carry, args=(client, target, plan), daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def _carry(self, client: socket.socket, target: int, plan: Plan) -> None:
        with client:
            try:
                server = socket.create_connection(("127.0.0.1", target), timeout=10)
            except OSError:
                return  # nobody is there: what the client sees is a connection that ends
            with server:
                line = _Line(self, client, server, target, plan)
                with contextlib.suppress(OSError):
                    line.run(self._is_closed)


class _Line:
    """One client's connection and the server's."""

    def __init__(
        self,
        proxy: Proxy,
        client: socket.socket,
        server: socket.socket,
        target: int,
        plan: Plan,
    ) -> None:
        self._proxy = proxy
        self._ends: dict[Way, tuple[socket.socket, socket.socket]] = {
            "up": (client, server),
            "down": (server, client),
        }
        for each in (client, server):
            each.settimeout(30)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._target = target
        self._plan = plan
        self._passed: dict[Way, int] = {"up": 0, "down": 0}
        self._request = bytearray()
        self._matched = 0

    def run(self, is_closed: threading.Event) -> None:
        """Pass bytes until either side ends, or the plan says so."""
        ways: dict[socket.socket, Way] = {ends[0]: way for way, ends in self._ends.items()}
        while ways and not is_closed.is_set():
            for source in select.select(list(ways), [], [], TURN_SECONDS)[0]:
                way = ways[source]
                wanted = self._wanted(way)
                chunk = source.recv(wanted) if wanted else b""
                if wanted and not chunk:
                    del ways[source]
                    self._half_close(way)
                    if way == "down":
                        return
                elif not self._pass(way, chunk):
                    self._end(is_closed)
                    return

    def _wanted(self, way: Way) -> int:
        """Return how many bytes may still go this way."""
        plan = self._plan
        if plan.act in {"cut", "reset", "stall"} and plan.way == way:
            return min(CHUNK_BYTES, plan.after_bytes - self._passed[way])
        return CHUNK_BYTES

    def _pass(self, way: Way, chunk: bytes) -> bool:
        """Pass a chunk on. False: the plan's moment has come."""
        plan = self._plan
        if way == "down" and self._is_answer_to_act_on():
            if plan.act == "drop_answer":
                return False
            self._proxy.acted.append(plan)
            request = bytes(self._request)
            threading.Thread(target=self._repeat, args=(request,), daemon=True).start()
        if plan.delay_seconds:
            time.sleep(plan.delay_seconds)
        if plan.bytes_per_second:
            time.sleep(len(chunk) / plan.bytes_per_second)
        self._ends[way][1].sendall(chunk)
        self._passed[way] += len(chunk)
        if way == "down":
            self._request.clear()
        elif plan.act in ON_ANSWER:
            self._request += chunk
        return self._wanted(way) > 0

    def _is_answer_to_act_on(self) -> bool:
        plan, request = self._plan, self._request
        if plan.act not in ON_ANSWER or not request or plan.marker not in request:
            return False
        if len(request) < plan.after_bytes:
            return False
        self._matched += 1
        return self._matched == plan.skipped + 1

    def _half_close(self, way: Way) -> None:
        with contextlib.suppress(OSError):
            self._ends[way][1].shutdown(socket.SHUT_WR)

    def _end(self, is_closed: threading.Event) -> None:
        self._proxy.acted.append(self._plan)
        client, server = self._ends["up"]
        if self._plan.act == "stall":
            patience = time.monotonic() + self._plan.stall_seconds
            while time.monotonic() < patience and not (is_closed.is_set() or _has_ended(client)):
                time.sleep(TURN_SECONDS)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            client.close()
            is_closed.wait()  # whoever is behind a black hole hears nothing
        elif self._plan.act == "reset":
            for each in (client, server):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        else:
            for way in self._ends:
                self._half_close(way)
            _drain(client)

    def _repeat(self, request: bytes) -> None:
        with contextlib.suppress(OSError):
            again = socket.create_connection(("127.0.0.1", self._target), timeout=10)
            with again:
                again.sendall(request)
                self._proxy.duplicates.append(again.recv(CHUNK_BYTES))


def _drain(connection: socket.socket) -> None:
    """Take what still comes: bytes left unread would turn a FIN into an RST."""
    connection.settimeout(2)
    with contextlib.suppress(OSError):
        while connection.recv(CHUNK_BYTES):
            pass


def _has_ended(connection: socket.socket) -> bool:
    """Say whether the other side has closed, or broken, its connection; nothing is taken from it."""
    poller = select.poll()
    poller.register(connection, select.POLLRDHUP)
    return bool(poller.poll(0))


@contextmanager
def running(targets: Sequence[int], *plans: Plan) -> Iterator[Proxy]:
    """Run a proxy for as long as the block lasts."""
    proxy = Proxy(list(targets), list(plans))
    try:
        yield proxy
    finally:
        proxy.close()
