"""Large files: one at a time through each door, and eight at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy.bench import driving, peers, servers
from deploy.bench.ours import OurTus, RawPut, Submission
from deploy.bench.peers import Put, PutThenPromise, Sftp, UploadFile
from deploy.bench.rounds import Case, Fleet, Results, Sample, measure
from deploy.bench.servers import Door, Tus
from deploy.bench.table import Row, compare

MEGA, GIGA = 10**6, 10**9
MEBI = 2**20
PATCH_BYTES = 64 * MEBI
WARM_BYTES = 4 * MEBI
STREAMS = 8
RAW = "our raw PUT"
OUR_TUS = "our tus"
OUR_FORM = "our multipart"
SHA256 = "SHA-256, one thread"
ALONE = "no server: hash, write, sync"
PLAIN, FULL = "UploadFile, plain", "UploadFile, hashed and synced"
PROMISED, BARE = "nginx PUT + sha256sum + fsync", "bare nginx PUT"


@dataclass(frozen=True)
class Sending:
    """The prepared file, sent through a door; `door` starts the server when it has to."""

    door: Callable[[], Door]
    source: Path
    size_bytes: int
    streams: int = 1

    def run(self) -> Sample:
        """Send, and see to it that what is stored is what was sent."""
        return self._send(self.size_bytes)

    def warm(self) -> Sample:
        """Send a little."""
        return self._send(WARM_BYTES)

    def _send(self, size_bytes: int) -> Sample:
        door = self.door()
        place, names = door.begin(), [f"part-{n}.csv" for n in range(self.streams)]
        try:
            job = door.job(self.source, place, names, size_bytes)
            total = size_bytes * self.streams
            before = door.server.cpu_seconds()
            outcome = driving.run(job, touch_bytes=2 * total)
            cpu = door.server.cpu_seconds() - before
            for path in door.stored(place, names):
                driving.require_same(self.source, path, size_bytes)
        finally:
            door.end(place)
        return {
            "rate": total / outcome.seconds / MEGA,
            "seconds": outcome.seconds,
            "cpu": cpu / total * GIGA,
            "client_cpu": outcome.client_cpu_seconds / total * GIGA,
        }


@dataclass(frozen=True)
class Hashing:
    """The prepared file, hashed and nothing else."""

    source: Path
    size_bytes: int

    def run(self) -> Sample:
        """Hash it."""
        outcome = driving.run({"kind": "hash", "source": str(self.source)})
        rate = self.size_bytes / outcome.seconds / MEGA
        return {"rate": rate, "cpu": outcome.client_cpu_seconds / self.size_bytes * GIGA}


@dataclass(frozen=True)
class Storing:
    """The prepared file, hashed, written and synced by a program that is no server."""

    source: Path
    size_bytes: int

    def run(self) -> Sample:
        """Store it."""
        target = servers.files_folder("alone") / "part"
        target.unlink(missing_ok=True)
        job = {"kind": "store", "source": str(self.source), "target": str(target)}
        try:
            outcome = driving.run(job, touch_bytes=2 * self.size_bytes)
        finally:
            target.unlink(missing_ok=True)
        cpu = outcome.client_cpu_seconds / self.size_bytes * GIGA
        return {"rate": self.size_bytes / outcome.seconds / MEGA, "cpu": cpu}


def doors(fleet: Fleet) -> dict[str, Callable[[], Door]]:
    """Return every door that takes a large file, ours first."""
    return {
        RAW: lambda: RawPut(fleet.gateway),
        OUR_FORM: lambda: Submission(fleet.gateway),
        OUR_TUS: lambda: OurTus(fleet.gateway, PATCH_BYTES),
        peers.TUSPYSERVER: lambda: Tus(fleet.peer(peers.TUSPYSERVER)),
        peers.TUS_NODE: lambda: Tus(fleet.peer(peers.TUS_NODE)),
        peers.SFTP: lambda: Sftp(fleet.peer(peers.SFTP)),
        PLAIN: lambda: UploadFile(fleet.peer(peers.UPLOAD_FILE), "plain"),
        FULL: lambda: UploadFile(fleet.peer(peers.UPLOAD_FILE), "full"),
        PROMISED: lambda: PutThenPromise(fleet.peer(peers.NGINX)),
        BARE: lambda: Put(fleet.peer(peers.NGINX)),
    }


def one(fleet: Fleet, source: Path, size_bytes: int, rounds: int, results: Results) -> list[Row]:
    """Measure one file at a time."""
    cases = []
    for name, door in doors(fleet).items():
        sending = Sending(door, source, size_bytes)
        cases.append(Case(name, sending.run, sending.warm))
    cases.append(Case(SHA256, Hashing(source, size_bytes).run))
    cases.append(Case(ALONE, Storing(source, size_bytes).run))
    measure(cases, rounds, results)
    targets = {
        peers.TUSPYSERVER: 1.2,
        peers.TUS_NODE: 1.6,
        peers.SFTP: 2.5,
        PLAIN: 3.0,
        FULL: None,
        PROMISED: 1.1,
        BARE: 0.30,
        SHA256: 0.50,
        ALONE: None,
    }
    rows = [
        _rate("one file, raw PUT", results, RAW, peer, target) for peer, target in targets.items()
    ]
    rows.append(_rate("one file, multipart", results, OUR_FORM, RAW, 0.9))
    rows.append(_rate("one file, tus in 64 MiB PATCHes", results, OUR_TUS, RAW, 0.85))
    rows.append(_cpu(results))
    return rows


def eight(fleet: Fleet, source: Path, size_bytes: int, rounds: int, results: Results) -> list[Row]:
    """Measure eight files at once."""
    known, cases = doors(fleet), []
    names = {name: f"{name}, {STREAMS} at once" for name in (RAW, peers.TUSPYSERVER)}
    for name, title in names.items():
        sending = Sending(known[name], source, size_bytes, STREAMS)
        cases.append(Case(title, sending.run, sending.warm))
    measure(cases, rounds, results)
    return [_rate("eight files at once", results, names[RAW], names[peers.TUSPYSERVER], 2.0)]


def _rate(metric: str, results: Results, ours: str, peer: str, target: float | None) -> Row:
    return compare(metric, "MB/s", results.of(ours), results.of(peer), peer, target)


def _cpu(results: Results) -> Row:
    """Compare CPU time with that of hashing alone; three times as much is the most."""
    mine, hashing = results.of(RAW, "cpu"), results.of(SHA256, "cpu")
    target = 1 / 3
    return compare("CPU of one raw PUT", "s/GB", mine, hashing, SHA256, target, less_is_better=True)
