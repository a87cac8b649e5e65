"""How work is divided, and what a single line, sheet or file may ask of a worker."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

_PREFIX = "INGEST_"


@dataclass(frozen=True)
class Limits:
    """Sizes, each of which ``INGEST_`` and its name in capitals sets, as ``INGEST_CHUNK_BYTES``.

    Parameters
    ----------
    chunk_bytes, chunk_rows
        A file is cut where it passes either; the last piece may be smaller.
    block_bytes
        How much of a chunk a worker has in memory at a time. A worker takes about 150 MiB and 25
        times this for rows of short fields: where it may not have more than 256 MiB in all, this
        is 1 MiB.
    few_tasks, max_tasks
        Up to ``few_tasks`` chunks get a task each however small they are; more tasks than that are
        made only as there are bytes to fill them, and never more than ``max_tasks``, which is what
        Airflow expands a task to (``[core] max_map_length``).
    line_bytes
        A longer line is no row. Lines are measured as a file is read, a block at a time, so that
        less than 1 MiB would make no difference.
    columns
        A heading of more is taken for something else.
    workbook_bytes
        What a workbook may unpack to: unlike all else, it has to be in memory as a whole.
    """

    chunk_bytes: int = 64 << 20
    chunk_rows: int = 1_000_000
    block_bytes: int = 8 << 20
    few_tasks: int = 64
    max_tasks: int = 1_024
    line_bytes: int = 16 << 20
    columns: int = 5_000
    workbook_bytes: int = 128 << 20

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read what the environment sets.

        Raises
        ------
        ValueError
            If a setting is no whole number above 0.
        """
        given = {}
        for each in fields(cls):
            variable = f"{_PREFIX}{each.name.upper()}"
            if variable in environment:
                given[each.name] = _positive(variable, environment[variable])
        return cls(**given)


def _positive(variable: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        msg = f"{variable} must be a whole number above 0"
        raise ValueError(msg)
    return int(value)
