"""The landing zone on a POSIX file system: one directory for each batch, names never replaced.

``.parts`` and ``.quarantine`` lie beside the clients, on the same device. All access goes through a
held descriptor of the root, one component at a time, and follows no symlink.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from functools import partial
from io import BufferedReader
from pathlib import Path

from gateway.landing import parts, posix, walking
from gateway.landing.held import Directories
from gateway.landing.parts import Part
from gateway.landing.room import Room
from gateway.landing.zone import (
    FILES,
    BatchPath,
    Digest,
    Landed,
    NameTakenError,
    StorageUnavailableError,
    Stored,
)

PARTS, QUARANTINE = ".parts", ".quarantine"


class DiskZone:
    """The landing zone.

    Parameters
    ----------
    root
        An existing directory.
    min_free_bytes
        Room that is left to others; without it ``open_part`` refuses.

    Raises
    ------
    StorageUnavailableError
        The root cannot be used, or ``.parts`` lies on another device.
    """

    def __init__(self, root: Path, min_free_bytes: int = 0) -> None:
        try:
            self._root = posix.open_directory(str(root))
            self._parts = posix.ensure_directory(PARTS, self._root)
            self._quarantine = posix.ensure_directory(QUARANTINE, self._root)
            self._files = Directories(self._root)
            self._room = Room(self._root, PARTS, min_free_bytes)
        except OSError:
            raise StorageUnavailableError("The landing root is not a usable directory.") from None
        devices = {os.fstat(fd).st_dev for fd in (self._root, self._parts, self._quarantine)}
        if len(devices) > 1:
            raise StorageUnavailableError("Landing and parts lie on different devices.")

    def close(self) -> None:
        """Let go of the directories."""
        self._files.clear()
        for fd in (self._parts, self._quarantine, self._root):
            os.close(fd)

    def check(self) -> None:
        """Say by raising that nothing can be received now.

        Raises
        ------
        InsufficientStorageError, StorageUnavailableError
        """
        self._room.require(0)

    def open_part(self, upload: str, expected_bytes: int | None = None) -> Part:
        """Begin to receive a file; ``upload`` is a new id.

        Raises
        ------
        InsufficientStorageError, StorageUnavailableError
        """
        self._room.require(expected_bytes or 0)
        return parts.create(self._parts, upload, expected_bytes)

    def resume_part(self, upload: str, at_bytes: int, digest: Digest | None = None) -> Part:
        """Go on with a part that was released, or whose worker has ended, at this position.

        What it holds beyond is discarded.

        Raises
        ------
        PartBusyError
            Somebody works on it.
        PartLostError
            It holds less than ``at_bytes``.
        InsufficientStorageError, StorageUnavailableError
        """
        self._room.require(0)
        return parts.resume(self._parts, upload, at_bytes, digest)

    def copy_part(self, upload: str, copy: str, size_bytes: int) -> None:
        """Copy a part's first bytes to a new part, durably, whoever works on the old one.

        Raises
        ------
        PartLostError
            It holds less.
        InsufficientStorageError, StorageUnavailableError
        """
        self._room.require(size_bytes)
        with posix.required():
            try:
                parts.copy(upload, copy, size_bytes, self._parts)
            except BaseException:
                parts.remove(copy, self._parts)
                raise

    def remove_part(self, upload: str) -> None:
        """Remove a part; an absent one is no error."""
        with posix.failures():
            parts.remove(upload, self._parts)

    def stale_parts(self, max_age_seconds: float) -> list[str]:
        """Return parts that nobody works on and that were last written to longer ago."""
        with posix.failures():
            return parts.stale(self._parts, max_age_seconds)

    def is_receiving(self, upload: str, batch: BatchPath, name: str) -> bool:
        """Say whether somebody works on an upload, here or in another process.

        False where its process has ended, however that came.
        """
        with posix.failures():
            if parts.is_alive(upload, self._parts):
                return True
            # In this order: a part takes its published name in between, never the other way.
            with contextlib.suppress(FileNotFoundError), self._directory(batch, FILES) as files:
                return parts.is_alive(name, files)
        return False

    def publish(self, part: Part, batch: BatchPath, name: str) -> None:
        """Give a finished part its name, durably; what has the name already stays.

        Raises
        ------
        NameTakenError
            The name is taken; the part is still there.
        InsufficientStorageError, StorageUnavailableError
        """
        if self.publish_all([(part, batch, name)]):
            raise NameTakenError

    def publish_all(self, wanted: Sequence[tuple[Part, BatchPath, str]]) -> set[int]:
        """Give finished parts their names, durably, with one sync for each directory.

        Returns
        -------
        set of int
            Places in ``wanted`` whose names were taken; these parts are still there.

        Raises
        ------
        InsufficientStorageError, StorageUnavailableError
            Some have their names perhaps, and some have not.
        """
        by_batch: dict[BatchPath, list[int]] = {}
        for place, (_, batch, _name) in enumerate(wanted):
            by_batch.setdefault(batch, []).append(place)
        taken: set[int] = set()
        with posix.required():
            for batch, places in by_batch.items():
                named = [(place, wanted[place][0], wanted[place][2]) for place in places]
                # Gone again means that the batch was removed meanwhile: the caller finds out.
                taken |= self._publish(batch, named)
        return taken

    def retract(self, part: Part, batch: BatchPath, name: str) -> None:
        """Take a publication back. What has the name and is not this part stays.

        So does what cannot be removed: a file system does nothing later that it did not do at once.
        """
        with (
            contextlib.suppress(FileNotFoundError, StorageUnavailableError),
            posix.failures(),
            self._directory(batch, FILES) as files,
        ):
            if part.is_at(name, files):
                os.unlink(name, dir_fd=files)
                os.fsync(files)

    def adopt(self, batch: BatchPath, name: str, stored: Stored) -> bool:
        """Make a published file durable if it has just these bytes; say whether it has.

        Raises
        ------
        StorageUnavailableError
        """
        with posix.failures(), contextlib.suppress(FileNotFoundError):
            file, size_bytes = self.open_file(batch, name)
            with file:
                if size_bytes != stored.size_bytes:
                    return False
                if hashlib.file_digest(file, "sha256").hexdigest() != stored.sha256:
                    return False
                os.fsync(file.fileno())
            with self._directory(batch, FILES, create=True) as files:
                os.fsync(files)
            return True
        return False

    def open_file(self, batch: BatchPath, name: str) -> tuple[BufferedReader, int]:
        """Open a published file and tell its size in bytes.

        Raises
        ------
        FileNotFoundError
            It is not there, or is no regular file.
        StorageUnavailableError
        """
        with posix.failures(), self._directory(batch, FILES) as files:
            fd = posix.open_regular(name, files)
            return os.fdopen(fd, "rb"), os.fstat(fd).st_size

    def remove_file(self, batch: BatchPath, name: str) -> None:
        """Remove a published file, durably; an absent one is no error."""
        with (
            contextlib.suppress(FileNotFoundError),
            posix.failures(),
            self._directory(batch, FILES) as files,
        ):
            os.unlink(name, dir_fd=files)
            os.fsync(files)

    def quarantine(self, batch: BatchPath, name: str) -> str:
        """Set a published file that nobody acknowledged aside and return its new name.

        Raises
        ------
        FileNotFoundError
            There is nothing of this name.
        StorageUnavailableError
        """
        with posix.failures(), self._directory(batch, FILES) as files:
            return self._set_aside(batch, files, name)

    def write_documents(self, batch: BatchPath, documents: Mapping[str, bytes]) -> None:
        """Write documents beside a batch's files, durably; the same again change nothing.

        Raises
        ------
        InsufficientStorageError, StorageUnavailableError
        """
        with posix.required(), self._directory(batch, create=True) as place:
            for name, content in documents.items():
                if posix.content_of(name, place) != content:
                    # Among the parts, where the sweep finds what a crash leaves.
                    posix.write_aside(name, place, self._parts, content)
            os.fsync(place)

    def remove_batch(self, batch: BatchPath) -> None:
        """Remove a batch with all that lies in it; an absent one is no error."""
        with contextlib.suppress(FileNotFoundError), posix.failures():
            with self._directory(batch, FILES) as files:
                posix.empty(files, partial(self._set_aside, batch, files))
            with self._directory(batch) as place:
                os.rmdir(FILES, dir_fd=place)
        with (
            contextlib.suppress(FileNotFoundError),
            posix.failures(),
            posix.chain(self._root, [batch.client, batch.project]) as project,
        ):
            with self._directory(batch) as place:
                posix.empty(place, partial(self._set_aside, batch, place))
            os.rmdir(batch.batch, dir_fd=project)
            os.fsync(project)

    def walk(self) -> Iterator[Landed]:
        """Yield every published file; strangers among the directories are passed over."""
        return walking.landed(self._root)

    def _publish(self, batch: BatchPath, named: list[tuple[int, Part, str]]) -> set[int]:
        try:
            return self._files.of(batch).give(named)
        except FileNotFoundError:
            return self._files.of(batch).give(named)

    def _set_aside(self, batch: BatchPath, parent: int, name: str) -> str:
        aside = _shortened(f"{batch.batch}.{time.time_ns()}.{name}")
        posix.rename_without_replacing((parent, name), (self._quarantine, aside))
        os.fsync(self._quarantine)
        os.fsync(parent)
        return aside

    @contextmanager
    def _directory(self, batch: BatchPath, *inner: str, create: bool = False) -> Iterator[int]:
        with posix.chain(self._root, [*astuple(batch), *inner], create=create) as fd:
            yield fd


def _shortened(name: str) -> str:
    return name.encode()[:255].decode(errors="ignore")
