"""A file while it is being received: written and hashed in one pass, under no published name.

Whoever receives holds a lock on the part for as long as it works on it, also when the part has
been given its published name already. The lock ends with the process: a part without one is dead.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gateway.chunks import Chunk
from gateway.landing import posix
from gateway.landing.zone import (
    Digest,
    PartBusyError,
    PartLostError,
    Stored,
    Tell,
)

WRITEBACK_BYTES = 16 * 1024**2
READ_BYTES = 1024**2
# As much is hashed by a thread of its own while it is written: each takes a core for half the time
# that both take one after the other.
APART_FROM_BYTES = 256 * 1024
_hashers = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="hasher")
# Below this, reserving costs more than finding out by writing.
RESERVED_FROM_BYTES = 1024**2


def create(parent: int, name: str, expected_bytes: int | None) -> Part:
    """Begin a part.

    Raises
    ------
    InsufficientStorageError, StorageUnavailableError
    """
    with posix.required():
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o640, dir_fd=parent)
        fcntl.flock(fd, fcntl.LOCK_EX)
    return Part(parent, name, fd, expected_bytes=expected_bytes)


def resume(parent: int, name: str, at_bytes: int, digest: Digest | None) -> Part:
    """Go on with a part at a position; what it holds beyond is discarded.

    Raises
    ------
    PartBusyError, PartLostError, InsufficientStorageError, StorageUnavailableError
    """
    with posix.failures():
        try:
            fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except FileNotFoundError:
            raise PartLostError(name) from None
        try:
            _take_over(fd, at_bytes)
        except BaseException:
            os.close(fd)
            raise
    part = Part(parent, name, fd, size_bytes=at_bytes, digest=digest)
    if not part.is_at(name, parent):
        part.release()  # another took its name while the lock was waited for
        raise PartBusyError(name)
    return part


def _take_over(fd: int, at_bytes: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PartBusyError from None
    if os.fstat(fd).st_size < at_bytes:
        raise PartLostError
    os.ftruncate(fd, at_bytes)
    os.lseek(fd, at_bytes, os.SEEK_SET)


class Part:
    """One attempt at one file. Its methods block; call them from a thread, one at a time.

    ``checkpoint`` alone may run beside ``write``.
    """

    def __init__(
        self,
        parent: int,
        name: str,
        fd: int,
        *,
        expected_bytes: int | None = None,
        size_bytes: int = 0,
        digest: Digest | None = None,
    ) -> None:
        self.parent = parent
        self.name = name
        self.size_bytes = size_bytes
        self._fd = fd
        self._reserved_bytes = expected_bytes or 0
        if self._reserved_bytes < RESERVED_FROM_BYTES:
            self._reserved_bytes = 0
        is_known = digest is not None and digest.size_bytes <= size_bytes
        self._digest = digest.state if digest is not None and is_known else hashlib.sha256()
        self._hashed_bytes = digest.size_bytes if digest is not None and is_known else 0
        self._written_back = size_bytes
        self._is_named = False

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

    def write(self, chunks: Sequence[Chunk]) -> None:
        """Append.

        Raises
        ------
        InsufficientStorageError, StorageUnavailableError
            The part is of no more use; abort it.
        """
        length = sum(map(len, chunks))
        is_hashed = self._hashed_bytes == self.size_bytes
        hashing = None
        if is_hashed and length >= APART_FROM_BYTES:
            hashing = _hashers.submit(self._hash, chunks)
        try:
            with posix.failures():
                posix.write_all(self._fd, chunks)
        finally:
            if hashing is not None:
                hashing.result()
        if is_hashed and hashing is None:
            self._hash(chunks)
        if is_hashed:
            self._hashed_bytes += length
        self.size_bytes += length
        if self.size_bytes - self._written_back >= WRITEBACK_BYTES:
            self.hasten()

    def _hash(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            self._digest.update(chunk)

    def hasten(self) -> None:
        """Have the disk begin with what was written, for whoever syncs it soon."""
        length = self.size_bytes - self._written_back
        posix.begin_writeback(self._fd, self._written_back, length)
        self._written_back = self.size_bytes

    def checkpoint(self) -> int:
        """Make durable what was written before this call, and return how many bytes that is.

        Raises
        ------
        InsufficientStorageError, StorageUnavailableError
            What was written since the last checkpoint is lost; the part may be resumed there.
        """
        size_bytes = self.size_bytes
        with posix.failures():
            os.fdatasync(self._fd)
            if not self._is_named:
                os.fsync(self.parent)
                self._is_named = True
        return size_bytes

    def finish(self, tell: Tell | None = None) -> Stored:
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
            self._catch_up(tell or (lambda _: None))
        return Stored(self.size_bytes, self._digest.hexdigest())

    def _catch_up(self, tell: Tell) -> None:
        """Hash what was written while the digest of what lies before it was not known."""
        while self._hashed_bytes < self.size_bytes:
            wanted = min(READ_BYTES, self.size_bytes - self._hashed_bytes)
            chunk = os.pread(self._fd, wanted, self._hashed_bytes)
            if not chunk:
                raise OSError(errno.EIO, "a part is shorter than what was written to it")
            self._digest.update(chunk)
            self._hashed_bytes += len(chunk)
            tell(self._hashed_bytes)

    def digest(self) -> Digest:
        """Return how far the digest is known."""
        return Digest(self._hashed_bytes, self._digest.copy())

    def is_at(self, name: str, directory: int) -> bool:
        """Say whether a name stands for this very file."""
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(self._fd))

    def release(self) -> None:
        """Let go of the part and keep its bytes, for a later resume."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    def abort(self) -> None:
        """Remove the part and let go of it. A published file stays; again is harmless."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self.name, dir_fd=self.parent)
        self.release()


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


def stale(directory: int, max_age_seconds: float) -> list[str]:
    """Return dead parts last written to longer ago than this."""
    found = []
    for name in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):
            part = os.stat(name, dir_fd=directory, follow_symlinks=False)
            is_old = time.time() - part.st_mtime > max_age_seconds
            if stat.S_ISREG(part.st_mode) and is_old and not is_alive(name, directory):
                found.append(name)
    return found


def remove(name: str, directory: int) -> None:
    """Remove a part; an absent one is no error."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def copy(name: str, target: str, size_bytes: int, directory: int) -> None:
    """Copy a part's first bytes to a new part, durably.

    Raises
    ------
    PartLostError
        There are fewer.
    """
    with contextlib.ExitStack() as opened:
        source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        opened.callback(os.close, source)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        new = os.open(target, flags, 0o640, dir_fd=directory)
        opened.callback(os.close, new)
        copied = 0
        while copied < size_bytes:
            step = os.copy_file_range(source, new, size_bytes - copied, copied, copied)
            if step == 0:
                raise PartLostError(name)
            copied += step
        os.fsync(new)
        os.fsync(directory)
