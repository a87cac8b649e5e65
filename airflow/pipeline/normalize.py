"""Text fields as typed values: one Polars expression per column.

Every cast is strict: a text that is not wholly a value of its type becomes null here while the
text stays, and `validate` refuses the row. Nothing is guessed and nothing is rounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pipeline.contract import INTEGER_BITS
from pipeline.dates import fixed_length

if TYPE_CHECKING:
    from pipeline.contract import Column, Table

TRUE_WORDS = ("true", "t", "yes", "y", "1")
FALSE_WORDS = ("false", "f", "no", "n", "0")

_DTYPES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "date": pl.Date(),
    "timestamp": pl.Datetime("us", "UTC"),
}


# Reading one takes far longer than finding it among those that were read before.
_COSTLY = frozenset({"date", "timestamp"})
_FEW_AMONG = 4


def text_name(column: Column) -> str:
    """Name the frame's column that keeps the text of a value beside the value."""
    return f"\x1f{column.name}"


def dtype_of(column: Column) -> pl.DataType:
    """Give the type under which a column is stored."""
    return _DTYPES[column.kind]


def normalize(frame: pl.DataFrame, table: Table, positions: dict[str, int]) -> pl.DataFrame:
    """Give each column of a table twice, as cleaned text and as typed value, and ``_line``.

    Parameters
    ----------
    frame
        Rows of text with columns ``c0`` … and ``_line``.
    positions
        At which position of the file each column of the table stands.
    """
    texts = [
        cleaned(pl.col(f"c{positions[column.name]}"), column).alias(text_name(column))
        for column in table.columns
    ]
    # Columns in pieces of different lengths are put together anew by each step that follows.
    cleaned_texts = frame.rechunk().select(*texts, "_line")
    typed = [_typed(cleaned_texts, column) for column in table.columns]
    return cleaned_texts.with_columns(typed)


def _typed(texts: pl.DataFrame, column: Column) -> pl.Expr | pl.Series:
    """Read a column's texts; where many rows share few instants, each of those once."""
    name = text_name(column)
    value = typed_value(pl.col(name), column).alias(column.name)
    if column.kind not in _COSTLY:
        return value
    text = texts[name]
    if text.approx_n_unique() * _FEW_AMONG > texts.height:
        return value
    known = text.unique().to_frame().with_columns(value)
    return text.to_frame().join(known, on=name, how="left", maintain_order="left")[column.name]


def cleaned(text: pl.Expr, column: Column) -> pl.Expr:
    """Make missing values null, and take blanks off everything that is not a string."""
    if column.kind != "string":
        text = text.str.strip_chars()
    tokens = pl.Series(list(column.na_tokens), dtype=pl.String)
    return pl.when(~text.is_in(tokens.implode())).then(text)


def typed_value(text: pl.Expr, column: Column) -> pl.Expr:
    """Read a text as a value of its column's type, or null where it is none."""
    match column.kind:
        case "integer":
            return _integer(text, column)
        case "number":
            value = text.cast(pl.Float64, strict=False)
            return pl.when(value.is_finite()).then(value)
        case "boolean":
            word = text.str.to_lowercase()
            return (
                pl.when(word.is_in(TRUE_WORDS)).then(pl.lit(True))  # noqa: FBT003
                .when(word.is_in(FALSE_WORDS)).then(pl.lit(False))  # noqa: FBT003
            )  # fmt: skip
        case "date":
            return _date(text, column)
        case "timestamp":
            return _timestamp(text, column)
        case _:
            return text


def _integer(text: pl.Expr, column: Column) -> pl.Expr:
    value = text.cast(pl.Int64, strict=False)
    if "format" not in column.options:
        return value
    limit = 1 << (INTEGER_BITS[column.options["format"]] - 1)
    return pl.when(value.is_between(-limit, limit - 1)).then(value)


def _date(text: pl.Expr, column: Column) -> pl.Expr:
    form = column.time_format or "%Y-%m-%d"
    return _of_length(text, form).str.to_date(form, strict=False)


def _timestamp(text: pl.Expr, column: Column) -> pl.Expr:
    """Read an instant; where a text tells no offset it is in UTC."""
    form = column.time_format
    if form is not None:
        value = _of_length(text, form).str.to_datetime(form, strict=False, time_unit="us")
        return value if "z" in form else value.dt.replace_time_zone("UTC")
    # chrono takes "2013-1-1" for a date: the pattern keeps ISO 8601 as it is
    sound = text.str.contains(
        r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?$"
    )
    iso = pl.when(sound).then(text).str.replace(" ", "T", literal=True)
    iso = iso.str.replace(",", ".", literal=True)
    iso = iso.str.replace(r"^(.{16})(Z|[+-]|$)", "${1}:00${2}").str.replace("Z", "+00:00")
    iso = pl.when(iso.str.contains(r"[+-]\d{2}:?\d{2}$")).then(iso).otherwise(iso + "+00:00")
    return iso.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", strict=False, time_unit="us")


def _of_length(text: pl.Expr, form: str) -> pl.Expr:
    """Keep only texts that are as long as the form wants: the parser forgives missing digits."""
    length = fixed_length(form)
    return text if length is None else pl.when(text.str.len_chars() == length).then(text)
