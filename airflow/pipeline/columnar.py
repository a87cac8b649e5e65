"""Row groups of Parquet files as rows of text, a few thousand rows at a time."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.records import Rows
from pipeline.typed import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.contract import Column

MAX_BATCH_ROWS = 65_536
# Of a batch of wide rows there are fewer.
_BATCH_VALUES = 500_000
_BUFFER_BYTES = 1 << 20


class ColumnarError(Exception):
    """A Parquet file that cannot be read, in words for its sender."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive row groups; ``first_row`` is counted from 1."""

    offset: int
    length: int
    first_row: int
    size_bytes: int


def survey(file: BinaryIO, chunk_bytes: int, chunk_rows: int) -> tuple[list[str], list[Stretch]]:
    """Give the names of a file's columns and its row groups, put together to sensible sizes.

    Raises
    ------
    ColumnarError
        If it is damaged, encrypted, or holds columns that are no plain values.
    """
    with _explained():
        return _survey(_open(file), chunk_bytes, chunk_rows)


def _survey(
    parquet: pq.ParquetFile, chunk_bytes: int, chunk_rows: int
) -> tuple[list[str], list[Stretch]]:
    for column in parquet.schema_arrow:
        if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
            msg = f"the column {column.name} holds no plain values"
            raise ColumnarError(msg)
    found: list[Stretch] = []
    start, first_row, rows, size = 0, 1, 0, 0
    count = parquet.metadata.num_row_groups
    for i in range(count):
        group = parquet.metadata.row_group(i)
        rows, size = rows + group.num_rows, size + group.total_byte_size
        if size >= chunk_bytes or rows >= chunk_rows or i == count - 1:
            found.append(Stretch(start, i + 1 - start, first_row, size))
            start, first_row, rows, size = i + 1, first_row + rows, 0, 0
    return list(parquet.schema_arrow.names), found


def rows_of(file: BinaryIO, stretch: Stretch, columns: Sequence[Column | None]) -> Iterator[Rows]:
    """Give the rows of a stretch.

    Parameters
    ----------
    columns
        The table's column at each position, where it is known: dates are written as it reads them.

    Raises
    ------
    ColumnarError
        If it turns out to be damaged.
    """
    size = min(MAX_BATCH_ROWS, max(1, _BATCH_VALUES // max(1, len(columns))))
    groups = range(stretch.offset, stretch.offset + stretch.length)
    line = stretch.first_row
    with _explained():
        for batch in _open(file).iter_batches(size, row_groups=groups, use_threads=False):
            yield Rows(_frame(batch, columns, line))
            line += batch.num_rows


def _open(file: BinaryIO) -> pq.ParquetFile:
    file.seek(0)
    return pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)


@contextmanager
def _explained() -> Iterator[None]:
    """Tell what the library finds wrong with a file from what is wrong with the disk."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        how = "encrypted" if "ncrypt" in str(error) else "damaged or cut short"
        msg = f"the Parquet file is {how}"
        raise ColumnarError(msg) from error


def _frame(batch: pa.RecordBatch, columns: Sequence[Column | None], line: int) -> pl.DataFrame:
    texts = []
    for i, (values, column) in enumerate(zip(batch.columns, columns, strict=True)):
        series = pl.from_arrow(values)
        assert isinstance(series, pl.Series)  # noqa: S101 - from_arrow's type is wider
        texts.append(as_text(series.alias(f"c{i}"), column))
    numbers = pl.int_range(line, line + batch.num_rows, eager=True, dtype=pl.Int64)
    return pl.DataFrame([*texts, numbers.alias("_line")])
