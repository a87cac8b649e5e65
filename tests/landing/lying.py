"""Looks at what lies in a landing zone past the zone itself, on a disk or in a bucket."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.landing.disk import DiskZone
from gateway.landing.s3 import index as s3_index
from gateway.landing.s3.settings import S3Settings
from gateway.landing.s3.store import Store
from gateway.landing.s3.zone import S3Zone
from gateway.landing.zone import BatchPath, Zone


class Lying(Protocol):
    """What lies in one landing zone."""

    def open(self) -> Zone:
        """Open the zone; again gives what another process would have."""

    def opening(self) -> str:
        """Return the same as a Python expression, for another process."""

    def parts(self) -> list[str]: ...

    def part(self, upload: str) -> bytes: ...

    def set_aside(self) -> dict[str, bytes]: ...

    def documents(self, batch: BatchPath) -> dict[str, bytes]: ...

    def batches(self, client: str, project: str) -> list[str]: ...

    def put(self, path: str) -> None:
        """Lay an empty stranger at a place below the root."""

    def take_away(self, batch: BatchPath, name: str) -> None: ...


@dataclass
class OnDisk:
    root: Path

    def open(self) -> Zone:
        return DiskZone(self.root)

    def opening(self) -> str:
        return (
            "__import__('gateway.landing.disk', fromlist=['']).DiskZone("
            f"__import__('pathlib').Path({str(self.root)!r}))"
        )

    def parts(self) -> list[str]:
        return sorted(each.name for each in (self.root / ".parts").iterdir())

    def part(self, upload: str) -> bytes:
        return (self.root / ".parts" / upload).read_bytes()

    def set_aside(self) -> dict[str, bytes]:
        return {each.name: each.read_bytes() for each in (self.root / ".quarantine").iterdir()}

    def documents(self, batch: BatchPath) -> dict[str, bytes]:
        place = self.root / batch.client / batch.project / batch.batch
        return {each.name: each.read_bytes() for each in place.iterdir() if each.is_file()}

    def batches(self, client: str, project: str) -> list[str]:
        return sorted(each.name for each in (self.root / client / project).iterdir())

    def put(self, path: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(b"")

    def take_away(self, batch: BatchPath, name: str) -> None:
        (self.root / batch.client / batch.project / batch.batch / "files" / name).unlink()


class InBucket:
    def __init__(self, settings: S3Settings) -> None:
        self.settings = settings
        self.store = Store(settings)

    def open(self) -> Zone:
        return S3Zone(self.settings)

    def opening(self) -> str:
        module = "__import__('gateway.landing.s3.zone', fromlist=['']).S3Zone"
        fields = {name: getattr(self.settings, name) for name in self.settings.__slots__}
        settings = "__import__('gateway.landing.s3.settings', fromlist=['']).S3Settings"
        return f"{module}({settings}(**{fields!r}))"

    def parts(self) -> list[str]:
        return sorted({each.key.split("/")[1] for each in self.store.walk(s3_index.PARTS)})

    def part(self, upload: str) -> bytes:
        index, _ = s3_index.load(self.store, upload)
        return b"".join(self.store.read(key)[0] for key in index.keys(upload))

    def set_aside(self) -> dict[str, bytes]:
        found = self.store.walk(".quarantine")
        return {each.key.rpartition("/")[2]: self.store.read(each.key)[0] for each in found}

    def documents(self, batch: BatchPath) -> dict[str, bytes]:
        place = f"{batch.client}/{batch.project}/{batch.batch}"
        keys = [each.key for each in self.store.walk(place)]
        names = [key.removeprefix(f"{place}/") for key in keys]
        return {name: self.store.read(f"{place}/{name}")[0] for name in names if "/" not in name}

    def batches(self, client: str, project: str) -> list[str]:
        return self.store.folders(f"{client}/{project}")

    def put(self, path: str) -> None:
        self.store.put(path, b"")

    def take_away(self, batch: BatchPath, name: str) -> None:
        self.store.delete([f"{batch.client}/{batch.project}/{batch.batch}/files/{name}"])
