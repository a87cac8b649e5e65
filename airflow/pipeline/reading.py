"""A chunk as rows of text, whatever its file is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import polars as pl

from pipeline import columnar, documents, records, workbook
from pipeline import delivery as deliveries
from pipeline.errors import DeliveryError
from pipeline.records import LineTooLongError, Rows
from pipeline.staging import unpacked_dir
from pipeline.text import utf8_blocks
from pipeline.typed import retold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.contract import Table
    from pipeline.delivery import Delivery
    from pipeline.limits import Limits
    from pipeline.staging import Chunk


def rows_of(
    delivery: Delivery, chunk: Chunk, table: Table | None, limits: Limits
) -> Iterator[Rows]:
    """Give a chunk's rows, without its heading.

    Parameters
    ----------
    table
        What the rows are meant for; None if they are only counted.

    Raises
    ------
    DeliveryError
        ``unreadable-file`` if the file turns out to be damaged.
    """
    if not chunk.heading:
        return
    try:
        with open_file(delivery, chunk.source, chunk.name) as file:
            yield from _rows(file, chunk, table, limits)
    except LineTooLongError as error:
        detail = f"{chunk.file}: line {error.line} is too long to be a row"
        raise DeliveryError("unreadable-file", detail) from error
    except documents.DocumentError as error:
        detail = f"{chunk.file}: record {error.record} is damaged or cut short"
        raise DeliveryError("unreadable-file", detail) from error
    except (columnar.ColumnarError, workbook.WorkbookError) as error:
        raise DeliveryError("unreadable-file", f"{chunk.file}: {error}") from error


def _rows(file: BinaryIO, chunk: Chunk, table: Table | None, limits: Limits) -> Iterator[Rows]:
    match chunk.kind:
        case "parquet":
            by_name = {} if table is None else {c.name: c for c in table.columns}
            columns = [by_name.get(name) for name in chunk.heading]
            return columnar.rows_of(file, _stretch(chunk), columns)
        case "excel":
            rows = workbook.rows_of(file, chunk.sheet or "")
            return (_retold(each, chunk, table) for each in rows)
    blocks = utf8_blocks(_Window(file, chunk.offset, chunk.length), chunk.dialect)
    match chunk.kind:
        case "json":
            return documents.rows_of_array(blocks, chunk.keys, limits.line_bytes)
        case "ndjson":
            return documents.rows_of_lines(blocks, chunk.keys, chunk.first_line, limits.line_bytes)
    return records.read_rows(
        blocks,
        chunk.dialect.delimiter,
        len(chunk.heading),
        first_line=chunk.first_line,
        heading=chunk.offset == 0,
        line_bytes=limits.line_bytes,
        block_bytes=limits.block_bytes,
    )


def _stretch(chunk: Chunk) -> columnar.Stretch:
    length = chunk.length or 0
    return columnar.Stretch(chunk.offset, length, chunk.first_line, chunk.size_bytes)


def _retold(rows: Rows, chunk: Chunk, table: Table | None) -> Rows:
    if table is None:
        return rows
    places = {name: f"c{i}" for i, name in enumerate(chunk.heading)}
    texts = [
        retold(pl.col(places[column.name]), column).alias(places[column.name])
        for column in table.columns
    ]
    return Rows(rows.frame.with_columns(texts), rows.bad)


class _Window:
    """A stretch of a file, read as if it were all of it."""

    def __init__(self, file: BinaryIO, offset: int, length: int | None) -> None:
        file.seek(offset)
        self.file = file
        self.left = length

    def read(self, size: int) -> bytes:
        if self.left is None:
            return self.file.read(size)
        content = self.file.read(min(size, self.left))
        self.left -= len(content)
        return content


@contextmanager
def open_file(delivery: Delivery, source: str, name: str) -> Iterator[BinaryIO]:
    """Open a landed file, or one out of an archive, which is named by its number."""
    if source == "landing":
        with deliveries.open_landed(delivery, "files", name) as file:
            yield file
        return
    if not name.isdigit():
        msg = "an unpacked file is named by its number"
        raise ValueError(msg)
    with (unpacked_dir(delivery) / name).open("rb") as file:
        yield file
