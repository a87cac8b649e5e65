"""What uploads cost those beside them: memory while many are in flight, the patience of a poller."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from deploy.bench import driving, small
from deploy.bench.client import as_json
from deploy.bench.ours import Gateway, RawPut
from deploy.bench.rounds import Case, Fleet, Results, Sample, measure
from deploy.bench.servers import Server
from deploy.bench.table import Row, compare
from deploy.bench.wire import Request

MEBI, GIBI = 2**20, 2**30
STREAMS = 8
MOST_GROWTH_MIB = 40.0
SAMPLE_SECONDS = 0.05
UPLOADERS = 4
MOST_P99_MS = 50.0
UPLOADED_BYTES = 12 * GIBI  # by each
ASKING_SECONDS, PAUSE_SECONDS = 10, 0.01


def memory(
    fleet: Fleet, source: Path, sizes: list[int], rounds: int, results: Results
) -> list[Row]:
    """Measure how far memory grows with eight uploads in flight, once for each size."""
    rows = []
    for size_bytes in sizes:
        title = f"RSS growth, {STREAMS} x {size_bytes / GIBI:.3g} GiB in flight"
        growth = Growth(fleet, source, size_bytes)
        # The larger ones differ in length only, and take minutes: once is enough.
        times = rounds if size_bytes == min(sizes) else 1
        measure([Case(title, growth.run, growth.warm)], times, results)
        grown, bound = results.of(title, "growth"), [MOST_GROWTH_MIB] * times
        name = f"limit of {MOST_GROWTH_MIB:.0f} MiB"
        rows.append(compare(title, "MiB", grown, bound, name, 1.0, less_is_better=True))
    return rows


@dataclass(frozen=True)
class Growth:
    """Eight uploads at once, the server's memory watched."""

    fleet: Fleet
    source: Path
    size_bytes: int

    def warm(self) -> None:
        """Upload a little, so that what is loaded once is there before."""
        self._send(4 * MEBI)

    def run(self) -> Sample:
        """Upload, and return how far memory grew above what it was before."""
        driving.require_room(STREAMS * self.size_bytes)
        return self._send(self.size_bytes)

    def _send(self, size_bytes: int) -> Sample:
        door = RawPut(self.fleet.gateway)
        place, names = door.begin(), [f"part-{n}.csv" for n in range(STREAMS)]
        job = door.job(self.source, place, names, size_bytes)
        try:
            with watched(door.server) as watch:
                outcome = driving.run(job, touch_bytes=STREAMS * size_bytes)
            for path in door.stored(place, names):
                driving.require_same(self.source, path, size_bytes)
        finally:
            door.end(place)
        growth = (watch.peak - watch.before) / MEBI
        rate = STREAMS * size_bytes / outcome.seconds / 10**6
        return {"growth": growth, "before": watch.before / MEBI, "rate": rate}


@dataclass
class Watch:
    """Memory in bytes, before and at its highest."""

    before: int
    peak: int


@contextmanager
def watched(server: Server) -> Iterator[Watch]:
    """Look at a server's memory again and again while the context lasts."""
    family, ended = server.family(), threading.Event()
    watch = Watch(_rss(family), 0)

    def look() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            watch.peak = max(watch.peak, _rss(family))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()


def _rss(family: list[psutil.Process]) -> int:
    total = 0
    for each in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += each.memory_info().rss
    return total


def latency(
    fleet: Fleet, source: Path, size_bytes: int, rounds: int, results: Results
) -> list[Row]:
    """Measure how long a job's state is waited for while four uploads run."""
    polling = Polling(fleet, source, size_bytes)
    title = f"p99 of GET /v1/jobs/{{id}}, {UPLOADERS} uploads under way"
    measure([Case(title, polling.run)], rounds, results)
    found, bound = results.of(title, "p99"), [MOST_P99_MS] * rounds
    name = f"limit of {MOST_P99_MS:.0f} ms"
    return [compare(title, "ms", found, bound, name, 1.0, less_is_better=True)]


@dataclass(frozen=True)
class Polling:
    """A caller who asks for a job, beside four who upload without a pause."""

    fleet: Fleet
    source: Path
    size_bytes: int

    def run(self) -> Sample:
        """Ask while uploads run from before the first question to after the last answer."""
        gateway = self.fleet.gateway
        job, door = self._job(gateway), RawPut(gateway)
        place = door.begin()
        request = Request("GET", f"/v1/jobs/{job}", gateway.authorization(), expected=200)
        driving.require_room(UPLOADERS * UPLOADED_BYTES)
        driving.settle(UPLOADERS * self.size_bytes)
        uploads = driving.start(self._uploads(door, place))
        try:
            poll = {"kind": "poll", "port": gateway.port, "request": asdict(request)}
            poll |= {"pause_seconds": PAUSE_SECONDS, "seconds": ASKING_SECONDS}
            outcome = driving.finish(driving.start(poll))
            if uploads.poll() is not None:
                driving.finish(uploads)
                raise driving.RunError("the uploads ended before the last question")
        finally:
            uploads.kill()
            uploads.wait()
            # By the gateway itself, which is still at work on what was cut off.
            gateway.ask("DELETE", f"/v1/batches/{place}")
        milliseconds = [each * 1000 for each in outcome.latencies]
        return {name: small.percentile(milliseconds, n) for name, n in (("p50", 50), ("p99", 99))}

    def _uploads(self, door: RawPut, place: str) -> dict[str, Any]:
        """Return a job of four connections with more files than there is time for."""
        count = max(1, UPLOADED_BYTES // self.size_bytes)
        streams = [
            [
                request
                for m in range(count)
                for request in door.requests(place, f"part-{n}-{m}.csv", self.size_bytes)
            ]
            for n in range(UPLOADERS)
        ]
        job = door.job(self.source, place, [], self.size_bytes)
        return {**job, "streams": [as_json(each) for each in streams]}

    @staticmethod
    def _job(gateway: Gateway) -> str:
        """Deliver a batch, so that there is a job to ask for."""
        door, batch = RawPut(gateway), gateway.open_batch()
        [request] = door.requests(batch, "one.csv", 0)
        gateway.ask(request.method, request.path)
        sealed = gateway.ask("POST", f"/v1/batches/{batch}/seal")
        identity: str = sealed["job"]["id"]
        return identity
