"""A published object as a file: seekable, read by ranges, every range of the very same object."""

from __future__ import annotations

import io
import os
from typing import Any

from gateway.landing.s3.store import ChangedError, Store
from gateway.landing.zone import StorageUnavailableError

WINDOW_BYTES = 4 * 1024**2


class RangedFile(io.RawIOBase):
    """An object that is read by ranges.

    Raises
    ------
    StorageUnavailableError
        From reading: also where the object was replaced or removed meanwhile.
    """

    def __init__(self, store: Store, key: str, size_bytes: int, etag: str) -> None:
        super().__init__()
        self._store = store
        self._key = key
        self._size_bytes = size_bytes
        self._etag = etag
        self._position = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that any position can be gone to."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size_bytes}
        if origin[whence] + offset < 0:
            raise ValueError(offset)
        self._position = origin[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with what follows, as far as there is something."""
        wanted = min(len(buffer), self._size_bytes - self._position)
        if wanted <= 0:
            return 0
        try:
            content = self._store.read_range(self._key, self._position, wanted, self._etag)
        except (FileNotFoundError, ChangedError):
            raise StorageUnavailableError from None
        if len(content) != wanted:
            raise StorageUnavailableError
        buffer[:wanted] = content
        self._position += wanted
        return wanted


def open_ranged(store: Store, key: str, size_bytes: int, etag: str) -> io.BufferedReader:
    """Open an object."""
    raw = RangedFile(store, key, size_bytes, etag)
    return io.BufferedReader(raw, min(WINDOW_BYTES, max(size_bytes, 1)))
