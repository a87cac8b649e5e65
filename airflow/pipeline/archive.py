"""Unpacking what clients send: zip and gzip, as hostile bytes.

A zip is judged by its structure before a single byte of it is decompressed. Python's ``zipfile``
reads entries that overlap (57 KB become 10 GB) and trusts the central directory over the entries
themselves, so both are read here and must agree.
"""

from __future__ import annotations

import stat
import struct
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar

from pipeline.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READ_BYTES = 1 << 20
# With the archive's own name in front, a path still fits where rejects are kept.
MAX_PATH_BYTES = 700
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
GZIP_MAGIC = b"\x1f\x8b"

_END = struct.Struct("<4s4H2LH")
_LOCAL = struct.Struct("<4s5H3L2H")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_ENCRYPTED = 0x1 | 0x40
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_IGNORED = ("__macosx/",)


@dataclass(frozen=True)
class Caps:
    """How much an archive may ask of us."""

    entries: int = 10_000
    total_bytes: int = 256 << 30
    ratio: int = 250
    ratio_free_bytes: int = 10 << 20
    directory_bytes: int = 16 << 20


class Sink(Protocol):
    """Takes the bytes of one unpacked file."""

    def write(self, chunk: bytes, /) -> object:
        """Take one chunk."""


AnySink = TypeVar("AnySink", bound=Sink)


def kind_of(file: BinaryIO) -> str:
    """Tell by its first bytes whether a file is ``zip``, ``gzip`` or ``plain``."""
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    if head in ZIP_MAGIC:
        return "zip"
    return "gzip" if head[:2] == GZIP_MAGIC else "plain"


def is_archive(head: bytes) -> bool:
    """Tell whether a file that begins like this is packed."""
    return head[:4] in ZIP_MAGIC or head[:2] == GZIP_MAGIC


def claims_archive(name: str) -> str | None:
    """Tell what a file's name says it is, or None if it says nothing of archives."""
    lowered = name.lower()
    if lowered.endswith((".zip", ".gz", ".gzip")):
        return "zip" if lowered.endswith(".zip") else "gzip"
    return None


class Budget:
    """What all archives of one delivery may still unpack to."""

    def __init__(self, caps: Caps) -> None:
        self.caps = caps
        self.entries = 0
        self.total_bytes = 0

    def take_entries(self, name: str, count: int) -> None:
        """Count entries.

        Raises
        ------
        DeliveryError
            ``unsafe-archive`` if that is too many.
        """
        self.entries += count
        if self.entries > self.caps.entries:
            raise _unsafe(name, f"holds more than {self.caps.entries} files")

    def take_bytes(self, name: str, count: int) -> None:
        """Count unpacked bytes.

        Raises
        ------
        DeliveryError
            ``unsafe-archive`` if that is too many.
        """
        self.total_bytes += count
        if self.total_bytes > self.caps.total_bytes:
            raise _unsafe(name, "unpacks to more than is allowed")

    def check_ratio(self, name: str, packed: int, unpacked: int) -> None:
        """Refuse what grows out of proportion.

        Raises
        ------
        DeliveryError
            ``unsafe-archive``.
        """
        if unpacked > self.caps.ratio_free_bytes and unpacked > packed * self.caps.ratio:
            raise _unsafe(name, f"grows more than {self.caps.ratio} times when unpacked")


def unpack_zip(
    name: str, file: BinaryIO, budget: Budget, sink: Callable[[str], AnySink]
) -> Iterator[tuple[str, AnySink]]:
    """Unpack a zip, entry by entry, in the order in which they lie in it.

    Parameters
    ----------
    name
        The archive's name, for messages.
    sink
        Called with each entry's name; gives the place for its bytes.

    Yields
    ------
    tuple of entry name and its sink, when all bytes of the entry are written.

    Raises
    ------
    DeliveryError
        ``corrupt-archive`` if it cannot be read, ``unsafe-archive`` if it should not be.
    """
    entries = checked_entries(name, file, budget)
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in entries:
                target = sink(entry.filename)
                with archive.open(entry) as content:
                    while chunk := content.read(READ_BYTES):
                        target.write(chunk)
                yield entry.filename, target
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError) as error:
        raise _corrupt(name) from error


def checked_entries(name: str, file: BinaryIO, budget: Budget) -> list[zipfile.ZipInfo]:
    """Judge a zip's structure; give the files in it.

    Raises
    ------
    DeliveryError
        ``corrupt-archive`` or ``unsafe-archive``.
    """
    start = _find_directory(name, file, budget.caps)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if archive.start_dir != start:
                raise _corrupt(name)
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError) as error:
        raise _corrupt(name) from error
    budget.take_entries(name, len(entries))
    for entry in entries:
        _check_entry(name, entry, budget)
    budget.check_ratio(name, file.seek(0, 2), sum(e.file_size for e in entries))
    _check_names(name, entries)
    _check_layout(name, file, entries, start)
    return [e for e in entries if not e.is_dir() and not _is_litter(e.filename)]


def _is_litter(entry_name: str) -> bool:
    """Whether an entry is what desktop systems add by themselves."""
    return entry_name.lower().startswith(_IGNORED) or entry_name.rsplit("/", 1)[-1] == ".DS_Store"


def _find_directory(name: str, file: BinaryIO, caps: Caps) -> int:
    """Find where the list of entries starts; it and its end record must end the file."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END.size - 0xFFFF))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise _corrupt(name)
    _, disk, _, _, count, length, offset, comment = _END.unpack_from(tail, at)
    if at + _END.size + comment != len(tail) or disk not in (0, 0xFFFF):
        raise _corrupt(name)
    end = size - len(tail) + at
    if count == 0xFFFF or 0xFFFFFFFF in (length, offset):  # noqa: PLR2004 - the zip64 marks
        count, length, offset, end = _read_zip64_end(name, file, end)
    if offset + length != end:
        raise _unsafe(name, "has bytes that belong to no entry")
    if count > caps.entries or length > caps.directory_bytes:
        raise _unsafe(name, f"holds more than {caps.entries} files")
    return int(offset)


def _read_zip64_end(name: str, file: BinaryIO, end: int) -> tuple[int, int, int, int]:
    start = end - _LOCATOR64.size - _END64.size
    if start < 0:
        raise _corrupt(name)
    file.seek(start)
    magic, _, _, _, _, _, _, count, length, offset = _END64.unpack(file.read(_END64.size))
    locator, _, located, _ = _LOCATOR64.unpack(file.read(_LOCATOR64.size))
    if (magic, locator, located) != (b"PK\x06\x06", b"PK\x06\x07", start):
        raise _corrupt(name)
    return count, length, offset, start


def _check_entry(name: str, entry: zipfile.ZipInfo, budget: Budget) -> None:
    if entry.flag_bits & _ENCRYPTED:
        raise _unsafe(name, "is encrypted")
    if entry.compress_type not in _METHODS:
        raise _unsafe(name, "uses a compression other than deflate")
    mode = entry.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _unsafe(name, "holds a link or a device")
    if not _is_safe_path(entry.orig_filename):
        raise _unsafe(name, "holds a name that leads elsewhere")
    budget.take_bytes(name, entry.file_size)
    budget.check_ratio(name, entry.compress_size, entry.file_size)


def _is_safe_path(path: str) -> bool:
    parts = path.removesuffix("/").split("/")
    return (
        len(path.encode("utf-8", "replace")) <= MAX_PATH_BYTES
        and not any(part in ("", ".", "..") for part in parts)
        and "\\" not in path
        and ":" not in parts[0]
        and all(unicodedata.category(c)[0] != "C" for c in path)
    )


def _check_names(name: str, entries: list[zipfile.ZipInfo]) -> None:
    keys = [unicodedata.normalize("NFKC", e.filename).casefold() for e in entries]
    if len(set(keys)) != len(keys):
        raise _unsafe(name, "holds two files of the same name")


def _check_layout(
    name: str, file: BinaryIO, entries: list[zipfile.ZipInfo], directory_start: int
) -> None:
    """Every entry lies by itself, in front of the directory, and says of itself what the list says."""
    reached = 0
    for entry in sorted(entries, key=lambda e: e.header_offset):
        if entry.header_offset < reached:
            raise _unsafe(name, "has entries that overlap")
        reached = _end_of(name, file, entry)
    if reached > directory_start:
        raise _unsafe(name, "has entries that overlap")


def _end_of(name: str, file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    file.seek(entry.header_offset)
    header = file.read(_LOCAL.size)
    if len(header) != _LOCAL.size:
        raise _corrupt(name)
    magic, _, flags, method, *_, name_length, extra_length = _LOCAL.unpack(header)
    own_name = file.read(name_length)
    if magic != b"PK\x03\x04":
        raise _corrupt(name)
    encoded = entry.orig_filename.encode("utf-8" if entry.flag_bits & 0x800 else "cp437")
    if (own_name, method) != (encoded, entry.compress_type) or flags & _ENCRYPTED:
        raise _unsafe(name, "describes an entry in two ways")
    data = int(entry.header_offset + _LOCAL.size + name_length + extra_length)
    return data + entry.compress_size


def unpack_gzip(name: str, file: BinaryIO, budget: Budget, target: Sink) -> None:
    """Unpack a gzip of one or more members.

    Raises
    ------
    DeliveryError
        ``corrupt-archive`` if it is damaged or cut short, ``unsafe-archive`` if it grows too much.
    """
    file.seek(0)
    packed = unpacked = 0
    inflater = zlib.decompressobj(wbits=31)
    pending = file.read(READ_BYTES)
    try:
        while pending:
            if inflater.eof:
                inflater = zlib.decompressobj(wbits=31)
            packed += len(pending)
            chunk = inflater.decompress(pending, READ_BYTES)
            pending = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            packed -= len(pending)
            unpacked += len(chunk)
            budget.take_bytes(name, len(chunk))
            budget.check_ratio(name, packed, unpacked)
            target.write(chunk)
            pending = pending or file.read(READ_BYTES)
    except zlib.error as error:
        raise _corrupt(name) from error
    if not inflater.eof:
        raise _corrupt(name)


def _corrupt(name: str) -> DeliveryError:
    return DeliveryError("corrupt-archive", f"{name} is damaged or cut short")


def _unsafe(name: str, reason: str) -> DeliveryError:
    return DeliveryError("unsafe-archive", f"{name} {reason}")
