"""Rows as the text that Postgres' COPY reads: CSV, in which only a null is bare and empty."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Feed:
    """What COPY reads from: one frame at a time, as text.

    ``error`` is what went wrong while rows were read. The driver tells the database and forgets
    what it was.
    """

    def __init__(self, frames: Iterator[pl.DataFrame], columns: Sequence[str]) -> None:
        self.error: BaseException | None = None
        self._texts = (as_text(frame.select(columns)) for frame in frames)
        self._text = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Give the next bytes, at most so many; none at the end."""
        try:
            while not self._text:
                self._text = memoryview(next(self._texts))
        except StopIteration:
            return b""
        except BaseException as error:
            self.error = error
            raise
        found, self._text = self._text[:size], self._text[size:]
        return bytes(found)


def as_text(frame: pl.DataFrame) -> bytes:
    """Write rows as CSV without a heading.

    Notes
    -----
    Every text is quoted, so an empty one is told from a null, and none can be taken for a null or
    for the end. Numbers have as many digits as it takes to read them back to the same value.
    """
    told = [_days(frame[name]) for name, kind in frame.schema.items() if kind.is_temporal()]
    buffer = io.BytesIO()
    plain = frame.with_columns(told)
    plain.write_csv(buffer, include_header=False, quote_style="non_numeric", line_terminator="\n")
    return buffer.getvalue()


def _days(values: pl.Series) -> pl.Series:
    """Write dates and instants in UTC as Postgres reads them, with an era where it needs one.

    Postgres has no year 0, and no sign before a year: what comes before the year 1 is ``BC``.
    """
    value = pl.col(values.name)
    rest = "-%m-%d" if values.dtype == pl.Date else "-%m-%d %H:%M:%S%.6f+00"
    year = value.dt.year()
    if values.dt.year().is_between(1, 9_999).all():
        told = value.dt.strftime("%Y" + rest)
    else:
        counted = pl.when(year > 0).then(year).otherwise(1 - year).cast(pl.String).str.zfill(4)
        era = pl.when(year > 0).then(pl.lit("")).otherwise(pl.lit(" BC"))
        told = counted + value.dt.strftime(rest) + era
    return values.to_frame().select(told.alias(values.name)).to_series()
