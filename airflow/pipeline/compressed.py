"""Unpacking gzip and Zstandard, as hostile bytes."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

import zstandard

from pipeline.budget import Budget, Sink, corrupt, unsafe

READ_BYTES = 1 << 20
# What `zstd` itself accepts without being told otherwise; more could ask for gigabytes of memory.
MAX_WINDOW_BYTES = 1 << 27

_ZSTD_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A50
_LAST, _RAW, _RLE, _PACKED = 1, 0, 1, 2


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
            budget.check_time(name)
            budget.take_bytes(name, len(chunk))
            budget.check_ratio(name, packed, unpacked)
            target.write(chunk)
            pending = pending or file.read(READ_BYTES)
    except zlib.error as error:
        raise corrupt(name) from error
    if not inflater.eof:
        raise corrupt(name)


def unpack_zstd(name: str, file: BinaryIO, budget: Budget, target: Sink) -> None:
    """Unpack Zstandard of one or more frames, once its structure is known to be whole.

    Raises
    ------
    DeliveryError
        ``corrupt-archive`` if it is damaged or cut short, ``unsafe-archive`` if it grows too much
        or needs more memory than is given.
    """
    packed = check_zstd(name, file)
    file.seek(0)
    unpacked = 0
    inflater = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    try:
        with inflater.stream_reader(file, read_across_frames=True, closefd=False) as content:
            while chunk := content.read(READ_BYTES):
                unpacked += len(chunk)
                budget.check_time(name)
                budget.take_bytes(name, len(chunk))
                budget.check_ratio(name, packed, unpacked)
                target.write(chunk)
    except zstandard.ZstdError as error:
        if "too much memory" in str(error):
            raise unsafe(name, "needs more memory to unpack than is allowed") from error
        raise corrupt(name) from error


def check_zstd(name: str, file: BinaryIO) -> int:
    """Walk through frames and blocks without unpacking them; give the file's size.

    The library reads a stream that is cut short as if it ended there.

    Raises
    ------
    DeliveryError
        ``corrupt-archive``.
    """
    size, at = file.seek(0, 2), 0
    while at < size:
        at = _end_of_frame(name, file, at, size)
    if at != size or not size:
        raise corrupt(name)
    return size


def _end_of_frame(name: str, file: BinaryIO, at: int, size: int) -> int:
    file.seek(at)
    head = file.read(18)
    magic = int.from_bytes(head[:4], "little")
    if magic & 0xFFFFFFF0 == _SKIPPABLE and len(head) >= 8:  # noqa: PLR2004 - magic and length
        return at + 8 + int(struct.unpack_from("<L", head, 4)[0])
    if magic != _ZSTD_MAGIC:
        raise corrupt(name)
    try:
        at += zstandard.frame_header_size(head)
        has_checksum = zstandard.get_frame_parameters(head).has_checksum
    except zstandard.ZstdError as error:
        raise corrupt(name) from error
    while at < size:
        file.seek(at)
        block = int.from_bytes(file.read(3), "little")
        kind, length = block >> 1 & 3, block >> 3
        if kind not in (_RAW, _RLE, _PACKED):
            raise corrupt(name)
        at += 3 + (1 if kind == _RLE else length)
        if block & _LAST:
            return at + (4 if has_checksum else 0)
    raise corrupt(name)
