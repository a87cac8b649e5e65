"""A plan as a table for the people who read a task's log."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from pipeline.rejects import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.staging import Chunk, Plan

MAX_FILES = 200
MAX_TOLD, MAX_TOLD_CHARS = 1000, 1024
_HEADING = ("file", "format", "encoding", "delimiter", "size", "table", "chunks")
_DELIMITERS = {"\t": "tab", "": "-"}
_ENCODINGS = {"": "-", "utf-8-sig": "utf-8 with mark"}
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_MAX_NAME_CHARS = 80


def table_of(plan: Plan) -> str:
    """Write a plan down: one line per file, what was found of it, and the sum of all."""
    chunks = [chunk for group in plan.groups for chunk in group]
    files = [list(of_file) for _, of_file in groupby(chunks, key=lambda chunk: chunk.file)]
    lines = [_HEADING, *(_line(of_file) for of_file in files[:MAX_FILES])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEADING))]
    rows = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    if len(files) > MAX_FILES:
        rows.append(f"... and {len(files) - MAX_FILES} more files")
    size = size_in_words(sum(chunk.size_bytes for chunk in chunks))
    head = f"Plan: {len(files)} files, {size}, in {len(chunks)} chunks for {len(plan.groups)} tasks"
    return "\n".join([head, *rows])


def as_json(plan: Plan) -> dict[str, Any]:
    """Give the same as the gateway keeps it; the first thousand files."""
    chunks = [chunk for group in plan.groups for chunk in group]
    files = [list(of_file) for _, of_file in groupby(chunks, key=lambda chunk: chunk.file)]
    told = [_file(each) for each in files if len(each[0].file) <= MAX_TOLD_CHARS]
    return {
        "files_total": len(files),
        "chunks": len(chunks),
        "tasks": len(plan.groups),
        "files": told[:MAX_TOLD],
    }


def _file(chunks: Sequence[Chunk]) -> dict[str, Any]:
    first = chunks[0]
    return {
        "file": first.file,
        "format": first.kind,
        "encoding": first.dialect.encoding or None,
        "delimiter": first.dialect.delimiter or None,
        "size_bytes": sum(chunk.size_bytes for chunk in chunks),
        "table": first.table,
        "refusal": first.refusal,
        "chunks": len(chunks),
    }


def _line(chunks: Sequence[Chunk]) -> tuple[str, ...]:
    first = chunks[0]
    dialect = first.dialect
    kind = "tsv" if first.kind == "csv" and dialect.delimiter == "\t" else first.kind
    encoding = _ENCODINGS.get(dialect.encoding, dialect.encoding)
    return (
        printable(first.file, _MAX_NAME_CHARS),
        kind,
        f"{encoding}, damaged" if dialect.broken and "16" not in encoding else encoding,
        _DELIMITERS.get(dialect.delimiter, dialect.delimiter),
        size_in_words(sum(chunk.size_bytes for chunk in chunks)),
        first.table or f"none: {(first.refusal or '').replace('-', ' ')}",
        str(len(chunks)),
    )


def size_in_words(size: int) -> str:
    """Write a number of bytes in a unit that suits it."""
    for unit, name in _UNITS:
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"
