"""Runs the client's jobs so that rounds can be compared: same memory, empty disk queue."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from deploy.bench import client
from deploy.local import programs
from deploy.local.programs import ROOT, RUN_DIR, StackError

# Another disk may be measured: a folder of its own on it, which is emptied.
STORE = Path(os.environ.get("BENCH_STORE") or RUN_DIR / "bench-store")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the prepared file is read from memory
PREPARED = "gateway-bench-"
JOB_SECONDS = 600
# Of the memory that is free, so that touching it never makes the machine swap or kill.
TOUCHED_SHARE = 0.5
BLOCK_BYTES = 4 * 1024**2


class RunError(Exception):
    """A run did not do what it was to do; the text is one line."""


@dataclass
class Outcome:
    """What one run took.

    Attributes
    ----------
    client_cpu_seconds
        CPU time of the client's process, so that a bench which measures itself is noticed.
    """

    seconds: float
    client_cpu_seconds: float
    latencies: list[float] = field(default_factory=list)


@contextmanager
def prepared_file(size_bytes: int) -> Iterator[Path]:
    """Provide a file of random content, in memory where there is room for it."""
    has_room = SHARED_MEMORY.is_dir() and psutil.virtual_memory().available > 4 * size_bytes
    folder = SHARED_MEMORY if has_room else STORE
    for left in folder.glob(f"{PREPARED}*"):  # by a run that was killed
        if not psutil.pid_exists(int(left.name.removeprefix(PREPARED))):
            left.unlink()
    path = folder / f"{PREPARED}{os.getpid()}"
    try:
        with path.open("wb") as file:
            for _ in range(0, size_bytes, BLOCK_BYTES):
                file.write(os.urandom(BLOCK_BYTES))
            file.truncate(size_bytes)
        yield path
    finally:
        path.unlink(missing_ok=True)


def run(job: dict[str, Any], *, touch_bytes: int = 0) -> Outcome:
    """Run one of the client's jobs in a process of its own.

    Parameters
    ----------
    touch_bytes
        How much memory the run will need.

    Raises
    ------
    RunError
        A server refused, or the client failed otherwise.
    """
    settle(touch_bytes)
    return finish(start(job))


def start(job: dict[str, Any]) -> subprocess.Popen[str]:
    """Start a job without waiting for its end."""
    child = subprocess.Popen(
        [*programs.bound("KILL"), sys.executable, "-m", client.__name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert child.stdin is not None  # noqa: S101 - asked for above
    json.dump(job, child.stdin)
    child.stdin.close()
    child.stdin = None
    return child


def finish(child: subprocess.Popen[str]) -> Outcome:
    """Wait for a job's end.

    Raises
    ------
    RunError
        As ``run``.
    """
    try:
        out, errors = child.communicate(timeout=JOB_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        raise RunError(f"took longer than {JOB_SECONDS} s") from None
    if child.returncode != 0:
        raise RunError(programs.last_line(errors) or "the client failed")
    result = json.loads(out)
    return Outcome(result["seconds"], result["cpu_seconds"], result.get("latencies", []))


def settle(touch_bytes: int) -> None:
    """Bring the machine into the same state before each run.

    Notes
    -----
    What earlier runs have left to be written is written. A virtual machine that gave free pages
    back to its host gets them again now, not while the clock runs.
    """
    os.sync()
    size = min(touch_bytes, int(psutil.virtual_memory().available * TOUCHED_SHARE))
    if size > 0:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        mmap.mmap(-1, size, flags=flags).close()


def remove(place: Path) -> None:
    """Remove a file or a folder, and wait until the disk knows."""
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def require_same(source: Path, stored: Path, size_bytes: int) -> None:
    """See to it that a stored file is the prepared one.

    Raises
    ------
    RunError
        It is not there, or has other bytes.
    """
    if not stored.is_file() or stored.stat().st_size != size_bytes:
        raise RunError(f"stored no file of {size_bytes} bytes")
    with source.open("rb") as sent, stored.open("rb") as kept:
        while block := kept.read(BLOCK_BYTES):
            if block != sent.read(len(block)):
                raise RunError("stored other bytes than were sent")
            if sent.tell() == source.stat().st_size:
                sent.seek(0)


def require_all(folder: Path, count: int, size_bytes: int) -> None:
    """See to it that a folder, or those in it, hold every one of the small files.

    Raises
    ------
    RunError
        Files are missing, or have other bytes.
    """
    numbers = set()
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size == size_bytes:
            kept = path.read_bytes()
            number = int(kept[: client.NUMBER_DIGITS])
            if kept == client.content(number, size_bytes):
                numbers.add(number)
    if numbers != set(range(count)):
        raise RunError(f"stored {len(numbers)} of {count} files")


def require_room(size_bytes: int) -> None:
    """Refuse to begin what the disk has no room for.

    Raises
    ------
    StackError
    """
    free = shutil.disk_usage(STORE).free
    if free < size_bytes + 2 * 1024**3:
        message = f"needs {size_bytes / 1024**3:.0f} GiB of disk, has {free / 1024**3:.0f}"
        raise StackError(message)
