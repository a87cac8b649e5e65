"""Start, watch and end child processes so that none outlives its purpose.

Every child leads a session of its own and receives a signal from the kernel when the
process that started it dies, however it dies. The signal is bound to the *thread* that
started the child: call :func:`start` from the main thread only.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from deploy.local import programs
from deploy.local.programs import StackError

LOOPBACK = "127.0.0.1"


def start(
    argv: Sequence[str | Path],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    death_signal: str = "TERM",
    user: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child in its own session, its output appended to `log`.

    Parameters
    ----------
    death_signal
        What the child receives when we die.
    user
        OS user to become; only root can ask for one.
    """
    wrapper = programs.bound(death_signal)
    if user is not None:
        wrapper[1:1] = ["--reuid", user, "--regid", user, "--clear-groups"]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [*wrapper, *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
        )


def stop(
    process: subprocess.Popen[bytes],
    sig: signal.Signals = signal.SIGTERM,
    *,
    timeout_seconds: float = 15,
) -> None:
    """Ask a child to end, then make sure that it and its descendants have ended."""
    family = descendants(process.pid)
    if process.poll() is None:
        process.send_signal(sig)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_seconds)
    kill(process, family)


def kill(process: subprocess.Popen[bytes], family: Iterable[psutil.Process] = ()) -> None:
    """End a child and its descendants at once."""
    family = {*family, *descendants(process.pid)}
    if process.poll() is None:
        process.kill()
    process.wait()
    end(family)


def end(processes: Iterable[psutil.Process]) -> None:
    """Kill processes and wait until they are gone."""
    processes = list(processes)
    for each in processes:
        with contextlib.suppress(psutil.Error):
            each.kill()
    psutil.wait_procs(processes, timeout=5)


def descendants(pid: int) -> set[psutil.Process]:
    """Return the children of a process, theirs, and whoever shares its session."""
    found = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        found.update(psutil.Process(pid).children(recursive=True))
    for each in psutil.pids():
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            if each != pid and os.getsid(each) == pid:
                found.add(psutil.Process(each))
    return found


def wait_until(
    ready: Callable[[], bool],
    process: subprocess.Popen[bytes],
    *,
    name: str,
    log: Path,
    timeout_seconds: float = 30,
) -> None:
    """Wait for a child to become ready.

    Raises
    ------
    StackError
        The child ended or took too long; the last line of its log says why.
    """
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        if process.poll() is not None:
            message = f"{name} ended while starting: {last_words(log)} (log: {log})"
            raise StackError(message)
        if time.monotonic() > deadline:
            message = f"{name} is not ready after {timeout_seconds:.0f} s (log: {log})"
            raise StackError(message)
        time.sleep(0.05)


def last_words(log: Path) -> str:
    """Return the last line of a log."""
    try:
        return programs.last_line(log.read_text(errors="replace")) or "no output"
    except OSError:
        return "no output"


def require_free(port: int) -> None:
    """Refuse a port that somebody else listens on.

    Raises
    ------
    StackError
        The port is taken, or not ours to take.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            taken = "taken" if error.errno == errno.EADDRINUSE else "not available"
            message = f"port {port} is {taken}; PORT_BASE=n chooses others"
            raise StackError(message) from None


def get(port: int, path: str) -> tuple[int, bytes]:
    """Ask a loopback server for a page, never through a proxy; status 0 is no answer."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
