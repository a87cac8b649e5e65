"""Unpacking tar, as hostile bytes.

All headers are read and judged before the first file is copied out. Only what names and sizes need
is understood: plain and POSIX headers, pax records and GNU's long names. Links, devices and sparse
files are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from pipeline.budget import AnySink, Budget, corrupt, unsafe
from pipeline.entries import check_names, is_litter, is_safe_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READ_BYTES = 1 << 20
MAX_RECORD_BYTES = 1 << 20
_BLOCK = 512
_FILES, _FOLDER = (b"0", b"\0", b"7"), b"5"
_PAX, _PAX_FOR_ALL, _LONG_NAME = b"x", b"g", b"L"
_BINARY_NUMBER = 0x80


@dataclass(frozen=True)
class Entry:
    """A file or folder of a tar, and where its bytes lie."""

    path: str
    start: int
    size_bytes: int
    is_folder: bool


def unpack_tar(
    name: str, file: BinaryIO, budget: Budget, sink: Callable[[str], AnySink]
) -> Iterator[tuple[str, AnySink]]:
    """Unpack a tar, file by file, in the order in which they lie in it.

    Yields
    ------
    tuple of entry name and its sink, when all bytes of the entry are written.

    Raises
    ------
    DeliveryError
        ``corrupt-archive`` if it cannot be read, ``unsafe-archive`` if it should not be.
    """
    for entry in checked_tar(name, file, budget):
        target = sink(entry.path)
        file.seek(entry.start)
        left = entry.size_bytes
        while left:
            chunk = file.read(min(left, READ_BYTES))
            if not chunk:
                raise corrupt(name)
            budget.check_time(name)
            target.write(chunk)
            left -= len(chunk)
        yield entry.path, target


def checked_tar(name: str, file: BinaryIO, budget: Budget) -> list[Entry]:
    """Judge a tar's structure; give the files in it.

    Raises
    ------
    DeliveryError
        ``corrupt-archive`` or ``unsafe-archive``.
    """
    entries = list(_Walk(name, file, budget))
    for entry in entries:
        if not is_safe_path(entry.path):
            raise unsafe(name, "holds a name that leads elsewhere")
    check_names(name, [(e.path, e.is_folder) for e in entries])
    return [e for e in entries if not e.is_folder and not is_litter(e.path)]


class _Walk:
    """Goes from header to header; what is said ahead of a header holds for the next one."""

    def __init__(self, name: str, file: BinaryIO, budget: Budget) -> None:
        self.name = name
        self.file = file
        self.budget = budget
        self.size = file.seek(0, 2)
        self.said: dict[str, str] = {}

    def __iter__(self) -> Iterator[Entry]:
        at = 0
        while (header := self._read(at, _BLOCK)).strip(b"\0"):
            self._check_sum(header)
            self.budget.check_time(self.name)
            size = self._number(self.said.get("size"), header[124:136])
            start, kind = at + _BLOCK, header[156:157]
            if start + size > self.size:
                raise corrupt(self.name)
            if kind in (_PAX, _PAX_FOR_ALL, _LONG_NAME):
                self._hear(kind, start, size)
            else:
                entry = self._entry(header, kind, start, size)
                if entry is not None:
                    self.budget.take_entries(self.name, 1)
                    yield entry
            at = start + -(-size // _BLOCK) * _BLOCK
        self._check_end(at)

    def _read(self, at: int, length: int) -> bytes:
        self.file.seek(at)
        content = self.file.read(length)
        if len(content) != length:
            raise corrupt(self.name)
        return content

    def _check_sum(self, header: bytes) -> None:
        stated = self._number(None, header[148:156])
        if stated != sum(header[:148]) + 8 * 0x20 + sum(header[156:]):
            raise corrupt(self.name)

    def _number(self, said: str | None, field: bytes) -> int:
        if said is None and field[0] & _BINARY_NUMBER:
            return int.from_bytes(field[1:], "big")
        text = said.encode() if said is not None else field.strip(b" \0")
        try:
            number = int(text or b"0", 10 if said is not None else 8)
        except ValueError as error:
            raise corrupt(self.name) from error
        if number < 0:
            raise corrupt(self.name)
        return number

    def _hear(self, kind: bytes, start: int, size: int) -> None:
        if size > MAX_RECORD_BYTES:
            raise unsafe(self.name, "holds a header that is too long")
        content = self._read(start, size)
        if kind == _LONG_NAME:
            self.said = {**self.said, "path": self._text(content.rstrip(b"\0"))}
            return
        records = self._records(content)
        if any(key.startswith("GNU.sparse") for key in records):
            raise unsafe(self.name, "holds a sparse file")
        if kind == _PAX_FOR_ALL and records.keys() & {"path", "size", "linkpath"}:
            raise unsafe(self.name, "gives one name or size to all its files")
        if kind == _PAX:
            self.said = {**self.said, **records}

    def _records(self, content: bytes) -> dict[str, str]:
        records: dict[str, str] = {}
        while content.strip(b"\0"):
            length, blank, _ = content.partition(b" ")
            if not blank or not length.isdigit() or not len(length) < int(length) <= len(content):
                raise corrupt(self.name)
            record = content[len(length) + 1 : int(length)]
            key, sign, value = record.partition(b"=")
            if not sign or not value.endswith(b"\n"):
                raise corrupt(self.name)
            if key in (b"path", b"size") or key.startswith(b"GNU."):
                records[self._text(key)] = self._text(value[:-1])
            content = content[int(length) :]
        return records

    def _entry(self, header: bytes, kind: bytes, start: int, size: int) -> Entry | None:
        path = self.said.get("path") or self._path_of(header)
        self.said = {}
        is_folder = kind == _FOLDER or (kind == b"\0" and path.endswith("/"))
        if not is_folder and kind not in _FILES:
            raise unsafe(self.name, "holds a link or a device")
        while path.startswith("./"):
            path = path[2:]
        path = path.removesuffix("/") if is_folder else path
        if is_folder and path in ("", "."):
            return None
        return Entry(path, start, size, is_folder)

    def _path_of(self, header: bytes) -> str:
        name = header[:100].partition(b"\0")[0]
        prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
        return self._text(prefix + b"/" + name if prefix else name)

    def _text(self, content: bytes) -> str:
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            return content.decode("cp437")

    def _check_end(self, at: int) -> None:
        """Nothing may follow the block of zeros that ends a tar, except more of them."""
        if self.said:
            raise corrupt(self.name)
        self.file.seek(at)
        while rest := self.file.read(READ_BYTES):
            if rest.strip(b"\0"):
                raise unsafe(self.name, "has bytes that belong to no entry")
