"""Bytes of a file as text: which encoding, which delimiter, which heading; then as UTF-8 blocks."""

from __future__ import annotations

import codecs
import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.contract import Contract

READ_BYTES = 256 << 10
HEAD_BYTES = 1 << 20
DELIMITERS = (",", ";", "\t", "|")
# Stands for bytes that are not text: a noncharacter, which no text may contain.
BROKEN = "\ufdd0"

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return BROKEN, error.end


codecs.register_error("ingest-mark", _mark)


@dataclass(frozen=True)
class Dialect:
    """How a file is written down.

    ``broken`` tells that some bytes may be no text in this encoding: their rows are refused.
    """

    encoding: str
    delimiter: str
    bare_cr: bool = False
    broken: bool = False


class EncodingScan:
    """Finds the encoding of a file while its bytes pass by on their way elsewhere."""

    def __init__(self) -> None:
        self.head = b""
        self.size_bytes = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._open = False
        self._broken = 0
        self._beyond_ascii = 0
        self._cp1252 = True

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self.size_bytes += len(chunk)
        if len(self.head) < HEAD_BYTES:
            self.head += chunk[: HEAD_BYTES - len(self.head)]
        if not self._open and chunk.isascii():
            return
        self._count(self._decoder.decode(chunk))
        self._open = bool(self._decoder.getstate()[0])
        self._cp1252 = self._cp1252 and not chunk.translate(None, _IN_CP1252)

    def _count(self, text: str) -> None:
        beyond = len(text) - len(text.encode("ascii", "ignore"))
        escaped = len(text) - len(text.encode("utf-8", "ignore").decode())
        self._broken += escaped
        self._beyond_ascii += beyond - escaped

    def encoding(self) -> tuple[str, bool]:
        """Give the encoding, and whether some bytes may be no text in it.

        A file that is not UTF-8 is taken for Windows-1252 (or Latin-1, where it uses bytes that
        1252 leaves open), unless it holds more good UTF-8 sequences than broken ones: text in a
        single-byte encoding hardly ever looks like that.
        """
        for bom, name in _BOMS:
            if self.head.startswith(bom):
                return name, self._is_broken(name)
        if guess := _utf16_without_bom(self.head):
            return guess, True
        self._count(self._decoder.decode(b"", final=True))
        if not self._broken:
            return "utf-8", False
        if self._beyond_ascii > self._broken:
            return "utf-8", True
        return ("cp1252" if self._cp1252 else "latin-1"), False

    def _is_broken(self, name: str) -> bool:
        return name == "utf-16" or self._broken > 0


_IN_CP1252 = bytes(b for b in range(256) if b not in (0x81, 0x8D, 0x8F, 0x90, 0x9D))


def _utf16_without_bom(head: bytes) -> str | None:
    sample = head[: 4096 // 2 * 2]
    zeros = sample.count(0)
    if len(sample) < 8 or zeros * 10 < len(sample) * 3:  # noqa: PLR2004 - 30 % of all bytes
        return None
    odd = sample[1::2].count(0)
    if odd * 10 > zeros * 9:
        return "utf-16-le"
    return "utf-16-be" if odd * 10 < zeros else None


def decode_head(scan: EncodingScan) -> str:
    """Give the beginning of a file as text."""
    encoding, _ = scan.encoding()
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    return decoder.decode(scan.head)


def heading_of(text: str, delimiter: str) -> list[str]:
    """Give the fields of the first line that is not blank."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    try:
        for row in csv.reader((line + "\n" for line in lines), delimiter=delimiter):
            if row:
                return [field.strip() for field in row]
    except csv.Error:
        pass
    return []


def find_dialect(scan: EncodingScan, contract: Contract) -> tuple[Dialect, list[str]]:
    """Find how a file is written down, and its heading.

    The delimiter is the one under which the heading names most columns that the contract knows;
    where it knows none, the one that splits the heading most often.
    """
    text = decode_head(scan)
    known = {name for t in contract.tables for c in t.columns for name in c.source_names}

    def fitness(delimiter: str) -> tuple[int, int]:
        heading = heading_of(text, delimiter)
        return len(known & set(heading)), len(heading)

    delimiter = max(DELIMITERS, key=fitness)
    encoding, broken = scan.encoding()
    bare_cr = "\r" in text and "\n" not in text
    return Dialect(encoding, delimiter, bare_cr, broken), heading_of(text, delimiter)


def utf8_blocks(file: BinaryIO, dialect: Dialect) -> Iterator[bytes]:
    """Give a file's text as UTF-8, without a byte order mark, block by block."""
    if dialect.encoding == "utf-8" and not dialect.broken:
        blocks = iter(lambda: file.read(READ_BYTES), b"")
    else:
        blocks = _decoded(file, dialect)
    for block in blocks:
        yield block.replace(b"\r", b"\n") if dialect.bare_cr else block


def _decoded(file: BinaryIO, dialect: Dialect) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(dialect.encoding)("ingest-mark")
    while chunk := file.read(READ_BYTES):
        yield decoder.decode(chunk).encode("utf-8")
    yield decoder.decode(b"", final=True).encode("utf-8")
