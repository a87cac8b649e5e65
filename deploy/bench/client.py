"""The one program that sends to every server: plain sockets, bodies by ``sendfile``.

It is run in a process of its own, which loads the standard library only. It reads a job as JSON
from standard input and writes what it measured as JSON to standard output. Connections are made
and requests built before the clock starts; an answer ends at its Content-Length.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from deploy.bench.wire import LOCATION, Answers, Request, check, connect

NUMBER_DIGITS = 16
HASH_BYTES = 1024**2
WRITTEN_BYTES = 16 * 1024**2


def send_large(port: int, source: str, streams: list[list[Request]]) -> dict[str, Any]:
    """Send one file on each of several connections at once; each may take several requests."""
    with open(source, "rb") as file:  # noqa: PTH123 - read by its descriptor alone
        connections = [connect(port) for _ in streams]
        work = [
            partial(_send_stream, one, file.fileno(), requests)
            for one, requests in zip(connections, streams, strict=True)
        ]
        return {"seconds": _at_once(work)}


def _send_stream(connection: socket.socket, source: int, requests: list[Request]) -> None:
    answers, location = Answers(connection), ""
    for request in requests:
        head = request.head().replace(LOCATION.encode(), location.encode())
        more = socket.MSG_MORE if request.length else 0
        connection.sendall(head + request.prefix.encode(), more)
        _send_file(connection, source, request.offset, request.length)
        if request.suffix:
            connection.sendall(request.suffix.encode())
        status, found, body = answers.next()
        check(request, status, body)
        location = found or location
    connection.close()


def _send_file(connection: socket.socket, source: int, offset: int, length: int) -> None:
    end, size = offset + length, os.fstat(source).st_size
    while offset < end:
        place = offset % size  # a longer file is the prepared one, again and again
        most = min(end - offset, size - place, 2**30)
        offset += os.sendfile(connection.fileno(), source, place, most)


def _at_once(work: Sequence[Callable[[], None]]) -> float:
    """Do all of it in threads of their own; return the seconds until the last has ended."""
    failures: list[Exception] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:  # noqa: BLE001 - told by the caller
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=[job]) for job in work]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if failures:
        raise failures[0]
    return seconds


def content(number: int, size_bytes: int) -> bytes:
    """Return the content of one of many small files: no two are the same."""
    filler = hashlib.sha256(b"filler").digest() * (size_bytes // 32)
    return (b"%0*d" % (NUMBER_DIGITS, number) + filler)[:size_bytes]


def send_small(
    port: int, connections: int, size_bytes: int, files: list[list[Request]]
) -> dict[str, Any]:
    """Send many small files over a few kept connections, one after another on each."""
    jobs = deque(_built(requests, n, size_bytes) for n, requests in enumerate(files))
    lines = [_Line(connect(port), jobs) for _ in range(min(connections, len(jobs)))]
    began = time.perf_counter()
    with selectors.DefaultSelector() as ready:
        for line in lines:
            line.step()
            ready.register(line.connection, selectors.EVENT_READ, line)
        busy = len(lines)
        while busy:
            for key, _ in ready.select():
                if not key.data.step():
                    ready.unregister(key.fileobj)
                    busy -= 1
    seconds = time.perf_counter() - began
    for line in lines:
        line.connection.close()
    return {"seconds": seconds, "latencies": [each for line in lines for each in line.latencies]}


Wire = tuple[Request, bytes]


def _built(requests: list[Request], number: int, size_bytes: int) -> list[Wire]:
    body = content(number, size_bytes)
    return [
        (
            each,
            each.head()
            + each.prefix.encode()
            + body[each.offset : each.offset + each.length]
            + each.suffix.encode(),
        )
        for each in requests
    ]


class _Line:
    """One kept connection, and what it still has to send."""

    def __init__(self, connection: socket.socket, jobs: deque[list[Wire]]) -> None:
        self.connection = connection
        self.latencies: list[float] = []
        self._answers = Answers(connection)
        self._moves = self._run(jobs)

    def step(self) -> bool:
        """Take an answer, send the next request; False when there is nothing left to send."""
        return next(self._moves, False)

    def _run(self, jobs: deque[list[Wire]]) -> Iterator[bool]:
        while jobs:
            began, location = time.perf_counter(), b""
            for request, wire in jobs.popleft():
                if location:
                    wire = wire.replace(LOCATION.encode(), location, 1)  # noqa: PLW2901
                self.connection.sendall(wire)
                yield True
                status, found, body = self._answers.next()
                check(request, status, body)
                location = found.encode() or location
            self.latencies.append(time.perf_counter() - began)


def poll(port: int, request: Request, pause_seconds: float, seconds: float) -> dict[str, Any]:
    """Ask the same again and again for so long, with a pause after each answer."""
    connection = connect(port)
    answers, wire = Answers(connection), request.head()
    latencies: list[float] = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        connection.sendall(wire)
        status, _, body = answers.next()
        latencies.append(time.perf_counter() - began)
        check(request, status, body)
        time.sleep(pause_seconds)
    return {"seconds": seconds, "latencies": latencies}


def hash_alone(source: str) -> dict[str, Any]:
    """Hash the prepared file in one thread: the bound of all who hash in one."""
    with (
        open(source, "rb") as file,  # noqa: PTH123
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED) as mapped,
        memoryview(mapped) as view,
    ):
        sum(view[::4096])  # what is mapped for the first time is not what is measured
        began, used, digest = time.perf_counter(), time.process_time(), hashlib.sha256()
        for start in range(0, len(view), HASH_BYTES):
            digest.update(view[start : start + HASH_BYTES])
        cpu = time.process_time() - used
        return {"seconds": time.perf_counter() - began, "cpu_seconds": cpu}


def store_alone(source: str, target: str) -> dict[str, Any]:
    """Write the prepared file, hash it beside that, and sync it: the bound of all who promise so.

    Two threads and no server: one hashes, one writes and has the kernel write out as it goes.
    """
    with (
        open(source, "rb") as file,  # noqa: PTH123
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED) as mapped,
        memoryview(mapped) as view,
    ):
        sum(view[::4096])
        began, digest = time.perf_counter(), hashlib.sha256()
        hashing = threading.Thread(target=lambda: digest.update(view))
        hashing.start()
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        for start in range(0, len(view), WRITTEN_BYTES):
            end = min(start + WRITTEN_BYTES, len(view))
            written = start
            while written < end:
                written += os.pwrite(descriptor, view[written:end], written)
            os.posix_fadvise(descriptor, start, WRITTEN_BYTES, os.POSIX_FADV_DONTNEED)
        os.fsync(descriptor)
        hashing.join()
        os.close(descriptor)
        return {"seconds": time.perf_counter() - began}


def promise(stored: str) -> None:
    """Do what a door that only stores has left undone: ``sha256sum``, then fsync."""
    subprocess.run(["sha256sum", stored], check=True, stdout=subprocess.DEVNULL)
    descriptor = os.open(stored, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def run_program(argv: list[str]) -> dict[str, Any]:
    """Run another program to its end: for a protocol that this one does not speak."""
    began = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return {"seconds": time.perf_counter() - began}


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job: its ``kind`` names it, the rest are its arguments."""
    kinds: dict[str, Callable[..., dict[str, Any]]] = {
        "large": send_large,
        "small": send_small,
        "poll": poll,
        "hash": hash_alone,
        "store": store_alone,
        "program": run_program,
    }
    then = job.pop("then", None)
    began = time.perf_counter()
    result = kinds[job.pop("kind")](**_with_requests(job))
    if then is not None:
        began = time.perf_counter()
        promise(then)
        result["seconds"] += time.perf_counter() - began
    used = os.times()
    cpu = used.user + used.system + used.children_user + used.children_system
    return {"cpu_seconds": cpu, **result}


def _with_requests(job: dict[str, Any]) -> dict[str, Any]:
    for name in ("streams", "files"):
        if name in job:
            job[name] = [[Request(**each) for each in requests] for requests in job[name]]
    if "request" in job:
        job["request"] = Request(**job["request"])
    return job


def as_json(requests: Iterable[Request]) -> list[dict[str, Any]]:
    """Return requests as a job has them."""
    return [asdict(each) for each in requests]


if __name__ == "__main__":
    json.dump(run(json.load(sys.stdin)), sys.stdout)
