"""A file while it is being received: written and hashed in one pass, under no published name.

Whoever receives holds a lock on the part for as long as it works on it, also when the part has
been given its published name already. The lock ends with the process: a part without one is dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.landing import posix

WRITEBACK_BYTES = 16 * 1024**2
# Below this, reserving costs more than finding out by writing.
RESERVED_FROM_BYTES = 1024**2


@dataclass(frozen=True, slots=True)
class Stored:
    """What a finished part holds; ``sha256`` in lower-case hex."""

    size_bytes: int
    sha256: str


class Part:
    """One attempt at one file. Its methods block; call them from a thread, one at a time."""

    def __init__(self, parent: int, name: str, expected_bytes: int | None) -> None:
        self.parent = parent
        self.name = name
        self.size_bytes = 0
        self._reserved_bytes = expected_bytes or 0
        if self._reserved_bytes < RESERVED_FROM_BYTES:
            self._reserved_bytes = 0
        self._digest = hashlib.sha256()
        self._written_back = 0
        with posix.required():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(name, flags, 0o640, dir_fd=parent)
            fcntl.flock(self._fd, fcntl.LOCK_EX)

    def reserve(self) -> None:
        """Take the room for a large file now, so that a full disk is known at once.

        Raises
        ------
        InsufficientStorageError, StorageUnavailableError
            The part is of no more use; abort it.
        """
        if self._reserved_bytes:
            with posix.failures():
                posix.reserve(self._fd, self._reserved_bytes)

    def write(self, chunks: Sequence[bytes | bytearray]) -> None:
        """Append.

        Raises
        ------
        InsufficientStorageError, StorageUnavailableError
            The part is of no more use; abort it.
        """
        with posix.failures():
            posix.write_all(self._fd, chunks)
        for chunk in chunks:
            self._digest.update(chunk)
            self.size_bytes += len(chunk)
        if self.size_bytes - self._written_back >= WRITEBACK_BYTES:
            length = self.size_bytes - self._written_back
            posix.begin_writeback(self._fd, self._written_back, length)
            self._written_back = self.size_bytes

    def finish(self) -> Stored:
        """Make every byte durable. A sync that failed is never tried again: the bytes are lost.

        Raises
        ------
        InsufficientStorageError, StorageUnavailableError
            The part is of no more use; abort it.
        """
        with posix.failures():
            if self._reserved_bytes:
                os.ftruncate(self._fd, self.size_bytes)
            os.fsync(self._fd)
        return Stored(self.size_bytes, self._digest.hexdigest())

    def is_at(self, name: str, directory: int) -> bool:
        """Say whether a name stands for this very file."""
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        return os.path.samestat(found, os.fstat(self._fd))

    def abort(self) -> None:
        """Remove the part and let go of it. A published file stays; again is harmless."""
        with contextlib.suppress(OSError):
            os.unlink(self.name, dir_fd=self.parent)
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)


def is_alive(name: str, directory: int) -> bool:
    """Say whether somebody works on the part, or just published file, of this name."""
    try:
        fd = posix.open_regular(name, directory)
    except FileNotFoundError:
        return False
    try:
        # Shared: two who look at once do not take each other for the one at work.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def sweep(directory: int, max_age_seconds: float) -> int:
    """Remove dead parts last written to longer ago than this, and return how many."""
    removed = 0
    for name in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            is_old = time.time() - found.st_mtime > max_age_seconds
            if stat.S_ISREG(found.st_mode) and is_old and not is_alive(name, directory):
                os.unlink(name, dir_fd=directory)
                removed += 1
    return removed
