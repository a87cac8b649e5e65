"""A plan as a table for the people who read a task's log."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from pipeline.rejects import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.staging import Chunk, Plan

MAX_FILES = 200
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
