"""Open directories of batches, kept from one publication to the next.

To find one costs ten calls, to see that it is still the one at its place costs one.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import astuple

from gateway.landing import posix
from gateway.landing.parts import Part
from gateway.landing.zone import FILES, BatchPath

HELD = 64


class Directory:
    """An open directory; closed when nobody has it any more."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        found = os.fstat(fd)
        self._identity = (found.st_dev, found.st_ino)

    def __del__(self) -> None:
        os.close(self.fd)

    def is_at(self, path: str, root: int) -> bool:
        """Say whether it still lies there: a batch may be removed, a folder exchanged."""
        try:
            found = os.stat(path, dir_fd=root, follow_symlinks=False)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def give(self, named: Sequence[tuple[int, Part, str]]) -> set[int]:
        """Give parts their names here, durably; return the places of those that were taken."""
        taken = set()
        for place, part, name in named:
            try:
                posix.rename_without_replacing((part.parent, part.name), (self.fd, name))
            except FileExistsError:
                taken.add(place)
        if len(taken) < len(named):
            os.fsync(self.fd)
        return taken


class Directories:
    """The ``files`` directories that were published into lately, each durable at its place."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._held: OrderedDict[BatchPath, Directory] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, batch: BatchPath) -> Directory:
        """Return a batch's directory; made, and made durable, where it is missing."""
        path = "/".join((*astuple(batch), FILES))
        with self._lock:
            held = self._held.get(batch)
        if held is not None and held.is_at(path, self._root):
            return held
        with posix.chain(self._root, path.split("/"), create=True) as fd:
            made = Directory(os.dup(fd))
        with self._lock:
            self._held[batch] = made
            self._held.move_to_end(batch)
            while len(self._held) > HELD:
                self._held.popitem(last=False)
        return made

    def clear(self) -> None:
        """Let go of all."""
        with self._lock:
            self._held.clear()
