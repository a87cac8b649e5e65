"""Files of 16 KiB: over a few kept connections, and a thousand in one request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.bench import client, driving, ours, peers, servers
from deploy.bench.client import as_json
from deploy.bench.driving import STORE
from deploy.bench.ours import RawPut, Submission
from deploy.bench.peers import Put, UploadFile
from deploy.bench.rounds import Case, Fleet, Results, Sample, measure
from deploy.bench.servers import BOUNDARY, Door, Tus
from deploy.bench.table import Row, compare
from deploy.bench.wire import Request

SIZE_BYTES = 16 * 1024
FEW, MANY = 8, 32
WARM_FILES = 64
SUBMITTED_FILES = 1000
# A server that takes a few hundred a second shows its pace with fewer.
SLOW_SHARE = 4


@dataclass(frozen=True)
class Sending:
    """Many small files, each acknowledged by itself."""

    door: Callable[[], Door]
    connections: int
    files: int

    def run(self) -> Sample:
        """Send them, and see to it that each is stored."""
        return self._send(self.files)

    def warm(self) -> Sample:
        """Send a few."""
        return self._send(WARM_FILES)

    def _send(self, count: int) -> Sample:
        door = self.door()
        place = door.begin()
        requests = [as_json(door.requests(place, f"{n}.csv", SIZE_BYTES)) for n in range(count)]
        job = {"kind": "small", "port": door.server.port, "files": requests}
        job |= {"connections": self.connections, "size_bytes": SIZE_BYTES}
        before = door.server.cpu_seconds()
        outcome = driving.run(job, touch_bytes=4 * count * SIZE_BYTES)
        cpu = door.server.cpu_seconds() - before
        driving.require_all(door.folder(place), count, SIZE_BYTES)
        # Nothing is removed before the end: creating slows down after many removals.
        return {
            "rate": count / outcome.seconds,
            "p99": percentile(outcome.latencies, 99),
            "cpu": cpu / count * 1000,
            "client_cpu": outcome.client_cpu_seconds / count * 1000,
        }


@dataclass(frozen=True)
class Submitting:
    """A thousand small files in one request."""

    door: Callable[[], Submission]

    def run(self) -> Sample:
        """Send it, and see to it that each file is stored."""
        return self._send(SUBMITTED_FILES)

    def warm(self) -> Sample:
        """Send a few."""
        return self._send(WARM_FILES)

    def _send(self, count: int) -> Sample:
        door = self.door()
        place = door.begin()
        with _form(place, count) as body:
            size_bytes = body.stat().st_size
            headers = {**door.server.authorization(), "Content-Type": servers.MULTIPART}
            whole = Request("POST", "/v1/submissions", headers, length=size_bytes, expected=202)
            job = {"kind": "large", "port": door.server.port, "source": str(body)}
            outcome = driving.run(
                {**job, "streams": [as_json([whole])]}, touch_bytes=4 * size_bytes
            )
        driving.require_all(door.folder(place), count, SIZE_BYTES)
        return {"rate": count / outcome.seconds}


@contextmanager
def _form(reference: str, count: int) -> Iterator[Path]:
    """Provide the body of a submission."""
    path = STORE / "submission"
    fields = {"project": ours.PROJECT, "reference": reference}
    with path.open("wb") as file:
        for number in range(count):
            part = servers.multipart(f"{number}.csv", SIZE_BYTES, {} if number else fields)
            file.write(part["prefix"].encode() + client.content(number, SIZE_BYTES) + b"\r\n")
        file.write(f"--{BOUNDARY}--\r\n".encode())
    yield path
    path.unlink()


def percentile(values: list[float], percent: int) -> float:
    """Return the value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def rates(fleet: Fleet, files: int, rounds: int, results: Results) -> list[Row]:
    """Measure files a second."""
    fewer = max(1, files // SLOW_SHARE)
    put, form = (lambda: RawPut(fleet.gateway)), (lambda: Submission(fleet.gateway))
    endpoint = lambda: UploadFile(fleet.peer(peers.UPLOAD_FILE), "full")  # noqa: E731
    tus = lambda: Tus(fleet.peer(peers.TUSPYSERVER))  # noqa: E731
    party = lambda: Put(fleet.peer(peers.COPYPARTY))  # noqa: E731
    sendings = {
        _title("our PUT", FEW): Sending(put, FEW, files),
        _title(ENDPOINT, FEW): Sending(endpoint, FEW, files),
        _title(peers.TUSPYSERVER, FEW): Sending(tus, FEW, fewer),
        _title("our PUT", MANY): Sending(put, MANY, files),
        _title(ENDPOINT, MANY): Sending(endpoint, MANY, files),
        _title(COPYPARTY, MANY): Sending(party, MANY, files),
    }
    cases = [Case(name, each.run, each.warm) for name, each in sendings.items()]
    submitting = Submitting(form)
    cases.append(Case(SUBMISSION, submitting.run, submitting.warm))
    measure(cases, rounds, results)
    return _rows(results)


ENDPOINT = "UploadFile + ORM"
COPYPARTY = "copyparty PUT"
SUBMISSION = f"submission of {SUBMITTED_FILES}"


def _title(name: str, connections: int) -> str:
    return f"{name} at {connections}"


def _rows(results: Results) -> list[Row]:
    rows = []
    for peer, connections, target in (
        (ENDPOINT, FEW, 2.5),
        (ENDPOINT, MANY, 3.5),
        (peers.TUSPYSERVER, FEW, 5.0),
        (COPYPARTY, MANY, 1.0),
    ):
        mine, other = _title("our PUT", connections), _title(peer, connections)
        metric = f"16 KiB files, {connections} connections"
        rows.append(compare(metric, "files/s", results.of(mine), results.of(other), other, target))
    single = _title("our PUT", FEW)
    metric = f"{SUBMITTED_FILES} files of 16 KiB in one submission"
    found = results.of(SUBMISSION)
    return [*rows, compare(metric, "files/s", found, results.of(single), single, 2.0)]
