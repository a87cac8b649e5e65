"""Values that have a type already, as the text that a contract reads back to the same value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from pipeline.contract import Column

# Above it, not every whole number is a float.
_EXACT = 1 << 53
_ISO_TIME = "%Y-%m-%dT%H:%M:%S%.f"


def as_text(values: pl.Series, column: Column | None) -> pl.Series:
    """Write values as text.

    Notes
    -----
    Where files have whole numbers as floats, because one is missing among them, a column of whole
    numbers takes them back. Times are written in the column's own format if it has one, an empty
    text is null, as in CSV.
    """
    kind = None if column is None else column.kind
    form = None if column is None else column.time_format
    value = pl.col(values.name)
    if values.dtype.is_float() and kind == "integer":
        text = _whole(value)
    elif isinstance(values.dtype, pl.Datetime):
        text = _instant(value, values.dtype, kind, form)
    elif values.dtype == pl.Date:
        text = _date(value, kind, form)
    else:
        text = value.cast(pl.String, strict=False)
    text = pl.when(text != "").then(text)
    return values.to_frame().select(text.alias(values.name)).to_series()


def _whole(value: pl.Expr) -> pl.Expr:
    is_whole = (value == value.floor()) & (value.abs() < _EXACT)
    number = pl.when(is_whole).then(value).cast(pl.Int64, strict=False)
    return pl.when(is_whole).then(number.cast(pl.String)).otherwise(value.cast(pl.String))


def _date(value: pl.Expr, kind: str | None, form: str | None) -> pl.Expr:
    if kind == "timestamp":
        return value.cast(pl.Datetime("us")).dt.strftime(form or _ISO_TIME)
    return value.dt.strftime(form or "%Y-%m-%d")


def _instant(value: pl.Expr, dtype: pl.Datetime, kind: str | None, form: str | None) -> pl.Expr:
    if dtype.time_zone is not None:
        value = value.dt.convert_time_zone("UTC")
    if kind == "date":
        is_midnight = value == value.dt.truncate("1d")
        day = value.dt.strftime(form or "%Y-%m-%d")
        return pl.when(is_midnight).then(day).otherwise(value.dt.strftime(_ISO_TIME))
    if form is None:
        return value.dt.strftime(_ISO_TIME + ("Z" if dtype.time_zone is not None else ""))
    if dtype.time_zone is None:
        value = value.dt.replace_time_zone("UTC")
    return value.dt.strftime(form)


def retold(text: pl.Expr, column: Column) -> pl.Expr:
    """Write times that a workbook tells in its one way as a column reads them.

    Excel has no dates without a time, and tells no format of its own.
    """
    if column.kind not in ("date", "timestamp"):
        return text
    value = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="us")
    told = _instant(value, pl.Datetime("us"), column.kind, column.time_format)
    return pl.when(value.is_not_null()).then(told).otherwise(text)
