"""Giving a file back: whole or one range of it (RFC 9110 §14), memory flat."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Self

from gateway.batches.model import File
from gateway.errors import GatewayError, UnavailableError
from gateway.landing.zone import BatchPath, Zone

CHUNK_BYTES = 1024**2
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class RangeNotSatisfiableError(GatewayError):
    """The range begins after the file's end."""

    slug = "range-not-satisfiable"
    status = 416
    title = "The file has no such range"


class PreconditionFailedError(GatewayError):
    """The caller wants the file only as it knows it, and it is another."""

    slug = "precondition-failed"
    status = 412
    title = "The file is not the one that you named"


class DamagedFileError(UnavailableError):
    """The file is not what was acknowledged; its bytes are not given as if they were."""

    title = "The file is damaged"
    retryable = False


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``first`` to ``last``, both included."""

    first: int
    last: int

    @property
    def size_bytes(self) -> int:
        """How many."""
        return self.last - self.first + 1


def span_of(header: str | None, size_bytes: int) -> Span | None:
    """Return the one range that a ``Range`` header asks for; None means the whole file.

    Several ranges, other units and nonsense are ignored, as RFC 9110 §14.2 allows.

    Raises
    ------
    RangeNotSatisfiableError
    """
    found = _RANGE.fullmatch(header or "")
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if first and last and int(first) > int(last):
        return None
    span = _suffix(int(last), size_bytes) if not first else _from(int(first), last, size_bytes)
    if not 0 <= span.first <= span.last:
        raise RangeNotSatisfiableError(headers={"Content-Range": f"bytes */{size_bytes}"})
    return span


def _suffix(length: int, size_bytes: int) -> Span:
    return Span(max(0, size_bytes - length), size_bytes - 1 if length else -1)


def _from(first: int, last: str, size_bytes: int) -> Span:
    end = min(int(last), size_bytes - 1) if last else size_bytes - 1
    return Span(first, end)


def is_known(if_none_match: str, tag: str) -> bool:
    """Say whether the caller has what ``tag`` stands for (RFC 9110 §13.1.2)."""
    known = {each.strip().removeprefix("W/") for each in if_none_match.split(",")}
    return bool(known & {tag, "*"})


def require_match(if_match: str | None, tag: str) -> None:
    """Refuse a caller who asks for something else than what ``tag`` stands for (RFC 9110 §13.1.1).

    Raises
    ------
    PreconditionFailedError
    """
    if if_match is None or if_match.strip() == "*":
        return
    # Compared strongly: a weak tag names no certain bytes.
    if tag not in {each.strip() for each in if_match.split(",")}:
        raise PreconditionFailedError(headers={"ETag": tag})


def content(zone: Zone, batch: BatchPath, file: File, span: Span | None) -> Iterator[bytes]:
    """Open a file and return an iterator over the bytes of a range, or all of them.

    Raises
    ------
    FileNotFoundError
        It is no longer retained.
    DamagedFileError
    """
    opened, size_bytes = zone.open_file(batch, file.name)
    if size_bytes != file.size_bytes:
        opened.close()
        raise DamagedFileError
    return _Chunks(opened, span or Span(0, size_bytes - 1))


class _Chunks:
    """A range of an open file, which is closed at its end, or when nobody wants it any more."""

    def __init__(self, file: IO[bytes], span: Span) -> None:
        self._file = file
        self._left = span.size_bytes
        file.seek(span.first)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        chunk = self._file.read(min(CHUNK_BYTES, self._left))
        self._left -= len(chunk)
        if not chunk:
            self._file.close()
            raise StopIteration
        return chunk

    def __del__(self) -> None:
        self._file.close()
