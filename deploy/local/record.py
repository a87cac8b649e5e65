"""What the stack notes about its processes, so that `make down` finds them after a crash.

A process id alone proves nothing: it may have gone to somebody else's process since. So its
time of birth is noted too, and a stray child is ended only when it also carries the stack's
mark or works in the stack's folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from deploy.local import layout, processes
from deploy.local.programs import StackError

RECORD = layout.STACK / "processes.json"
LOCK = layout.STACK / "lock"


@contextmanager
def only_one() -> Iterator[int]:
    """Be this checkout's only stack for as long as the block lasts.

    Yields how many stray processes of an earlier one had to be ended.

    Raises
    ------
    StackError
        Another one runs.
    """
    layout.STACK.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = "the stack of this checkout is already running; `make down` stops it"
            raise StackError(message) from None
        strays = sweep()
        note("supervisor", os.getpid())
        yield strays


def note(name: str, pid: int) -> None:
    """Remember a process that was just started."""
    try:
        born = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return
    entries = [*_entries(), {"name": name, "pid": pid, "born": born}]
    unfinished = RECORD.with_suffix(".new")
    unfinished.write_text(json.dumps(entries))
    unfinished.replace(RECORD)


def forget() -> None:
    """Forget every process: all have ended."""
    RECORD.unlink(missing_ok=True)


def supervisor() -> psutil.Process | None:
    """Return the process that holds the stack, if it is alive."""
    return next((_alive(entry) for entry in _entries() if entry["name"] == "supervisor"), None)


def sweep() -> int:
    """End what a supervisor that was killed has left behind; return how many those were."""
    found: set[psutil.Process] = set()
    for entry in _entries():
        leader = _alive(entry)
        if leader is not None and leader.pid != os.getpid():
            found |= {leader, *processes.descendants(leader.pid)}
        elif leader is None and not psutil.pid_exists(entry["pid"]):
            found |= {each for each in processes.descendants(entry["pid"]) if _is_ours(each)}
    processes.end(found)
    forget()
    return len(found)


def _entries() -> list[dict[str, Any]]:
    try:
        entries: list[dict[str, Any]] = json.loads(RECORD.read_text())
    except (FileNotFoundError, ValueError):
        return []
    return entries


def _alive(entry: dict[str, Any]) -> psutil.Process | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(entry["pid"])
        if abs(process.create_time() - entry["born"]) < 0.1:  # noqa: PLR2004
            return process
    return None


def _is_ours(process: psutil.Process) -> bool:
    name, value = layout.MARK
    with contextlib.suppress(psutil.Error):
        if process.environ().get(name) == value:
            return True
    with contextlib.suppress(psutil.Error):
        return bool(process.cwd().startswith(str(layout.STACK)))
    return False
