"""Keeps a loaded gateway at hand: each process of it costs a fork, not seconds of imports.

``python -m tests.nursery`` reads a line of JSON for each thing that is asked and answers with one.
A process born here runs what ``python -m <program> <arguments …>`` runs, in its own environment and
to its own end. None outlives the nursery, and the nursery does not outlive who asks it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn._subprocess

REPOSITORY = Path(__file__).parent.parent
PR_SET_PDEATHSIG = 1
GATEWAY = "gateway.__main__"
POLL_SECONDS = 0.02
# What processes born here are made of, down to what they would import late.
MADE_OF = (
    "gateway.app",
    "gateway.__main__",
    "gateway.dispatch.airflow_api",
    "gateway.web.protocol",
    "gateway.worker",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.httptools_impl",
    "tests.faults.checker",
    "tests.faults.crashing",
)


class Child:
    """A process born here, with what ``subprocess.Popen`` would say of it."""

    def __init__(self, pid: int, nursery: Nursery) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._nursery = nursery

    def poll(self) -> int | None:
        """Return how it ended, or None."""
        if self.returncode is None:
            self.returncode = self._nursery.ask(ended=self.pid)
        return self.returncode

    def wait(self, timeout: float = 60) -> int:
        """Return how it ended, once it has."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(POLL_SECONDS)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Signal it, unless it is known to have ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """Where processes are born, and who keeps account of those born for one test."""

    def __init__(self, process: subprocess.Popen[str], lock: threading.Lock) -> None:
        self._process = process
        self._lock = lock
        self._born: list[Child] = []

    @contextmanager
    def brood(self) -> Iterator[Nursery]:
        """Keep a list of one's own; whoever of it is left at the end of the block is killed."""
        mine = Nursery(self._process, self._lock)
        try:
            yield mine
        finally:
            for child in mine._born:
                child.kill()
                child.wait()

    def start(
        self,
        arguments: Sequence[str],
        environment: dict[str, str],
        output: Path,
        *,
        errors: Path | None = None,
        program: str = GATEWAY,
    ) -> Child:
        """Start a process.

        Parameters
        ----------
        environment
            What it has besides what this process has.
        output, errors
            Files that it appends to; without ``errors``, both to the first.
        program
            A module whose ``main`` is run.
        """
        wanted = {
            "variables": {**os.environ, **environment},
            "arguments": list(arguments),
            "output": str(output),
            "errors": str(errors or output),
            "program": program,
        }
        child = Child(self.ask(**wanted), self)
        self._born.append(child)
        return child

    def run(
        self, arguments: Sequence[str], environment: dict[str, str], *, program: str = GATEWAY
    ) -> subprocess.CompletedProcess[str]:
        """Run a process to its end, which is to come within a minute."""
        with tempfile.TemporaryDirectory() as place, self.brood() as mine:
            output, errors = Path(place, "output"), Path(place, "errors")
            child = mine.start(arguments, environment, output, errors=errors, program=program)
            code = child.wait()
            texts = (output.read_text(), errors.read_text())
        return subprocess.CompletedProcess(list(arguments), code, *texts)

    def ask(self, **question: Any) -> Any:
        """Have one question answered."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with self._lock:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())


@contextmanager
def opened(log: Path) -> Iterator[Nursery]:
    """Keep a nursery for as long as the block lasts."""
    with log.open("wb") as complaints:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )
        try:
            with Nursery(process, threading.Lock()).brood() as nursery:
                yield nursery
        finally:
            process.communicate()


def main() -> None:
    """Answer until there is nobody left to ask."""
    _load()
    parent = os.getpid()
    for line in sys.stdin:
        question = json.loads(line)
        if "ended" in question:
            answer = _end_of(question["ended"])
        else:
            answer = os.fork()
            if answer == 0:
                _become(question, parent)
                return
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _load() -> None:
    for name in MADE_OF:
        importlib.import_module(name)
    # A server's second process is a fork, too.
    uvicorn._subprocess.spawn = multiprocessing.get_context("fork")  # type: ignore[assignment]
    gc.collect()
    gc.freeze()  # what is never looked at again stays shared


def _end_of(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _become(wanted: dict[str, Any], parent: int) -> None:
    """Run a program as if it had just been started; its end is this process's end."""
    _die_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    os.register_at_fork(after_in_child=_die_with_parent)
    places = (os.devnull, wanted["output"], wanted["errors"])
    flags = (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT | os.O_APPEND] * 2)
    for number, (place, flag) in enumerate(zip(places, flags, strict=True)):
        fd = os.open(place, flag, 0o644)
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(wanted["variables"])
    module = importlib.import_module(wanted["program"])
    sys.modules["__main__"] = module
    sys.argv = [str(module.__file__), *wanted["arguments"]]
    sys.exit(module.main())


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
