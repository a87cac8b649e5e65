"""What the archives of one delivery may ask of us, and how they are refused when they ask more."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pipeline.errors import DeliveryError


@dataclass(frozen=True)
class Caps:
    """How much archives may ask of us; ``depth`` is how many archives may lie inside each other.

    A compressed tar counts as one archive. ``seconds`` is for all archives of a delivery together.
    """

    entries: int = 10_000
    total_bytes: int = 256 << 30
    ratio: int = 250
    ratio_free_bytes: int = 10 << 20
    directory_bytes: int = 16 << 20
    depth: int = 2
    seconds: float = 4 * 3600


class Sink(Protocol):
    """Takes the bytes of one unpacked file."""

    def write(self, chunk: bytes, /) -> object:
        """Take one chunk."""


AnySink = TypeVar("AnySink", bound=Sink)


class Budget:
    """What all archives of one delivery may still unpack to; several threads may ask."""

    def __init__(self, caps: Caps) -> None:
        self._lock = threading.Lock()
        self.caps = caps
        self.entries = 0
        self.total_bytes = 0
        self._ends = time.monotonic() + caps.seconds

    def take_entries(self, name: str, count: int) -> None:
        """Count entries.

        Raises
        ------
        DeliveryError
            ``unsafe-archive`` if that is too many.
        """
        with self._lock:
            self.entries += count
        if self.entries > self.caps.entries:
            raise unsafe(name, f"holds more than {self.caps.entries} files")

    def take_bytes(self, name: str, count: int) -> None:
        """Count unpacked bytes.

        Raises
        ------
        DeliveryError
            ``unsafe-archive`` if that is too many.
        """
        with self._lock:
            self.total_bytes += count
        if self.total_bytes > self.caps.total_bytes:
            raise unsafe(name, "unpacks to more than is allowed")

    def check_time(self, name: str) -> None:
        """Stop what takes too long.

        Raises
        ------
        DeliveryError
            ``unsafe-archive``.
        """
        if time.monotonic() > self._ends:
            raise unsafe(name, "takes longer to unpack than is allowed")

    def check_ratio(self, name: str, packed: int, unpacked: int) -> None:
        """Refuse what grows out of proportion.

        Raises
        ------
        DeliveryError
            ``unsafe-archive``.
        """
        if unpacked > self.caps.ratio_free_bytes and unpacked > packed * self.caps.ratio:
            raise unsafe(name, f"grows more than {self.caps.ratio} times when unpacked")


def corrupt(name: str) -> DeliveryError:
    """Say that an archive cannot be read."""
    return DeliveryError("corrupt-archive", f"{name} is damaged or cut short")


def unsafe(name: str, reason: str) -> DeliveryError:
    """Say that an archive could be read, but will not be."""
    return DeliveryError("unsafe-archive", f"{name} {reason}")
