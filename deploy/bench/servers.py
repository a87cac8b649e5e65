"""A server under measurement, and the ways in which files are sent to it."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from deploy.bench import driving
from deploy.bench.client import as_json
from deploy.bench.driving import STORE
from deploy.bench.wire import Request
from deploy.local import processes
from deploy.local.processes import LOOPBACK

BOUNDARY = "gateway-bench-boundary"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
START_SECONDS = 60
_places = itertools.count(1)


@dataclass
class Server:
    """A server in processes of its own; what it stores lies below `folder`."""

    name: str
    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    def cpu_seconds(self) -> float:
        """Return the CPU time of its processes so far, those that have ended included."""
        times = [each.cpu_times() for each in self.family()]
        return sum(
            each.user + each.system + each.children_user + each.children_system for each in times
        )

    def family(self) -> list[psutil.Process]:
        """Return its processes."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]


@contextmanager
def running(
    name: str,
    argv: Sequence[str | Path],
    port: int,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[Server]:
    """Run a server until the context is left, however it is left.

    Raises
    ------
    StackError
        It does not start; the last line of its log says why.
    """
    folder = files_folder(name)
    log = STORE / f"{name}.log"
    process = processes.start(argv, log, env=env or environment(), cwd=cwd)
    try:
        processes.wait_until(
            lambda: _listens(port), process, name=name, log=log, timeout_seconds=START_SECONDS
        )
        yield Server(name, port, folder, process)
    finally:
        processes.stop(process, signal.SIGTERM, timeout_seconds=5)


def files_folder(name: str) -> Path:
    """Return the folder of a server's files, made where it is missing."""
    folder = STORE / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def environment(**given: object) -> dict[str, str]:
    """Return what every server starts with, and nothing that the caller's shell has."""
    variables = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    return {**variables, "HOME": str(STORE), **{name: str(each) for name, each in given.items()}}


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


class Door(ABC):
    """One way of sending files to a server; each run has a place of its own."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def begin(self) -> str:
        """Make a fresh place and return its name."""
        place = f"run-{next(_places)}"
        (self.server.folder / place).mkdir()
        return place

    @abstractmethod
    def requests(self, place: str, name: str, size_bytes: int) -> list[Request]:
        """Return what sends one file."""

    def folder(self, place: str) -> Path:
        """Return the folder in which a place's files are stored."""
        return self.server.folder / place

    def stored(self, place: str, names: Sequence[str]) -> list[Path]:
        """Return the paths at which files are stored."""
        folder = self.folder(place)
        return [folder / name for name in names]

    def end(self, place: str) -> None:
        """Remove a place with its files."""
        driving.remove(self.folder(place))

    def job(
        self, source: Path, place: str, names: Sequence[str], size_bytes: int
    ) -> dict[str, Any]:
        """Return the job that sends the prepared file under each of the names at once."""
        streams = [as_json(self.requests(place, name, size_bytes)) for name in names]
        return {
            "kind": "large",
            "port": self.server.port,
            "source": str(source),
            "streams": streams,
        }


class Tus(Door):
    """tus 1.0.0: a creation, then PATCHes of at most `patch_bytes`.

    Notes
    -----
    These servers know one folder and choose the names in it: each run finds a fresh one.
    """

    def __init__(self, server: Server, patch_bytes: int = 2**63) -> None:
        super().__init__(server)
        self.patch_bytes = patch_bytes

    def begin(self) -> str:
        """Put the last run's folder aside."""
        aside = self.server.folder.with_name(f"{self.server.name}-aside-{next(_places)}")
        self.server.folder.rename(aside)
        self.server.folder.mkdir()
        return ""

    def requests(self, place: str, name: str, size_bytes: int) -> list[Request]:
        """Return the creation and the PATCHes."""
        create = Request(
            "POST", self.creation_path(place), self.headers(name, size_bytes), expected=201
        )
        return [create, *self._patches(size_bytes)]

    def creation_path(self, _place: str) -> str:
        """Return where an upload is created."""
        return "/files/"

    def headers(self, _name: str, size_bytes: int) -> dict[str, str]:
        """Return the creation's headers."""
        return {"Tus-Resumable": "1.0.0", "Upload-Length": str(size_bytes)}

    def patch_headers(self) -> dict[str, str]:
        """Return a PATCH's headers, but for its offset."""
        return {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}

    def _patches(self, size_bytes: int) -> Iterator[Request]:
        for offset in range(0, size_bytes, min(self.patch_bytes, size_bytes)):
            length = min(self.patch_bytes, size_bytes - offset)
            headers = {**self.patch_headers(), "Upload-Offset": str(offset)}
            yield Request(
                "PATCH", "{location}", headers, offset=offset, length=length, expected=204
            )

    def stored(self, place: str, names: Sequence[str]) -> list[Path]:
        """Find the largest files: the server named them, and keeps its notes beside them."""
        files = [each for each in self.folder(place).iterdir() if each.is_file()]
        found = sorted(files, key=lambda each: each.stat().st_size)[-len(names) :]
        return found + [self.folder(place) / "none"] * (len(names) - len(found))

    def end(self, place: str) -> None:
        """Remove the files; the server keeps its folder."""
        for each in self.folder(place).iterdir():
            driving.remove(each)


def multipart(
    name: str, size_bytes: int, fields: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return what a multipart request of one file consists of."""
    head = "".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in (fields or {}).items()
    )
    head += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
    head += "Content-Type: application/octet-stream\r\n\r\n"
    return {"prefix": head, "length": size_bytes, "suffix": f"\r\n--{BOUNDARY}--\r\n"}
