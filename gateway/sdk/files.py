"""Local files: their digests, and streaming them unchanged."""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from gateway.sdk.problems import FileChangedError, UnusableFilesError

CHUNK_BYTES = 1024 * 1024
# Larger files are sent in pieces, and their digests are remembered.
LARGE_BYTES = 8 * 1024 * 1024

OnSent = Callable[[int], None]
"""Told how many bytes of the file are there by the current attempt; it may start again at 0, or go
back to where the gateway lost it."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A local file as it was when its digest was computed."""

    path: Path
    name: str
    size_bytes: int
    sha256: str
    identity: tuple[int, int, int, int]

    @property
    def repr_digest(self) -> str:
        """The digest as a ``Repr-Digest`` header (RFC 9530)."""
        return f"sha-256=:{b64encode(bytes.fromhex(self.sha256)).decode()}:"


def check(paths: Sequence[Path]) -> None:
    """Check that these paths can be one delivery, before anything is sent.

    Raises
    ------
    UnusableFilesError
        One line for each path that is not a readable file, or whose name another one has.
    """
    faults = [fault for path in paths if (fault := _fault(path))]
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(_collision_key(path), path)
        if other is not path:
            faults.append(f"{other} and {path} have the same name")
    if not paths:
        faults.append("there are no files to send")
    if faults:
        raise UnusableFilesError("\n".join(faults))


def name_of(path: Path) -> str:
    """Return the name a file is delivered under: NFC, as the landing zone keeps it."""
    return unicodedata.normalize("NFC", path.name)


def stamp(path: Path) -> tuple[int, ...]:
    """Return what changes with every change of a file: by its last, whoever sets times back."""
    found = path.stat()
    return (*_identity(found), found.st_ctime_ns)


def inspect(path: Path, pulse: Callable[[], None] | None = None) -> LocalFile:
    """Read a file once and return it with its digest.

    Parameters
    ----------
    pulse
        Called now and then; what it raises ends the reading.

    Raises
    ------
    FileChangedError
        Somebody wrote to it meanwhile.
    """
    digest = hashlib.sha256()
    size_bytes = 0
    with path.open("rb", buffering=0) as source:
        before = _identity(os.fstat(source.fileno()))
        while chunk := source.read(CHUNK_BYTES):
            if pulse:
                pulse()
            digest.update(chunk)
            size_bytes += len(chunk)
        if _identity(os.fstat(source.fileno())) != before or size_bytes != before[2]:
            raise changed(path)
    return LocalFile(path, name_of(path), size_bytes, digest.hexdigest(), before)


def known(path: Path, sha256: str, stamp: tuple[int, ...]) -> LocalFile:
    """Return a file whose digest was computed when it had this stamp."""
    device, inode, size_bytes, modified, *_ = stamp
    return LocalFile(path, name_of(path), size_bytes, sha256, (device, inode, size_bytes, modified))


def check_unchanged(file: LocalFile) -> None:
    """Check that a file is still what was inspected: an empty one has no last bytes to hold back.

    Raises
    ------
    FileChangedError
        It is not.
    """
    if _identity(file.path.stat()) != file.identity:
        raise changed(file.path)


def read_chunks(
    file: LocalFile, on_sent: OnSent | None = None, start: int = 0, stop: int | None = None
) -> Iterator[bytes]:
    """Yield a file's bytes; the last ones only after another look that it is still the same.

    Parameters
    ----------
    start, stop
        The piece to read; default: to the end.

    Raises
    ------
    FileChangedError
        It is not. What was sent so far is less than announced, so it cannot be taken for
        the file.
    """
    sent_bytes, end = start, file.size_bytes if stop is None else stop
    tell = on_sent or (lambda _: None)
    with file.path.open("rb", buffering=0) as source:
        _check_same(source, file)
        source.seek(start)
        tell(sent_bytes)
        while sent_bytes < end:
            chunk = source.read(min(CHUNK_BYTES, end - sent_bytes))
            sent_bytes += len(chunk)
            if not chunk or sent_bytes == end:
                _check_same(source, file)
            yield chunk
            tell(sent_bytes)


def changed(path: Path) -> FileChangedError:
    """Return the error for a file that is being written to."""
    return FileChangedError(f"{path} changed while it was being sent; send it when it is finished")


def _check_same(source: FileIO, file: LocalFile) -> None:
    if _identity(os.fstat(source.fileno())) != file.identity:
        raise changed(file.path)


def _identity(found: os.stat_result) -> tuple[int, int, int, int]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _fault(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"{path}: {error.strerror}"
    if not stat.S_ISREG(mode):
        return f"{path} is not a file"
    return "" if os.access(path, os.R_OK) else f"{path} may not be read"


def _collision_key(path: Path) -> str:
    """Names that differ only in case or form would collide somewhere on the way."""
    return unicodedata.normalize("NFKC", path.name).casefold()
