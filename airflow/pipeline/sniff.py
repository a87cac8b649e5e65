"""What a file is: by its first bytes, and by what its name says of it."""

from __future__ import annotations

import codecs
import json

HEAD_BYTES = 64 << 10
ARCHIVES = ("zip", "gzip", "zstd", "tar")
TEXTS = ("csv", "json", "ndjson")

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_MAGIC = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PAR1", "parquet"),
    (b"PARE", "parquet"),
    (_OLE, "excel"),
)
# Named in words that go into "it is …".
_FOREIGN = (
    (b"%PDF-", "a PDF document"),
    (b"\x89PNG\r\n", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"BZh91AY&SY", "a bzip2 archive"),
    (b"Obj\x01", "an Avro file"),
    (b"ORC", "an ORC file"),
    (b"SQLite format 3\x00", "a database"),
    (b"\x7fELF", "a program"),
    (b"<?xml", "an XML document"),
    (b"<!DOCTYPE html", "a web page"),
    (b"<html", "a web page"),
)
_CLAIMS = {
    "zip": ("zip",),
    "gzip": ("gz", "gzip", "tgz"),
    "zstd": ("zst", "zstd", "tzst"),
    "tar": ("tar",),
    "parquet": ("parquet", "pq"),
    "excel": ("xlsx", "xlsm", "xlsb", "xls"),
    "json": ("json", "ndjson", "jsonl"),
    "csv": ("csv", "tsv"),
}
_WORDS = {
    "parquet": "a Parquet file",
    "excel": "an Excel workbook",
    "json": "JSON",
    "ndjson": "JSON",
    "csv": "plain text",
}
_EXTENSIONS = {ending: kind for kind, endings in _CLAIMS.items() for ending in endings}


def kind_of(head: bytes) -> str:
    """Tell what a file is that begins like this: one of `ARCHIVES`, of `TEXTS`, or another.

    A workbook in its present form is a zip; only a look into it tells them apart.
    """
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return "tar"
    if foreign_of(head):
        return "foreign"
    return _kind_of_text(head.removeprefix(codecs.BOM_UTF8))


def foreign_of(head: bytes) -> str | None:
    """Name what is known, but not taken."""
    return next((words for magic, words in _FOREIGN if head.startswith(magic)), None)


def _kind_of_text(head: bytes) -> str:
    text = head.lstrip()
    if text[:1] == b"[" and text[1:].lstrip()[:1] in (b"{", b"]"):
        return "json"
    if text[:1] != b"{" or text[1:].lstrip()[:1] not in (b'"', b"}"):
        return "csv"
    first, newline, _ = text.partition(b"\n")
    try:
        is_whole = isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        is_whole = not newline and len(head) >= HEAD_BYTES
    return "ndjson" if is_whole else "json"


def claim_of(name: str) -> str | None:
    """Tell what a file's name says it is, or None if it says nothing."""
    return _EXTENSIONS.get(name.rsplit(".", 1)[-1].lower()) if "." in name else None


def contradiction(name: str, kind: str, head: bytes) -> str | None:
    """Say, in words, how a file's content is not what may be taken, or not what its name says."""
    if kind == "foreign":
        return foreign_of(head)
    claimed = claim_of(name)
    # Lines of JSON (`ndjson`) may well be called `json`.
    if claimed is None or claimed in ARCHIVES or kind.endswith(claimed):
        return None
    return f"{_WORDS[kind]}, not {_WORDS[claimed]} as its name says"


def without_compression(name: str) -> str:
    """Give the name that a file has once it is unpacked: of ``a.csv.gz`` that is ``a.csv``."""
    stem, dot, ending = name.rpartition(".")
    if not dot or claim_of(name) not in ("gzip", "zstd"):
        return name
    return f"{stem}.tar" if ending.lower() in ("tgz", "tzst") else stem
