"""A server killed at any call to the operating system loses nothing and doubles nothing.

``strace`` kills it as the call begins. For each kind of call every position is tried: the first of
its kind, the second, and so on until a request comes through alive.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.faults.conftest import Check
from tests.faults.history import Client
from tests.faults.tracing import calls_in, last_call, traced
from tests.nursery import Nursery
from tests.parts import GatewayServer, serve

# Large enough for its room to be reserved beforehand, and for more than one buffer.
SMALL = b"id,note\n1,one\n"
CONTENT = SMALL * 90_000
CALLS = (
    "openat,mkdirat,flock,fallocate,ftruncate,writev,fsync,fdatasync,renameat2,unlinkat"
    ",copy_file_range,write,sendto"
)
# A server that dies at one of these has done what it has done before the next.
IDLE = re.compile(r'^sendto\(.*"Q[^"]{2,20}(SELECT|SET|BEGIN)')
AT_ONCE = 4
TRIES = 4
Act = Callable[[Client, str], object]


@dataclass
class Killing:
    """Has servers killed while they do one thing.

    Attributes
    ----------
    prepare
        Brings about what ``act`` needs, at a server that lives.
    act
        What a server is killed at. It is tried again where nobody is killed.
    is_done
        Says whether what was asked for has happened.
    died_at, died_after
        The calls at which servers died; those at which it had happened all the same.
    """

    bear: Callable[[], GatewayServer]
    client: Client
    directory: Path
    prepare: Act
    act: Act
    is_done: Callable[[Client, str], bool]
    died_at: list[str] = field(default_factory=list)
    died_after: list[str] = field(default_factory=list)
    positions: dict[tuple[str, int], str] = field(default_factory=dict)

    def everywhere(self) -> None:
        """Kill at every position of every kind of call, several servers at a time."""
        self._once("healthy", None)
        self.positions = worthwhile(self.directory / "healthy.strace")
        positions = sorted(self.positions)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(lambda each: self._once(f"{each[0]}-{each[1]}", each), positions):
                pass
        # It counts for each thread, and which of them does what is not always the same.
        assert len(self.died_at) >= 0.7 * len(positions)
        assert self.died_after

    def _once(self, name: str, position: tuple[str, int] | None) -> None:
        server = self.bear()
        dying = self.client.at(server.url)
        assert dying.ask("GET", "/v1/me").status_code == 200
        self.prepare(self.client, name)
        log = self.directory / f"{name}.strace"
        injections = [f"{position[0]}:signal=SIGKILL:when={position[1]}"] if position else []
        with traced(server.pid, log, position[0] if position else CALLS, injections):
            try:
                self.act(dying, name)
            except httpx.TransportError:
                server.process.wait()
                last = last_call(log)
                self.died_at.append(last)
                if self.is_done(self.client, name):
                    self.died_after.append(last)
        server.kill()
        self.act(self.client, name)

    def survived(self, *calls: str) -> list[str]:
        """Return those of these patterns that look like no call at which a server died.

        Ask only for calls of one thread: behind another's of the same number one is hidden. Where
        two threads have shared the work of one, its last calls had lower numbers: tried again.
        """
        for again in range(TRIES):
            for call in self._missing(calls):
                for kind, number in self._positions_of(call):
                    self._once(f"{kind}-{number}-again-{again}", (kind, number))
        return self._missing(calls)

    def _missing(self, calls: Sequence[str]) -> list[str]:
        return [call for call in calls if not any(re.search(call, each) for each in self.died_at)]

    def _positions_of(self, call: str) -> list[tuple[str, int]]:
        return [
            each for each, texts in self.positions.items() if re.search(call, texts, re.MULTILINE)
        ]


def worthwhile(log: Path) -> dict[tuple[str, int], str]:
    """Return the positions at which to kill: a kind of call and its number within a thread.

    With each the calls that stood there, a line for each thread.
    """
    found: dict[tuple[str, int], str] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for thread, name, text in calls_in(log):
        seen[thread, name] += 1
        if IDLE.match(text) is None:
            position = (name, seen[thread, name])
            found[position] = "\n".join([*found.get(position, "").splitlines(), text])
    return found


@pytest.fixture
def killing(
    nursery: Nursery, environment: dict[str, str], acme: Client, tmp_path: Path
) -> Callable[..., Killing]:
    """Return a function that prepares the killing of servers."""

    def bear() -> GatewayServer:
        return serve(nursery, environment, tmp_path)

    return lambda *acts: Killing(bear, acme, tmp_path, *acts)


class Batches:
    """Batches by the names of cases."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._places: dict[str, str] = {}

    def open(self, client: Client, name: str) -> None:
        self._ids[name] = client.batch(name)

    def open_with_file(self, client: Client, name: str) -> None:
        self.open(client, name)
        client.put(self._ids[name], "a.csv", SMALL)

    def put(self, client: Client, name: str) -> None:
        client.store(self._ids[name], "a.csv", CONTENT)

    def open_upload(self, client: Client, name: str) -> None:
        """Begin an upload of which the first half is there."""
        self.open(client, name)
        self._places[name] = client.create_upload(self._ids[name], "a.csv", CONTENT)
        half = CONTENT[: len(CONTENT) // 2]
        assert client.patch(self._places[name], 0, half).status_code == 204

    def finish_upload(self, client: Client, name: str) -> None:
        client.resume(self._places[name], self._ids[name], "a.csv", CONTENT)

    def is_stored(self, client: Client, name: str) -> bool:
        files = client.ask("GET", f"/v1/batches/{self._ids[name]}").json()["files"]
        return [each["state"] for each in files] == ["complete"]

    def seal(self, client: Client, name: str) -> None:
        answer = client.seal(self._ids[name])
        assert answer.status_code == 202, answer.text

    def is_sealed(self, client: Client, name: str) -> bool:
        state = client.ask("GET", f"/v1/batches/{self._ids[name]}").json()["state"]
        return bool(state == "sealed")

    def seal_all(self, client: Client) -> None:
        for name in self._ids:
            self.seal(client, name)


def test_a_server_killed_at_any_call_of_a_put(
    killing: Callable[..., Killing], acme: Client, check: Check
) -> None:
    batches = Batches()
    killed = killing(batches.open, batches.put, batches.is_stored)
    killed.everywhere()
    calls = (
        r"^flock\(.*LOCK_EX",
        r"^fallocate\(.*/\.parts/upl_",
        r"^writev\(.*/\.parts/upl_",
        r"^ftruncate\(.*/\.parts/upl_",
        r"^fsync\(.*/\.parts/upl_",
        r'^mkdirat\(.*"files"',
        r'^renameat2\(.*"upl_\w+".*"a\.csv", RENAME_NOREPLACE',
        r"^fsync\(.*/files>",
        r"^sendto\(.*COMMIT",
    )
    assert killed.survived(*calls) == []
    batches.seal_all(acme)
    assert check() == []


def test_a_server_killed_at_any_call_of_a_patch_that_finishes_an_upload(
    killing: Callable[..., Killing], acme: Client, check: Check
) -> None:
    batches = Batches()
    killed = killing(batches.open_upload, batches.finish_upload, batches.is_stored)
    killed.everywhere()
    calls = (
        r"^flock\(.*LOCK_EX\|LOCK_NB",
        r"^writev\(.*/\.parts/upl_",
        r"^fdatasync\(.*/\.parts/upl_",
        r"^fsync\(.*/\.parts/upl_",
        r'^renameat2\(.*"upl_\w+".*"a\.csv", RENAME_NOREPLACE',
        r"^fsync\(.*/files>",
        r"^sendto\(.*COMMIT",
    )
    assert killed.survived(*calls) == []
    batches.seal_all(acme)
    assert check() == []


def test_a_server_killed_at_any_call_of_a_seal(
    killing: Callable[..., Killing], check: Check
) -> None:
    batches = Batches()
    killed = killing(batches.open_with_file, batches.seal, batches.is_sealed)
    killed.everywhere()
    calls = (r"^sendto\(.*COMMIT",)
    assert killed.survived(*calls) == []
    assert check() == []
