"""One file's bytes as they pass by once: what it is, its encoding, and where it can be cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import sniff
from pipeline.cutting import Cutter
from pipeline.text import EncodingScan

if TYPE_CHECKING:
    from pipeline.limits import Limits

_TAIL_BYTES = 64


class Intake:
    """Takes a file's bytes in order; what it is, is told by the first of them.

    ``kind`` is known after `close`. ``scan`` and ``cutter`` have seen the bytes of texts only.
    """

    def __init__(self, limits: Limits) -> None:
        self.kind = "csv"
        self.head = b""
        self.tail = b""
        self.size_bytes = 0
        self.scan = EncodingScan()
        self.cutter: Cutter | None = None
        self._limits = limits
        self._waiting: bytes | None = b""

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self.size_bytes += len(chunk)
        self.tail = (self.tail + chunk[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        if self._waiting is None:
            self._pass_on(chunk)
            return
        self._waiting += chunk
        if len(self._waiting) >= sniff.HEAD_BYTES:
            self.close()

    def close(self) -> None:
        """Make up one's mind with what there is."""
        if self._waiting is None:
            return
        held, self._waiting = self._waiting, None
        self.head = held[: sniff.HEAD_BYTES]
        self.kind = sniff.kind_of(self.head)
        if self.kind in ("csv", "ndjson"):
            limits = self._limits
            self.cutter = Cutter(
                limits.chunk_bytes,
                limits.chunk_rows,
                limits.line_bytes,
                quoted=self.kind == "csv",
            )
        self._pass_on(held)

    def _pass_on(self, chunk: bytes) -> None:
        if self.kind in sniff.TEXTS:
            self.scan.write(chunk)
        if self.cutter is not None:
            self.cutter.write(chunk)
