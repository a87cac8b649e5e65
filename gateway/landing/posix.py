"""Calls of the operating system that Python's ``os`` lacks, and what its errors mean here."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from gateway import logs
from gateway.chunks import Chunk
from gateway.landing.zone import InsufficientStorageError, StorageUnavailableError

log = logs.get("landing")

_libc = ctypes.CDLL(None, use_errno=True)
_RENAME_NOREPLACE = 1
_SYNC_FILE_RANGE_WRITE = 2
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
# What opening answers where there is nothing, a symlink, or a socket.
_NO_FILE = {errno.ENOENT, errno.ELOOP, errno.ENXIO}


@contextmanager
def failures() -> Iterator[None]:
    """Turn errors of the file system into problems; a missing or taken name passes through."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        log.error("storage_failed", errno=errno.errorcode.get(error.errno or 0))  # noqa: TRY400 - its text has paths
        if error.errno in _FULL:
            raise InsufficientStorageError from None
        raise StorageUnavailableError from None


@contextmanager
def required() -> Iterator[None]:
    """As ``failures``, where a missing directory is a failure too: the root itself is gone."""
    with failures():
        try:
            yield
        except FileNotFoundError:
            log.error("storage_failed", errno="ENOENT")  # noqa: TRY400 - its text has paths
            raise StorageUnavailableError from None


def open_directory(name: str, parent: int | None = None) -> int:
    """Open a directory without following a symlink at its name."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotADirectoryError(errno.ENOTDIR, name) from error
        raise


def ensure_directory(name: str, parent: int) -> int:
    """Open a directory that is durable in its parent; make it where it is missing.

    Also one that is there already: another thread may have made it, and not synced it yet.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o750, dir_fd=parent)
    os.fsync(parent)
    return open_directory(name, parent)


def open_regular(name: str, parent: int) -> int:
    """Open a regular file for reading.

    Raises
    ------
    FileNotFoundError
        There is none of this name: nothing, or a symlink, or something else.
    """
    try:
        fd = os.open(name, _READ, dir_fd=parent)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise FileNotFoundError(name) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileNotFoundError(name)
    return fd


@contextmanager
def chain(root: int, names: Sequence[str], *, create: bool = False) -> Iterator[int]:
    """Open a directory below ``root``, one component at a time."""
    step = ensure_directory if create else open_directory
    current = os.dup(root)
    try:
        for name in names:
            deeper = step(name, current)
            os.close(current)
            current = deeper
        yield current
    finally:
        os.close(current)


def empty(directory: int, set_aside: Callable[[str], object]) -> None:
    """Remove every file in a directory; what is a directory itself is ``set_aside``."""
    for name in os.listdir(directory):
        try:
            os.unlink(name, dir_fd=directory)
        except IsADirectoryError:
            set_aside(name)
    os.fsync(directory)


def content_of(name: str, parent: int) -> bytes | None:
    """Return a small file's content; None where there is none."""
    try:
        fd = open_regular(name, parent)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read()


def write_aside(name: str, parent: int, aside: int, content: bytes) -> None:
    """Write a small file so that its name stands for all of its old or of its new content.

    It is written in the directory ``aside``, on the same device; ``parent`` is still to be synced.
    """
    temporary = f"{name}.{time.time_ns()}"
    try:
        with os.fdopen(os.open(temporary, _WRITE, 0o640, dir_fd=aside), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=aside, dst_dir_fd=parent)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=aside)
        raise


def write_all(fd: int, chunks: Sequence[Chunk]) -> None:
    """Write every byte; the kernel may take fewer than it is given."""
    for start in range(0, len(chunks), 512):
        views = [memoryview(chunk) for chunk in chunks[start : start + 512]]
        while views:
            written = os.writev(fd, views)
            while views and written >= len(views[0]):
                written -= len(views.pop(0))
            if written:
                views[0] = views[0][written:]


def begin_writeback(fd: int, offset: int, length: int) -> None:
    """Ask the kernel to start writing a range out, so that the final fsync finds little to do."""
    _libc.sync_file_range(
        fd, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE
    )


def reserve(fd: int, size_bytes: int) -> None:
    """Take the room for a file of a known size now (ENOSPC up front), where that is possible."""
    # Not ``posix_fallocate``, which writes into every block where the file system cannot do it.
    if _libc.fallocate(fd, 0, ctypes.c_int64(0), ctypes.c_int64(size_bytes)) == 0:
        return
    number = ctypes.get_errno()
    if number not in {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}:
        raise OSError(number, os.strerror(number))


def rename_without_replacing(source: tuple[int, str], target: tuple[int, str]) -> None:
    """Move a name; plain ``rename`` would silently replace what has the new one.

    Raises
    ------
    FileExistsError
        The new name is taken.
    """
    arguments = (source[0], os.fsencode(source[1]), target[0], os.fsencode(target[1]))
    if _libc.renameat2(*arguments, _RENAME_NOREPLACE) == 0:
        return
    number = ctypes.get_errno()
    if number not in {errno.EINVAL, errno.ENOSYS}:
        raise OSError(number, os.strerror(number))
    # The file system cannot do that: a second name for the file, which refuses a taken one.
    os.link(source[1], target[1], src_dir_fd=source[0], dst_dir_fd=target[0])
    os.unlink(source[1], dir_fd=source[0])
