"""How much more a file system takes."""

from __future__ import annotations

import os
import time

from gateway.landing import posix
from gateway.landing.zone import InsufficientStorageError

# For so long, and for files so small, a look at the free room is believed.
BELIEVED_SECONDS = 0.1
SMALL_BYTES = 64 * 1024
PLENTY_BYTES = 1024**3


class Room:
    """The free room of a landing root.

    Parameters
    ----------
    inner
        A directory in ``root`` that is there as long as the root is.
    min_free_bytes
        Left to others.
    """

    def __init__(self, root: int, inner: str, min_free_bytes: int) -> None:
        self._root = root
        self._inner = inner
        self._min_free_bytes = min_free_bytes
        self._has_plenty_until = 0.0

    def require(self, size_bytes: int) -> None:
        """See to it that so many bytes more have room.

        Raises
        ------
        InsufficientStorageError, StorageUnavailableError
        """
        is_small = size_bytes <= SMALL_BYTES
        if is_small and time.monotonic() < self._has_plenty_until:
            return
        with posix.required():
            # By its name: of a root that was taken away the descriptor still answers.
            os.close(posix.open_directory(self._inner, self._root))
            room = os.fstatvfs(self._root)
        spare_bytes = room.f_bavail * room.f_frsize - size_bytes - self._min_free_bytes
        # File systems without a fixed number of files say zero of zero.
        if spare_bytes < 0 or (room.f_files > 0 and room.f_favail == 0):
            raise InsufficientStorageError
        if spare_bytes > PLENTY_BYTES:
            self._has_plenty_until = time.monotonic() + BELIEVED_SECONDS
