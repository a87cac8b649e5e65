"""Hostile archives, each refused before it can do harm."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest
import zstandard

from pipeline import archive, compressed, tape
from pipeline.budget import Budget, Caps
from pipeline.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT = b"flight,carrier,delay\n1,AA,2\n"


def build(change: Callable[[zipfile.ZipFile], None]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        change(made)
    return buffer.getvalue()


def named(*names: str, content: bytes = CONTENT) -> bytes:
    def add(made: zipfile.ZipFile) -> None:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, zipfile.ZIP_DEFLATED
            made.writestr(info, content)

    return build(add)


def with_mode(mode: int) -> bytes:
    info = zipfile.ZipInfo("link.csv")
    info.external_attr = mode << 16
    return build(lambda made: made.writestr(info, "/etc/passwd"))


def overlapping() -> bytes:
    """Give a zip whose list names the first entry's bytes twice."""
    whole = bytearray(named("a.csv", "b.csv"))
    second = whole.rfind(b"PK\x01\x02")
    struct.pack_into("<L", whole, second + 42, 0)
    return bytes(whole)


def nested_in_the_data() -> bytes:
    """Give a zip whose second entry lies within the stored bytes of the first."""
    inner = named("b.csv")
    inner_entry = inner[: inner.find(b"PK\x01\x02")]
    outer = bytearray(build(lambda z: z.writestr("a.csv", inner_entry, zipfile.ZIP_STORED)))
    directory = outer.find(b"PK\x01\x02", outer.find(b"a.csv") + len(inner_entry))
    end = outer.rfind(b"PK\x05\x06")
    extra = bytearray(inner[inner.find(b"PK\x01\x02") : inner.rfind(b"PK\x05\x06")])
    struct.pack_into("<L", extra, 42, outer.find(inner_entry))
    outer[end:end] = extra
    end += len(extra)
    struct.pack_into("<HHLL", outer, end + 8, 2, 2, end - directory, directory)
    return bytes(outer)


def with_flag(flag: int) -> bytes:
    whole = bytearray(named("a.csv"))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = whole.find(magic) + offset
        struct.pack_into("<H", whole, at, struct.unpack_from("<H", whole, at)[0] | flag)
    return bytes(whole)


def telling_two_names() -> bytes:
    whole = bytearray(named("a.csv"))
    whole[30:35] = b"b.csv"
    return bytes(whole)


def bzipped() -> bytes:
    return build(lambda made: made.writestr("a.csv", CONTENT, zipfile.ZIP_BZIP2))


UNSAFE = {
    "slip": named("../../evil.csv"),
    "slip inside": named("a/../../evil.csv"),
    "absolute": named("/etc/evil.csv"),
    "drive": named("C:evil.csv"),
    "backslash": named("..\\evil.csv"),
    "control": named("a\x01.csv"),
    "right to left": named("a\u202ecsv.exe"),
    "twice": named("a.csv", "A.csv"),
    "two normal forms": named("\u00e9.csv", "e\u0301.csv"),
    "symlink": with_mode(stat.S_IFLNK | 0o777),
    "device": with_mode(stat.S_IFCHR | 0o600),
    "encrypted": with_flag(0x1),
    "overlap": overlapping(),
    "nested overlap": nested_in_the_data(),
    "two names": telling_two_names(),
    "other compression": bzipped(),
    "bytes in front": b"#!/bin/sh\n" + named("a.csv"),
    "bomb": named("a.csv", content=b"0" * (20 << 20)),
    "file and folder": named("a.csv", "A.csv/b.csv"),
    "too many": named(*(f"{i}.csv" for i in range(60)), content=b""),
}


def unpack(content: bytes, caps: Caps | None = None) -> dict[str, bytes]:
    written: dict[str, bytes] = {}
    budget = Budget(caps or Caps(entries=50))
    for name, target in archive.unpack_zip(
        "x.zip", io.BytesIO(content), budget, lambda _: io.BytesIO()
    ):
        written[name] = target.getvalue()
    return written


@pytest.mark.parametrize("case", UNSAFE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_unsafe_zip_is_refused_before_anything_is_unpacked(case: str) -> None:
    def refuse(_: str) -> io.BytesIO:
        pytest.fail("something was unpacked")

    with pytest.raises(DeliveryError, match="unsafe-archive"):
        list(
            archive.unpack_zip("x.zip", io.BytesIO(UNSAFE[case]), Budget(Caps(entries=50)), refuse)
        )


def test_an_ordinary_zip_is_unpacked_whole() -> None:
    entries = named("a.csv", "folder/", "folder/b.csv", "__MACOSX/._a.csv", ".DS_Store")
    assert unpack(entries) == {"a.csv": CONTENT, "folder/b.csv": CONTENT}


def test_a_zip_written_as_a_stream_or_as_zip64_is_unpacked() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: object) -> int:
            raise io.UnsupportedOperation

        def tell(self) -> int:
            raise io.UnsupportedOperation

    pipe = Pipe()
    with (
        zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as made,
        made.open("a.csv", "w", force_zip64=True) as entry,
    ):
        entry.write(CONTENT)
    assert unpack(pipe.getvalue()) == {"a.csv": CONTENT}


def test_a_zip64_end_record_is_read_and_capped() -> None:
    plain = named("a.csv")
    end = plain.rfind(b"PK\x05\x06")
    start = plain.find(b"PK\x01\x02")
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, end - start, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    marks = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    whole = plain[:end] + record + locator + marks
    assert unpack(whole) == {"a.csv": CONTENT}
    with pytest.raises(DeliveryError, match="unsafe-archive"):
        unpack(whole, Caps(entries=0))


@pytest.mark.parametrize("position", [0, 26, 37, 45, -8])
def test_a_damaged_zip_is_refused(position: int) -> None:
    whole = bytearray(named("a.csv"))
    whole[position] ^= 0xFF
    with pytest.raises(DeliveryError, match=r"corrupt-archive|unsafe-archive"):
        unpack(bytes(whole))


@pytest.mark.parametrize("length", range(1, len(named("a.csv")), 7))
def test_a_zip_cut_short_is_corrupt(length: int) -> None:
    with pytest.raises(DeliveryError, match="corrupt-archive"):
        unpack(named("a.csv")[:length])


def gunzip(content: bytes, caps: Caps | None = None) -> bytes:
    target = io.BytesIO()
    compressed.unpack_gzip("x.gz", io.BytesIO(content), Budget(caps or Caps()), target)
    return target.getvalue()


def test_gzip_members_are_joined() -> None:
    assert gunzip(gzip.compress(CONTENT) + gzip.compress(CONTENT)) == CONTENT * 2


def test_a_gzip_bomb_is_stopped_while_it_unpacks() -> None:
    with pytest.raises(DeliveryError, match="unsafe-archive"):
        gunzip(gzip.compress(b"0" * (30 << 20)))
    with pytest.raises(DeliveryError, match="unsafe-archive"):
        gunzip(gzip.compress(b"0" * 5000), Caps(total_bytes=4000))


@pytest.mark.parametrize("cut", [1, 8, 12])
def test_a_gzip_cut_short_is_corrupt(cut: int) -> None:
    with pytest.raises(DeliveryError, match="corrupt-archive"):
        gunzip(gzip.compress(CONTENT)[:-cut])


def test_a_large_gzip_arrives_whole() -> None:
    content = bytes(range(256)) * (12 << 10)
    assert gunzip(gzip.compress(content)) == content


def tar_of(*entries: tarfile.TarInfo, content: bytes = CONTENT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as made:
        for entry in entries:
            entry.size = len(content) if entry.isreg() else 0
            made.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, **options: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for option, value in options.items():
        setattr(info, option, value)
    return info


def with_header(header: bytes) -> bytes:
    """Put a header of one's own in front of an ordinary tar, with the right sum."""
    header = header.ljust(512, b"\0")
    header = header[:148] + b" " * 8 + header[156:]
    header = header[:148] + b"%06o\0 " % sum(header) + header[156:]
    return header + tar_of(entry("a.csv"))


UNSAFE_TARS = {
    "slip": tar_of(entry("../evil.csv")),
    "absolute": tar_of(entry("/etc/evil.csv")),
    "long name that slips": tar_of(entry("x/" * 80 + "../evil.csv")),
    "link": tar_of(entry("a.csv", tarfile.SYMTYPE, linkname="/etc/passwd")),
    "hard link": tar_of(entry("a.csv"), entry("b.csv", tarfile.LNKTYPE, linkname="a.csv")),
    "device": tar_of(entry("a.csv", tarfile.CHRTYPE)),
    "fifo": tar_of(entry("a.csv", tarfile.FIFOTYPE)),
    "twice": tar_of(entry("a.csv"), entry("./A.csv")),
    "file and folder": tar_of(entry("a.csv"), entry("a.csv/b.csv")),
    "sparse": tar_of(entry("a.csv", pax_headers={"GNU.sparse.major": "1"})),
    "old sparse": tar_of(entry("a.csv", tarfile.GNUTYPE_SPARSE)),
    "bytes behind": tar_of(entry("a.csv")) + b"#!/bin/sh" + bytes(503),
    "long record": with_header(b"x".ljust(124, b"\0") + b"77777777777\0".ljust(32, b"\0") + b"x"),
    "too many": tar_of(*(entry(f"{i}.csv") for i in range(60)), content=b""),
}


def untar(content: bytes, caps: Caps | None = None) -> dict[str, bytes]:
    entries = tape.unpack_tar(
        "x.tar", io.BytesIO(content), Budget(caps or Caps(entries=50)), lambda _: io.BytesIO()
    )
    return {name: target.getvalue() for name, target in entries}


@pytest.mark.parametrize("case", UNSAFE_TARS)
def test_an_unsafe_tar_is_refused_before_anything_is_unpacked(case: str) -> None:
    def refuse(_: str) -> io.BytesIO:
        pytest.fail("something was unpacked")

    content = io.BytesIO(UNSAFE_TARS[case])
    with pytest.raises(DeliveryError, match=r"unsafe-archive|corrupt-archive") as failure:
        list(tape.unpack_tar("x.tar", content, Budget(Caps(entries=50)), refuse))
    assert failure.value.code == ("corrupt-archive" if case == "long record" else "unsafe-archive")


@pytest.mark.parametrize(
    "style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=str
)
def test_an_ordinary_tar_of_any_style_is_unpacked_whole(style: int) -> None:
    names = ["a.csv", "./f/b.csv", "ü/c.csv", "long/" * 15 + "d" * 60 + ".csv", "._a.csv"]
    names += ["x" * 180 + ".csv"] * (style != tarfile.USTAR_FORMAT)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=style) as made:
        made.addfile(entry("./", tarfile.DIRTYPE))
        made.addfile(entry("f", tarfile.DIRTYPE))
        for i, name in enumerate(names):
            content = CONTENT * i
            made.addfile(entry(name, size=len(content), mtime=0.5), io.BytesIO(content))
    wanted = {n.removeprefix("./"): CONTENT * i for i, n in enumerate(names) if n != "._a.csv"}
    assert untar(buffer.getvalue()) == wanted


@pytest.mark.parametrize("length", [1, 511, 513, 700, 1024, 1535])
def test_a_tar_cut_short_is_corrupt(length: int) -> None:
    content = tar_of(entry("a.csv", mtime=0), entry("b.csv", mtime=0))
    with pytest.raises(DeliveryError, match="corrupt-archive"):
        untar(content[:length])


@pytest.mark.parametrize("position", [0, 100, 124, 148, 156, 1024 + 124])
def test_a_damaged_tar_is_refused(position: int) -> None:
    content = bytearray(tar_of(entry("a.csv", mtime=0), entry("b.csv", mtime=0)))
    content[position] ^= 0x55
    with pytest.raises(DeliveryError, match=r"corrupt-archive|unsafe-archive"):
        untar(bytes(content))


def unzstd(content: bytes, caps: Caps | None = None) -> bytes:
    target = io.BytesIO()
    compressed.unpack_zstd("x.zst", io.BytesIO(content), Budget(caps or Caps()), target)
    return target.getvalue()


def pressed(content: bytes, **options: object) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(content)


def test_zstd_frames_are_joined_and_what_is_to_be_skipped_is() -> None:
    skipped = struct.pack("<LL", 0x184D2A53, 5) + b"notes"
    content = bytes(range(256)) * 4000
    frames = pressed(CONTENT, write_checksum=True) + skipped + pressed(content) + pressed(b"")
    assert unzstd(frames) == CONTENT + content


def test_a_zstd_bomb_is_stopped_while_it_unpacks() -> None:
    bomb = pressed(bytes(300 << 20))
    with pytest.raises(DeliveryError, match="grows more than"):
        unzstd(bomb)
    with pytest.raises(DeliveryError, match="unpacks to more"):
        unzstd(pressed(bytes(5000)), Caps(total_bytes=4000))
    with pytest.raises(DeliveryError, match="takes longer"):
        unzstd(pressed(bytes(5000)), Caps(seconds=0))


def test_zstd_that_needs_gigabytes_of_memory_is_refused() -> None:
    rules = zstandard.ZstdCompressionParameters.from_level(
        1, window_log=30, enable_ldm=True, write_content_size=False
    )
    packer = zstandard.ZstdCompressor(compression_params=rules).compressobj()
    with pytest.raises(DeliveryError, match="needs more memory"):
        unzstd(packer.compress(CONTENT) + packer.flush())


@pytest.mark.parametrize("length", [*range(1, 40, 3), -1, -4])
def test_zstd_cut_short_or_damaged_is_corrupt(length: int) -> None:
    whole = pressed(CONTENT * 9, write_checksum=True)
    with pytest.raises(DeliveryError, match="corrupt-archive"):
        unzstd(whole[:length])
    damaged = bytearray(whole)
    damaged[length % len(whole)] ^= 0xFF
    with pytest.raises(DeliveryError, match=r"corrupt-archive|unsafe-archive"):
        unzstd(bytes(damaged))
