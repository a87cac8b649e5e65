"""A table's contract as Polars expressions, and rows held against them."""

from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from pipeline import normalize
from pipeline.errors import DeliveryError
from pipeline.rejects import MAX_REJECTS_PER_PART, Reject
from pipeline.text import BROKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.contract import Column, Table
    from pipeline.quality import Rule

_FORMATS = {
    "email": r"^[^@\s]+@[^@\s]+\.[^@\s]+$",
    "uuid": r"^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$",
    "uri": r"^[A-Za-z][A-Za-z0-9+.-]*:\S+$",
    "hostname": r"^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$",
    "ipv4": r"^((25[0-5]|2[0-4]\d|1?\d?\d)(\.|$)){4}$",
    "ipv6": r"^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*$",
}


@dataclass(frozen=True)
class Check:
    """One rule: ``violated`` is true where a row breaks it, ``shown`` is the text to report."""

    rule: str
    column: str | None
    violated: pl.Expr
    shown: str | None


@dataclass(frozen=True)
class Judged:
    """Rows that keep every rule, and those that do not."""

    good: pl.DataFrame
    rejected: int
    rejects: list[Reject]


class Judge:
    """Holds rows of one table against its contract.

    Raises
    ------
    DeliveryError
        ``invalid-contract`` if Polars cannot evaluate one of its rules.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.checks = list(_checks(table))
        self._try_out()

    def _try_out(self) -> None:
        schema: dict[str, pl.DataType] = {"_line": pl.Int64()}
        for column in self.table.columns:
            schema[column.name] = normalize.dtype_of(column)
            schema[normalize.text_name(column)] = pl.String()
        empty = pl.DataFrame(schema=schema)
        with contextlib.suppress(pl.exceptions.PolarsError):
            empty.select(
                c.violated.cast(pl.Boolean).alias(str(i)) for i, c in enumerate(self.checks)
            )
            return
        for check in self.checks:
            try:
                empty.select(check.violated.cast(pl.Boolean))
            except pl.exceptions.PolarsError as error:
                place = f"{self.table.name}.{check.column}" if check.column else self.table.name
                detail = f"the rule {check.rule} of {place} cannot be evaluated"
                raise DeliveryError("invalid-contract", detail) from error

    def judge(self, frame: pl.DataFrame, file: str, *, room: int = MAX_REJECTS_PER_PART) -> Judged:
        """Hold rows against every rule.

        Parameters
        ----------
        frame
            What `normalize.normalize` gives.
        room
            How many rejects may still be described; all are counted.
        """
        broken = frame.select(
            check.violated.fill_null(value=False).alias(str(i))
            for i, check in enumerate(self.checks)
        )
        bad = broken.select(pl.any_horizontal(pl.all())).to_series() if self.checks else None
        columns = [c.name for c in self.table.columns]
        if bad is None or not bad.any():
            return Judged(frame.select(*columns, "_line"), 0, [])
        rejects = self._described(frame, broken, file, room)
        return Judged(frame.filter(~bad).select(*columns, "_line"), int(bad.sum()), rejects)

    def _described(
        self, frame: pl.DataFrame, broken: pl.DataFrame, file: str, room: int
    ) -> list[Reject]:
        rejects: list[Reject] = []
        for i, check in enumerate(self.checks):
            rows = frame.filter(broken[str(i)]).head(room)
            shown = pl.lit(None, pl.String) if check.shown is None else pl.col(check.shown)
            for line, value in rows.select("_line", shown.alias("value")).iter_rows():
                rejects.append(Reject(file, line, check.column, check.rule, value))
        rejects.sort(key=lambda r: r.line)
        return rejects[:room]


def _checks(table: Table) -> Iterator[Check]:
    for column in table.columns:
        yield from _column_checks(column, key=column.name in table.primary_key)
    for rule in table.rules:
        if rule.is_per_row:
            yield Check(rule.name, None, ~_sql_expression(rule), None)


def _column_checks(column: Column, *, key: bool) -> Iterator[Check]:
    text_name = normalize.text_name(column)
    text, value = pl.col(text_name), pl.col(column.name)

    def check(rule: str, violated: pl.Expr) -> Check:
        return Check(rule, column.name, violated, text_name)

    if column.kind == "string":
        yield check("nul-byte", text.str.contains("\x00", literal=True))
        yield check("encoding", text.str.contains(BROKEN, literal=True))
    else:
        yield check("type", text.is_not_null() & value.is_null())
    if column.required or key:
        yield check("required", text.is_null())
    for option, given in column.options.items():
        violated = _violates(option, given, column)
        if violated is not None:
            yield check(option, violated)
    for rule in column.rules:
        if rule.is_per_row:
            yield check(rule.name, violates_rule(rule, column))


def violates_rule(rule: Rule, column: Column) -> pl.Expr:
    """Where the values of a column break one of its rules."""
    value = pl.col(column.name)
    if rule.metric == "row":
        return ~_sql_expression(rule)
    if rule.metric == "nullValues":
        return value.is_null()
    if rule.metric == "missingValues":
        return _is_among(value, rule.arguments["missingValues"], column)
    violated = pl.lit(value=False)
    if isinstance(valid := rule.arguments.get("validValues"), list):
        violated = value.is_not_null() & ~_is_among(value, valid, column)
    if isinstance(pattern := rule.arguments.get("pattern"), str):
        violated = violated | ~value.cast(pl.String).str.contains(pattern)
    return violated


def _is_among(value: pl.Expr, given: list[Any], column: Column) -> pl.Expr:
    known = [str(item) for item in given if item is not None]
    texts = pl.Series(known, dtype=pl.String).to_frame("text")
    values = texts.select(normalize.typed_value(pl.col("text"), column)).to_series()
    among = value.is_in(values.drop_nulls().implode())
    return among | value.is_null() if None in given else among


def _sql_expression(rule: Rule) -> pl.Expr:
    try:
        return pl.sql_expr(rule.query)
    except pl.exceptions.PolarsError as error:
        detail = f"the rule {rule.name} is not an SQL expression"
        raise DeliveryError("invalid-contract", detail) from error


def _violates(option: str, given: Any, column: Column) -> pl.Expr | None:
    value = pl.col(column.name)
    if option in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        return None if isinstance(given, bool) else _out_of_bounds(value, option, given, column)
    if option == "format":
        return ~value.str.contains(_FORMATS[given]) if column.kind == "string" else None
    return _BY_OPTION[option](value, given) if option in _BY_OPTION else None


_BY_OPTION: dict[str, Callable[[pl.Expr, Any], pl.Expr]] = {
    "multipleOf": lambda value, given: value % given != 0,
    "minLength": lambda value, given: value.str.len_chars() < given,
    "maxLength": lambda value, given: value.str.len_chars() > given,
    "pattern": lambda value, given: ~value.str.contains(given),
}


def _out_of_bounds(value: pl.Expr, option: str, given: Any, column: Column) -> pl.Expr:
    """In v3.0 ``exclusiveMinimum: true`` sharpens ``minimum``; in v3.1 it is a bound of its own."""
    limit = _limit(given, column)
    exclusive = option.startswith("exclusive")
    if option.lower().endswith("minimum"):
        exclusive = exclusive or column.options.get("exclusiveMinimum") is True
        return value.le(limit) if exclusive else value.lt(limit)
    exclusive = exclusive or column.options.get("exclusiveMaximum") is True
    return value.ge(limit) if exclusive else value.gt(limit)


def _limit(given: Any, column: Column) -> pl.Expr:
    if column.kind == "date":
        return pl.lit(dt.date.fromisoformat(str(given)[:10]))
    if column.kind == "timestamp":
        moment = dt.datetime.fromisoformat(str(given))
        return pl.lit(moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC))
    return pl.lit(given)
