"""What became of the rows of each file, for comparing one attempt with another."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# What one report may name; a batch of more files is told in its sums alone.
MAX_FILES = 10_000
MAX_NAME_CHARS = 1_024


@dataclass(frozen=True)
class FileRows:
    """Counts of one file, or of a part of it."""

    file: str
    read: int
    loaded: int
    rejected: int


def together(counts: list[FileRows]) -> list[FileRows]:
    """Add up the counts of each file, in order of first appearance."""
    sums: dict[str, FileRows] = {}
    for each in counts:
        known = sums.get(each.file, FileRows(each.file, 0, 0, 0))
        sums[each.file] = FileRows(
            each.file,
            known.read + each.read,
            known.loaded + each.loaded,
            known.rejected + each.rejected,
        )
    return list(sums.values())


def as_json(counts: list[FileRows]) -> list[dict[str, Any]]:
    """Give the shape that the gateway keeps; nothing where there are too many files."""
    if len(counts) > MAX_FILES or any(len(each.file) > MAX_NAME_CHARS for each in counts):
        return []
    return [asdict(each) for each in counts]
