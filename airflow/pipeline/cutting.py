"""Where a large text can be cut: found while its bytes pass by once, on their way elsewhere.

A cut stands after a line end that no quote encloses. Whether a quote encloses anything is known only
as long as quotes stand where they belong, next to a delimiter or a line end; which byte is the
delimiter is not known yet. So every cut remembers which bytes stood next to quotes in front of it,
and is good for those delimiters alone under which they all belong there. Where quoting is out of
order, a file is not cut any further: one task reads the rest of it.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from pipeline.layout import count_of, edges_of

# A row longer than this in an open quote is taken for one whose closing quote is missing.
MAX_OPEN_BYTES = 1 << 20
_LF, _QUOTE = 10, 34


@dataclass(frozen=True)
class Cut:
    """A place where a row starts: ``line`` is its number, ``edges`` what stood next to quotes."""

    offset: int
    line: int
    edges: frozenset[int] = frozenset()


class Cutter:
    """Proposes a cut about every so many bytes or lines.

    Parameters
    ----------
    chunk_bytes, chunk_rows
        How much lies between two cuts at least; lines stand for rows.
    line_bytes
        What a line may be long.
    quoted
        Whether quotes enclose line ends, as they do in CSV but not in lines of JSON.
    """

    def __init__(
        self, chunk_bytes: int, chunk_rows: int, line_bytes: int, *, quoted: bool = True
    ) -> None:
        self.chunk_bytes = chunk_bytes
        self.chunk_rows = chunk_rows
        self.line_bytes = line_bytes
        self.quoted = quoted
        self.cuts: list[Cut] = []
        self.long_line: int | None = None
        self._lines = 0
        self._returns = 0
        self._held = b""
        self._offset = 0
        self._last = Cut(0, 1)
        self._edges: set[int] = set()
        self._since_end = 0
        self._has_rows = False
        self._gave_up = False

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._measure(chunk)
        if not self._gave_up:
            self._advance(self._held + chunk if self._held else chunk)

    def _measure(self, chunk: bytes) -> None:
        """Count lines, and watch how long they are; some files end them in bare carriage returns."""
        end = b"\n" if b"\n" in chunk else b"\r"
        first = chunk.find(end)
        reach = len(chunk) if first < 0 else first
        if self.long_line is None and self._since_end + reach > self.line_bytes:
            self.long_line = self._lines + self._returns + 1
        if end == b"\n":
            self._lines += count_of(chunk, _LF)
        else:
            self._returns += chunk.count(end)
        since = len(chunk) - 1 - chunk.rfind(end)
        self._since_end = since if first >= 0 else self._since_end + since

    def _advance(self, text: bytes) -> None:
        end = self._safe_end(text)
        if end:
            self._pass(text[:end])
        self._held = text[end:]
        if end:
            self._propose()
        if len(self._held) > MAX_OPEN_BYTES:
            self._gave_up = True
            self._held = b""

    def _pass(self, rows: bytes) -> None:
        if not self._offset:
            self._offset = len(rows) - len(rows.removeprefix(codecs.BOM_UTF8))
            rows = rows[self._offset :]
        self._offset += len(rows)
        if self.quoted and b'"' in rows:
            self._edges |= edges_of(rows)
        self._has_rows = self._has_rows or bool(rows.strip(b"\r\n"))

    def _safe_end(self, text: bytes) -> int:
        """Find where the last row ends for which that is sure."""
        end = text.rfind(b"\n") + 1
        if not self.quoted or b'"' not in text:
            return end
        quotes = count_of(text[:end], _QUOTE)
        while quotes % 2:  # an odd number of them: the last one is open
            at = text.rfind(b"\n", 0, text.rfind(b'"', 0, end)) + 1
            quotes -= text.count(b'"', at, end)
            end = at
        return end

    def _propose(self) -> None:
        line = self._lines + 1 - self._held.count(b"\n")
        far = self._offset - self._last.offset >= self.chunk_bytes
        many = line - self._last.line >= self.chunk_rows
        if self._has_rows and (far or many):
            self._last = Cut(self._offset, line, frozenset(self._edges))
            self.cuts.append(self._last)

    def cuts_for(self, delimiter: str) -> list[Cut]:
        """Give the cuts that are good under a delimiter."""
        return [cut for cut in self.cuts if cut.edges <= {ord(delimiter)}]
