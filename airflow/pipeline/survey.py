"""What a delivery holds: every landed file looked at once, and archives unpacked."""

from __future__ import annotations

import hashlib
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Self

from pipeline import archive, compressed, sniff, tape, workbook
from pipeline import delivery as deliveries
from pipeline.budget import Budget, unsafe
from pipeline.entries import MAX_LABEL_CHARS
from pipeline.errors import DeliveryError
from pipeline.intake import Intake
from pipeline.staging import unpacked_dir

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pipeline.delivery import Delivery
    from pipeline.limits import Limits
    from pipeline.manifest import LandedFile

READ_BYTES = 1 << 20
# Unpacking and hashing leave the interpreter to others; what is between does not.
MOST_AT_ONCE = 4
_COMPRESSED = {"gzip": compressed.unpack_gzip, "zstd": compressed.unpack_zstd}
_CONTAINERS = {"zip": archive.unpack_zip, "tar": tape.unpack_tar}


@dataclass(frozen=True)
class Found:
    """A file of the delivery: as it landed, or out of an archive.

    ``file`` is how it is spoken of, ``called`` the same without the ending of a compression that
    has been undone.
    """

    file: str
    source: str
    name: str
    intake: Intake
    called: str

    @property
    def kind(self) -> str:
        """What it is, by its content."""
        return self.intake.kind


class Survey:
    """Looks at each landed file once: digest, kind, encoding and, where packed, contents."""

    def __init__(self, delivery: Delivery, budget: Budget, limits: Limits) -> None:
        self.delivery = delivery
        self.budget = budget
        self.limits = limits
        self._numbers = itertools.count(1)

    def take_all(self, landed: Sequence[LandedFile]) -> list[Found]:
        """Give what all landed files hold, in their order, looking at several at a time.

        Raises
        ------
        DeliveryError
            As `take`, for the first file that is wrong.
        """
        at_once = min(len(os.sched_getaffinity(0)), MOST_AT_ONCE)
        with ThreadPoolExecutor(at_once, thread_name_prefix="survey") as pool:
            return [found for files in pool.map(self.take, landed) for found in files]

    def take(self, landed: LandedFile) -> list[Found]:
        """Give what a landed file holds.

        Raises
        ------
        DeliveryError
            ``digest-mismatch``, ``missing-file``, ``corrupt-archive`` or ``unsafe-archive``.
        """
        with deliveries.open_landed(self.delivery, "files", landed.name) as file:
            intake = Intake(self.limits)
            _verify(landed, file, intake)
            found = Found(landed.name, "landing", landed.name, intake, landed.name)
            return list(self._look(found, file, depth=1))

    def _look(self, found: Found, file: BinaryIO, depth: int) -> Iterator[Found]:
        """Give a file, or what it holds if it is an archive."""
        kind = found.kind
        claimed = sniff.claim_of(found.called)
        if claimed in sniff.ARCHIVES and claimed != kind:
            detail = f"{found.file} is not the {claimed} file that its name says"
            raise DeliveryError("corrupt-archive", detail)
        if kind == "zip" and workbook.is_workbook(found.file, file, self.budget):
            found.intake.kind = "excel"
        elif kind in sniff.ARCHIVES:
            if depth > self.budget.caps.depth:
                raise unsafe(found.file, "lies too deep: archives within archives within archives")
            yield from self._unpack(found, file, depth)
            return
        yield found

    def _unpack(self, found: Found, file: BinaryIO, depth: int) -> Iterator[Found]:
        if found.kind in _CONTAINERS:
            yield from self._open(found, file, depth)
            return
        self.budget.take_entries(found.file, 1)
        target = self._target()
        with target:
            _COMPRESSED[found.kind](found.file, file, self.budget, target)
        called = sniff.without_compression(found.called)
        inner = Found(found.file, "unpacked", target.path.name, target.intake, called)
        # A compressed tar is one archive, not two.
        yield from self._packed(inner, depth if inner.kind == "tar" else depth + 1)

    def _open(self, found: Found, file: BinaryIO, depth: int) -> Iterator[Found]:
        contents = _CONTAINERS[found.kind](found.file, file, self.budget, lambda _: self._target())
        for entry_name, target in contents:
            target.close()
            label = f"{found.file}/{entry_name}"
            if len(label) > MAX_LABEL_CHARS:
                raise unsafe(found.file, "holds a name that is too long")
            inner = Found(label, "unpacked", target.path.name, target.intake, label)
            yield from self._packed(inner, depth + 1)

    def _packed(self, inner: Found, depth: int) -> Iterator[Found]:
        """Look at an unpacked file; one that was an archive itself is not kept."""
        path = unpacked_dir(self.delivery) / inner.name
        with path.open("rb") as file:
            yield from self._look(inner, file, depth)
        if inner.kind in sniff.ARCHIVES:
            path.unlink()

    def _target(self) -> _Target:
        directory = unpacked_dir(self.delivery)
        directory.mkdir(exist_ok=True, mode=0o750)
        return _Target(directory / f"{next(self._numbers):06d}", Intake(self.limits))


class _Target:
    """An unpacked file: its bytes go to disk and past the intake."""

    def __init__(self, path: Path, intake: Intake) -> None:
        self.path = path
        self.intake = intake
        self._file = path.open("xb")

    def write(self, chunk: bytes) -> None:
        self.intake.write(chunk)
        self._file.write(chunk)

    def close(self) -> None:
        self.intake.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _verify(landed: LandedFile, file: BinaryIO, intake: Intake) -> None:
    digest = hashlib.sha256()
    while chunk := file.read(READ_BYTES):
        digest.update(chunk)
        intake.write(chunk)
    intake.close()
    if (intake.size_bytes, digest.hexdigest()) != (landed.size_bytes, landed.sha256):
        raise DeliveryError("digest-mismatch", f"{landed.name} is not the file that was sealed")
