"""Faults put into a running process by ``strace``: a call fails, or the process dies at it."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.local import programs

CALL = re.compile(r"^(\d+) +((\w+)\(.*)$")
ATTACH_SECONDS = 0.15


@contextmanager
def traced(
    pid: int, log: Path, calls: str, injections: Sequence[str] = (), path: Path | None = None
) -> Iterator[None]:
    """Trace a process and all its threads.

    Parameters
    ----------
    calls
        Names of system calls, separated by commas.
    injections
        In strace's words, such as ``fsync:error=EIO:when=2``. It counts for each thread.
    path
        Only calls that have to do with this path, itself or as an open file.
    """
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    # It ends with the tests, also where those are killed, and what it holds goes on.
    argv = [programs.find("setpriv"), "--pdeathsig", "TERM", "--", strace]
    argv += ["-f", "-y", "-s", "400", "-e", f"trace={calls}", "-o", str(log)]
    for each in injections:
        argv += ["-e", f"inject={each}"]
    if path is not None:
        argv += ["-P", str(path)]
    process = subprocess.Popen([*argv, "-p", str(pid)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr as said:
        first = said.readline()
        if "ptrace" in first:
            process.wait()
            pytest.skip("this machine allows no ptrace")
        if "attached" not in first:
            process.kill()
            process.wait()
            pytest.fail(first)
        time.sleep(ATTACH_SECONDS)  # the threads are stopped and let go one by one
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=20)


def calls_in(log: Path) -> Iterator[tuple[str, str, str]]:
    """Yield each call that was begun: its thread, its name, and all of it."""
    for line in log.read_text(errors="replace").splitlines():
        found = CALL.match(line)
        if found is not None:
            yield found[1], found[3], found[2]


def last_call(log: Path) -> str:
    """Return the call at which a process died: name and arguments."""
    return [text for _, _, text in calls_in(log)][-1]
