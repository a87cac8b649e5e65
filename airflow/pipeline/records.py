"""UTF-8 blocks as rows of text, each with the physical line on which it starts.

Polars parses; what it would hide (ragged rows, stray quotes, wrong row boundaries) is found first,
by looking at where delimiters, line ends and quotes stand. A block whose quoting is out of order
is read line by line instead, so that one bad row costs itself and not its neighbours.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from pipeline.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BLOCK_BYTES = 8 << 20
# Short rows take most of their memory by being many: a block has fewer bytes where lines are shorter.
MIN_LINE_BYTES = 40
# A row longer than this in an open quote is taken for one whose closing quote is missing.
MAX_ROW_BYTES = 1 << 20
MAX_ROW_LINES = 1_000
MAX_LINE_BYTES = 16 << 20

# Polars itself takes only a bare empty field for null.
_EMPTY_IS_NULL = pl.when(pl.all() != "").then(pl.all())

csv.field_size_limit(MAX_ROW_BYTES * 2)


class LineTooLongError(Exception):
    """A line goes on past what is allowed; ``line`` is its number."""

    def __init__(self, line: int) -> None:
        super().__init__(f"line {line} is too long")
        self.line = line


@dataclass(frozen=True)
class BadRow:
    """A row that does not have the shape of its file."""

    line: int
    rule: str
    text: str


@dataclass(frozen=True)
class Rows:
    """Some consecutive rows: columns ``c0`` … as text, and ``_line``."""

    frame: pl.DataFrame
    bad: list[BadRow] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many rows there are, good and bad."""
        return self.frame.height + len(self.bad)


def read_rows(
    blocks: Iterable[bytes],
    delimiter: str,
    width: int,
    *,
    first_line: int = 1,
    heading: bool = True,
    line_bytes: int = MAX_LINE_BYTES,
    block_bytes: int | None = None,
) -> Iterator[Rows]:
    """Read rows of ``width`` fields.

    Parameters
    ----------
    blocks
        UTF-8 text, cut anywhere.
    first_line
        The physical line with which ``blocks`` begin.
    heading
        Whether the first row is a heading, to be left out.
    line_bytes
        What a line may be long, a block more or less.
    block_bytes
        How much is read at a time, by default `BLOCK_BYTES`: memory is taken for that much.

    Raises
    ------
    LineTooLongError

    Notes
    -----
    Empty lines are no rows. A field that is empty, quoted or not, is null.
    """
    block_bytes = block_bytes or BLOCK_BYTES
    reader = _Reader(delimiter, width, first_line, line_bytes, block_bytes)
    for block, is_last in _gathered(blocks, block_bytes):
        rows = reader.read(block, is_last=is_last)
        if heading and rows.count:
            rows, heading = _without_first(rows), False
        if rows.count:
            yield rows


def _gathered(blocks: Iterable[bytes], block_bytes: int) -> Iterator[tuple[bytes, bool]]:
    """Gather small blocks into large ones; say of each whether it is the last."""
    held: list[bytes] = []
    size = lines = 0
    for block in blocks:
        if size >= block_bytes or lines * MIN_LINE_BYTES >= block_bytes:
            yield b"".join(held), False
            held, size, lines = [], 0, 0
        held.append(block)
        size += len(block)
        lines += block.count(b"\n")
    yield b"".join(held), True


def _without_first(rows: Rows) -> Rows:
    first_good = rows.frame["_line"].item(0) if rows.frame.height else None
    if rows.bad and (first_good is None or rows.bad[0].line < first_good):
        return Rows(rows.frame, rows.bad[1:])
    return Rows(rows.frame.slice(1), rows.bad)


class _Reader:
    """Cuts blocks at row ends and keeps count of lines; what is left over joins the next block."""

    def __init__(
        self, delimiter: str, width: int, first_line: int, line_bytes: int, block_bytes: int
    ) -> None:
        self.delimiter = delimiter
        self.width = width
        self.line = first_line
        self.line_bytes = line_bytes
        self.block_bytes = block_bytes
        self.held = b""

    def read(self, block: bytes, *, is_last: bool) -> Rows:
        text = self.held + block
        if is_last and text and not text.endswith(b"\n"):
            text += b"\n"
        if len(text) > self.line_bytes and b"\n" not in text:
            raise LineTooLongError(self.line)
        layout = Layout.of(text, ord(self.delimiter))
        if is_last and layout.end < len(text):
            return self._read_slowly(text, is_last=True)
        if layout.is_disordered or len(text) - layout.end > MAX_ROW_BYTES:
            return self._read_slowly(text, is_last=is_last)
        rows = self._read_quickly(text, layout)
        return self._read_slowly(text, is_last=is_last) if rows is None else rows

    def _read_quickly(self, text: bytes, layout: Layout) -> Rows | None:
        """Let Polars read what is in order; None if it does not see the same rows."""
        rows = layout.rows.with_columns(line=pl.col("line") + self.line)
        is_blank = pl.col("length") == 0
        is_ragged = pl.col("delimiters") != self.width - 1
        kept = rows.filter(~is_blank & ~is_ragged)
        content = text[: layout.end]
        if kept.height < rows.height:
            content = _without(content, rows.filter(is_blank | is_ragged))
        frame = self._parse(content, quoted=layout.is_quoted)
        if frame is None or frame.height != kept.height:
            return None
        frame = frame.with_columns(kept["line"].alias("_line"))
        misshapen = rows.filter(~is_blank & is_ragged)
        self.held = text[layout.end :]
        self.line += layout.lines
        return Rows(frame, [_ragged(text, row) for row in misshapen.iter_rows(named=True)])

    def _parse(self, content: bytes, *, quoted: bool) -> pl.DataFrame | None:
        schema = {f"c{i}": pl.String for i in range(self.width)}
        if not content:
            return pl.DataFrame(schema=schema)
        try:
            frame = pl.read_csv(
                content,
                has_header=False,
                schema=schema,
                separator=self.delimiter,
                quote_char='"' if quoted else None,
            )
        except pl.exceptions.PolarsError:
            return None
        return frame.with_columns(_EMPTY_IS_NULL) if quoted else frame

    def _read_slowly(self, text: bytes, *, is_last: bool) -> Rows:
        """Read line by line; a row that cannot be closed costs its first line only."""
        cut = text.rfind(b"\n") + 1
        lines = text[:cut].decode("utf-8").split("\n")
        lines.pop()
        good: list[list[str]] = []
        numbers: list[int] = []
        bad: list[BadRow] = []
        at = 0

        def may_wait(start: int) -> bool:
            return start > 0 or len(text) < 2 * self.block_bytes

        while at < len(lines):
            fields, after = self._row(lines, at)
            if fields is None and after == len(lines) and not is_last and may_wait(at):
                break
            if fields is None:
                bad.append(BadRow(self.line + at, "row-shape", lines[at].removesuffix("\r")))
                after = at + 1
            elif fields and len(fields) != self.width:
                bad.append(BadRow(self.line + at, "row-shape", _whole_text(lines[at:after])))
            elif fields:
                good.append(fields)
                numbers.append(self.line + at)
            at = after
        self.held = "".join(line + "\n" for line in lines[at:]).encode() + text[cut:]
        self.line += at
        return Rows(self._frame(good, numbers), bad)

    def _row(self, lines: list[str], at: int) -> tuple[list[str] | None, int]:
        """Read the row that starts at a line; give its fields and the line after it."""
        end = min(len(lines), at + MAX_ROW_LINES)
        feed = _Feed(lines, at, end)
        reader = csv.reader(feed, delimiter=self.delimiter, strict=True)
        try:
            return next(reader), feed.at
        except (csv.Error, StopIteration):
            return None, feed.at

    def _frame(self, rows: list[list[str]], numbers: list[int]) -> pl.DataFrame:
        schema = {f"c{i}": pl.String for i in range(self.width)}
        frame = pl.DataFrame(rows, schema=schema, orient="row")
        frame = frame.with_columns(_EMPTY_IS_NULL)
        return frame.with_columns(pl.Series("_line", numbers, dtype=pl.Int64))


class _Feed:
    """Lines for one row, counted as they are taken."""

    def __init__(self, lines: list[str], at: int, end: int) -> None:
        self.lines = lines
        self.at = at
        self.end = end

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        if self.at >= self.end:
            raise StopIteration
        self.at += 1
        return self.lines[self.at - 1] + "\n"


def _without(content: bytes, rows: pl.DataFrame) -> bytes:
    """Cut rows out of a text."""
    kept = io.BytesIO()
    view, at = memoryview(content), 0
    for start, length in rows.select("start", "length").iter_rows():
        kept.write(view[at:start])
        at = content.index(b"\n", start + length) + 1
    kept.write(view[at:])
    return kept.getvalue()


def _whole_text(lines: list[str]) -> str:
    return "\n".join(lines).removesuffix("\r")


def _ragged(text: bytes, row: dict[str, int]) -> BadRow:
    content = text[row["start"] : row["start"] + min(row["length"], 4096)]
    return BadRow(row["line"], "row-shape", content.decode("utf-8", "replace"))
