"""Keeps a loaded gateway at hand: each server that is to die costs a fork, not seconds of imports.

``python -m tests.faults.nursery`` reads a line of JSON for each process wanted and prints its
number. A process born here runs what ``gateway <arguments …>`` runs, in its own environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.parts import REPOSITORY, free_port

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Born:
    """A gateway in a process of its own, which may be killed, stopped and traced."""

    pid: int
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_alive(self) -> bool:
        return psutil.pid_exists(self.pid)

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.send(signal.SIGKILL)
        self.wait()

    def stop(self) -> None:
        """End it in order."""
        self.send(signal.SIGTERM)
        self.wait()

    def wait(self, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while self.is_alive:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)


class Nursery:
    """Where gateways are born."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._born: list[Born] = []

    def bear(
        self,
        environment: dict[str, str],
        directory: Path,
        *,
        port: int | None = None,
        arguments: Sequence[str] = ("serve",),
    ) -> Born:
        """Start a gateway; a server is waited for until it answers."""
        port = port or free_port()
        log = directory / f"{arguments[0]}-{port}.log"
        variables = {**environment, "GATEWAY_SERVER_PORT": str(port)}
        wanted = {"variables": variables, "arguments": arguments, "log": str(log)}
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with self._lock:
            process.stdin.write(json.dumps(wanted) + "\n")
            process.stdin.flush()
            born = Born(int(process.stdout.readline()), port, log)
            self._born.append(born)
        if arguments[0] == "serve":
            _wait_until_alive(born)
        return born

    def empty(self) -> None:
        """End whoever is left."""
        for born in self._born:
            born.kill()
        self._born.clear()


def _wait_until_alive(born: Born) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert born.is_alive, born.log.read_text()
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{born.url}/healthz").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(born.log.read_text())


@contextmanager
def opened(log: Path) -> Iterator[Nursery]:
    """Keep a nursery for as long as the block lasts."""
    with log.open("wb") as complaints:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )
        nursery = Nursery(process)
        try:
            yield nursery
        finally:
            nursery.empty()
            process.communicate()


def main() -> None:
    """Bear children until there is nobody left to ask for them."""
    _load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are buried at once
    parent = os.getpid()
    for line in sys.stdin:
        wanted = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _live(wanted, parent)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _load() -> None:
    import httptools  # noqa: F401
    import uvicorn.lifespan.on
    import uvicorn.loops.uvloop
    import uvicorn.protocols.http.httptools_impl  # noqa: F401

    import gateway.app
    import gateway.cli
    import gateway.worker  # noqa: F401


def _live(wanted: dict[str, Any], parent: int) -> None:
    """Become a gateway."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if os.getppid() != parent:
        os._exit(1)
    output = os.open(wanted["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number, fd in enumerate((os.open(os.devnull, os.O_RDONLY), output, output)):
        os.dup2(fd, number)
    os.environ.update(wanted["variables"])
    sys.argv = ["gateway", *wanted["arguments"]]
    from gateway import cli

    try:
        cli.main()
    except BaseException:  # noqa: BLE001 - nothing of it may reach the loop above
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
