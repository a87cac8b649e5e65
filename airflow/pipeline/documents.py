"""JSON as rows of text: an array of objects, or one object per line.

Numbers keep the text that they have in the file: nothing is rounded on the way.
"""

from __future__ import annotations

import codecs
import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from pipeline.records import BadRow, LineTooLongError, Rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

BATCH_ROWS = 20_000
_BLANK = " \t\r\n"


class DocumentError(Exception):
    """JSON that cannot be read any further; ``record`` is counted from 1."""

    def __init__(self, record: int) -> None:
        super().__init__(f"record {record} cannot be read")
        self.record = record


class _NoRecordError(ValueError):
    """What stands there is JSON, but no object with each name once."""


@dataclass(frozen=True)
class _Number:
    """A number, by its text."""

    text: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _NoRecordError
    return value


_HOOKS: dict[str, Any] = {
    "object_pairs_hook": _object,
    "parse_float": _Number,
    "parse_int": _Number,
    "parse_constant": _Number,
}
_DECODER = json.JSONDecoder(**_HOOKS)


def names_in(head: str, kind: str) -> list[str]:
    """Give the names in the first record, which stand for a heading.

    Later records may leave some out; one that has others is refused by itself.
    """
    records = _lines(head) if kind == "ndjson" else _elements([head.encode()], len(head))
    with contextlib.suppress(DocumentError):
        for value, _ in records:
            if isinstance(value, dict):
                return list(value)
    return []


def _lines(text: str) -> Iterator[tuple[Any, str]]:
    for line in text.split("\n"):
        if line.strip():
            yield _parsed(line), line


def _parsed(line: str) -> Any:
    try:
        return _DECODER.decode(line)
    except (ValueError, RecursionError):
        return None


def rows_of_lines(
    blocks: Iterable[bytes], names: Sequence[str], first_line: int, line_bytes: int
) -> Iterator[Rows]:
    """Give one object per line as rows; a line that is none costs itself.

    Raises
    ------
    LineTooLongError
        If a line is longer than ``line_bytes``.
    """
    batch = _Batch(names)
    held, line = b"", first_line
    for block in _ended(blocks):
        held += block
        cut = held.rfind(b"\n") + 1
        if len(held) - cut > line_bytes:
            raise LineTooLongError(line)
        lines, held = held[:cut].decode().split("\n"), held[cut:]
        lines.pop()
        for text in lines:
            if text.strip():
                batch.add(line, _parsed(text), text)
            line += 1
            if batch.is_full:
                yield batch.taken()
    yield batch.taken()


def _ended(blocks: Iterable[bytes]) -> Iterator[bytes]:
    yield from blocks
    yield b"\n"


def rows_of_array(
    blocks: Iterable[bytes], names: Sequence[str], record_bytes: int
) -> Iterator[Rows]:
    """Give the objects of an array as rows; the line of each is its place in the array, from 1.

    Raises
    ------
    DocumentError
        If the array breaks off, or stops being JSON.
    """
    batch = _Batch(names)
    for number, (value, text) in enumerate(_elements(blocks, record_bytes), start=1):
        batch.add(number, value, text)
        if batch.is_full:
            yield batch.taken()
    yield batch.taken()


def _elements(blocks: Iterable[bytes], record_bytes: int) -> Iterator[tuple[Any, str]]:
    """Give each element of an array, or None for one that is no record, and its text."""
    reader = _Reader(blocks, record_bytes)
    reader.expect("[")
    if reader.peek() == "]":
        reader.end()
        return
    while True:
        yield reader.element()
        if reader.expect(",]") == "]":
            reader.end()
            return


class _Reader:
    """Reads an array from text that comes block by block, holding one element and one block."""

    def __init__(self, blocks: Iterable[bytes], record_bytes: int) -> None:
        self.blocks = iter(blocks)
        self.record_bytes = record_bytes
        self.text = ""
        self.at = 0
        self.record = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def _more(self) -> bool:
        block = next(self.blocks, None)
        if block is None:
            return False
        self.text = self.text[self.at :] + self._decoder.decode(block)
        self.at = 0
        return True

    def peek(self) -> str:
        while True:
            while self.at < len(self.text) and self.text[self.at] in _BLANK:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more():
                return ""

    def expect(self, signs: str) -> str:
        sign = self.peek()
        if not sign or sign not in signs:
            raise DocumentError(self.record + 1)
        self.at += 1
        return sign

    def end(self) -> None:
        if self.peek() == "]":
            self.at += 1
        if self.peek():
            raise DocumentError(self.record + 1)

    def element(self) -> tuple[Any, str]:
        self.record += 1
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except _NoRecordError:
                value, end = self._skip()
            except RecursionError as error:
                raise DocumentError(self.record) from error
            except ValueError as error:
                too_long = len(self.text) - self.at > self.record_bytes
                if too_long or not self._more():
                    raise DocumentError(self.record) from error
                continue
            if end < len(self.text) or not self._more_after(end):
                text = self.text[self.at : min(end, self.at + 4096)]
                self.at = end
                return value, text

    def _more_after(self, end: int) -> bool:
        """Look whether an element that ends where the text ends so far goes on: a number may."""
        return self.text[end - 1] not in '}]"' and self._more()

    def _skip(self) -> tuple[None, int]:
        _, end = json.JSONDecoder().raw_decode(self.text, self.at)
        return None, end


class _Batch:
    """Records gathered into a frame; what is no record of these names is a bad row."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.known = set(names)
        self.columns: list[list[str | None]] = [[] for _ in names]
        self.lines: list[int] = []
        self.bad: list[BadRow] = []

    @property
    def is_full(self) -> bool:
        limit = max(1, BATCH_ROWS * 10 // max(10, len(self.names)))
        return len(self.lines) + len(self.bad) >= limit

    def add(self, line: int, value: Any, text: str) -> None:
        if not isinstance(value, dict):
            self.bad.append(BadRow(line, "row-shape", text[:4096]))
        elif not value.keys() <= self.known:
            unknown = ", ".join(name for name in value if name not in self.known)
            self.bad.append(BadRow(line, "unknown-columns", unknown))
        else:
            self.lines.append(line)
            for name, column in zip(self.names, self.columns, strict=True):
                column.append(_text(value.get(name)))

    def taken(self) -> Rows:
        schema = {f"c{i}": pl.String for i in range(len(self.names))}
        data = dict(zip(schema, self.columns, strict=True))
        frame = pl.DataFrame(data, schema=schema)
        frame = frame.with_columns(pl.Series("_line", self.lines, dtype=pl.Int64))
        rows = Rows(frame, self.bad)
        self.columns, self.lines, self.bad = [[] for _ in self.names], [], []
        return rows


def _text(value: Any) -> str | None:
    match value:
        case _Number():
            return value.text
        case str():
            return value.encode("utf-8", "replace").decode() or None
        case bool():
            return "true" if value else "false"
        case None:
            return None
        case _:
            return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Give a value within a value back the numbers that `json` writes."""
    if isinstance(value, _Number):
        return json.loads(value.text)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value
