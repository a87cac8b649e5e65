"""Unpacking zip archives, as hostile bytes.

A zip is judged by its structure before a single byte of it is decompressed. Python's ``zipfile``
reads entries that overlap (57 KB become 10 GB) and trusts the central directory over the entries
themselves, so both are read here and must agree.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, BinaryIO

from pipeline.budget import AnySink, Budget, Caps, corrupt, unsafe
from pipeline.entries import check_names, is_litter, is_safe_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READ_BYTES = 1 << 20

_END = struct.Struct("<4s4H2LH")
_LOCAL = struct.Struct("<4s5H3L2H")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_ENCRYPTED = 0x1 | 0x40
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


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
        raise corrupt(name) from error


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
                raise corrupt(name)
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError) as error:
        raise corrupt(name) from error
    budget.take_entries(name, len(entries))
    for entry in entries:
        _check_entry(name, entry, budget)
    budget.check_ratio(name, file.seek(0, 2), sum(e.file_size for e in entries))
    check_names(name, [(e.filename, e.is_dir()) for e in entries])
    _check_layout(name, file, entries, start)
    return [e for e in entries if not e.is_dir() and not is_litter(e.filename)]


def _find_directory(name: str, file: BinaryIO, caps: Caps) -> int:
    """Find where the list of entries starts; it and its end record must end the file."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END.size - 0xFFFF))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise corrupt(name)
    _, disk, _, _, count, length, offset, comment = _END.unpack_from(tail, at)
    if at + _END.size + comment != len(tail) or disk not in (0, 0xFFFF):
        raise corrupt(name)
    end = size - len(tail) + at
    if count == 0xFFFF or 0xFFFFFFFF in (length, offset):  # noqa: PLR2004 - the zip64 marks
        count, length, offset, end = _read_zip64_end(name, file, end)
    if offset + length != end:
        raise unsafe(name, "has bytes that belong to no entry")
    if count > caps.entries or length > caps.directory_bytes:
        raise unsafe(name, f"holds more than {caps.entries} files")
    return int(offset)


def _read_zip64_end(name: str, file: BinaryIO, end: int) -> tuple[int, int, int, int]:
    start = end - _LOCATOR64.size - _END64.size
    if start < 0:
        raise corrupt(name)
    file.seek(start)
    magic, _, _, _, _, _, _, count, length, offset = _END64.unpack(file.read(_END64.size))
    locator, _, located, _ = _LOCATOR64.unpack(file.read(_LOCATOR64.size))
    if (magic, locator, located) != (b"PK\x06\x06", b"PK\x06\x07", start):
        raise corrupt(name)
    return count, length, offset, start


def _check_entry(name: str, entry: zipfile.ZipInfo, budget: Budget) -> None:
    if entry.flag_bits & _ENCRYPTED:
        raise unsafe(name, "is encrypted")
    if entry.compress_type not in _METHODS:
        raise unsafe(name, "uses a compression other than deflate")
    mode = entry.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise unsafe(name, "holds a link or a device")
    if not is_safe_path(entry.orig_filename):
        raise unsafe(name, "holds a name that leads elsewhere")
    budget.take_bytes(name, entry.file_size)
    budget.check_ratio(name, entry.compress_size, entry.file_size)


def _check_layout(
    name: str, file: BinaryIO, entries: list[zipfile.ZipInfo], directory_start: int
) -> None:
    """Every entry lies by itself, in front of the directory, and says of itself what the list says."""
    reached = 0
    for entry in sorted(entries, key=lambda e: e.header_offset):
        if entry.header_offset < reached:
            raise unsafe(name, "has entries that overlap")
        reached = _end_of(name, file, entry)
    if reached > directory_start:
        raise unsafe(name, "has entries that overlap")


def _end_of(name: str, file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    file.seek(entry.header_offset)
    header = file.read(_LOCAL.size)
    if len(header) != _LOCAL.size:
        raise corrupt(name)
    magic, _, flags, method, *_, name_length, extra_length = _LOCAL.unpack(header)
    own_name = file.read(name_length)
    if magic != b"PK\x03\x04":
        raise corrupt(name)
    encoded = entry.orig_filename.encode("utf-8" if entry.flag_bits & 0x800 else "cp437")
    if (own_name, method) != (encoded, entry.compress_type) or flags & _ENCRYPTED:
        raise unsafe(name, "describes an entry in two ways")
    data = int(entry.header_offset + _LOCAL.size + name_length + extra_length)
    return data + entry.compress_size
