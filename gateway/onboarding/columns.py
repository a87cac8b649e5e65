"""What a contract says of one column, and where that cannot be kept.

The pipeline reads the same options (``airflow/pipeline/contract.py``); ``airflow/contract/
contracts.json`` holds both to the same verdicts.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from gateway.errors import Fault
from gateway.onboarding.ranges import Range

INTEGER_BITS = {"i8": 8, "i16": 16, "i32": 32, "i64": 64}
STRING_FORMATS = ("email", "uuid", "uri", "hostname", "ipv4", "ipv6")
DAYS = frozenset({"date", "timestamp"})
_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_LENGTHS = ("minLength", "maxLength")
# Which options of ODCS's logicalTypeOptions say something about which type.
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "string": (*_LENGTHS, "pattern", "format"),
    "integer": (*_LIMITS, "multipleOf", "format"),
    "number": (*_LIMITS, "multipleOf", "format"),
    "boolean": (),
    "date": (*_LIMITS, "format"),
    "timestamp": (*_LIMITS, "format", "timezone", "defaultTimezone"),
}
_YEAR, _MONTH, _DAY = {"yyyy", "yy"}, {"MM", "MMM"}, {"dd"}
_HOUR = {"HH", "hh"}
_CLOCK = {*_HOUR, "mm", "ss"}
_MORE = {"SSS", "SSSSSS", "SSSSSSSSS", "a", "XXX", "XX", "xxx", "xx"}
_LETTERS = re.compile(r"'(?:[^']|'')*'|([A-Za-z])\1*")


def kind_of(logical_type: str, options: Mapping[str, Any]) -> str:
    """Return the type that a column has in the end: a string's format may make it a date."""
    formats = {"date": "date", "date-time": "timestamp"}
    return (
        formats.get(str(options.get("format")), "string")
        if logical_type == "string"
        else logical_type
    )


def faults(place: str, kind: str, given: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong with a column's ``logicalTypeOptions``, which lie at ``place``."""
    options = dict(given)
    if kind in DAYS and options.get("format") in {"date", "date-time"}:
        del options["format"]
    wrong = [
        Fault(f"{place}/{name}", detail, "contract")
        for name, value in options.items()
        if (detail := _problem(kind, name, value))
    ]
    yield from wrong
    if not wrong:
        yield from _contradictions(place, kind, options)


def _problem(kind: str, name: str, value: Any) -> str | None:
    if name not in _OPTIONS[kind]:
        return f"{name} says nothing about a {kind}"
    if name in _LENGTHS:
        is_length = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        return None if is_length else "must be a whole number, 0 or more"
    if name == "pattern":
        return pattern_problem(value)
    if name == "timezone":
        return None if isinstance(value, bool) else "must be true or false"
    if name == "defaultTimezone":
        return None if value in {"UTC", "Etc/UTC"} else "must be Etc/UTC"
    judge = _format_problem if name == "format" else partial(_bound_problem, name=name)
    return judge(kind, value)


def _bound_problem(kind: str, value: Any, *, name: str) -> str | None:
    if isinstance(value, bool):
        return None if name.startswith("exclusive") else "must be a number"
    if kind in DAYS:
        try:
            dt.datetime.fromisoformat(str(value))
        except ValueError:
            return "must be an ISO 8601 date"
        return None
    if not isinstance(value, int | float) or (name == "multipleOf" and value <= 0):
        return "must be a number" if name != "multipleOf" else "must be a number above 0"
    return None


def _format_problem(kind: str, value: Any) -> str | None:
    known: tuple[str, ...] = {
        "integer": tuple(INTEGER_BITS),
        "number": ("f32", "f64"),
        "string": (*STRING_FORMATS, "date", "date-time"),
    }.get(kind, ())
    if known:
        return None if value in known else f"must be one of {', '.join(known)}"
    if not isinstance(value, str) or not value:
        return "must be a date pattern such as yyyy-MM-dd"
    return _days_problem(kind, value)


def _days_problem(kind: str, value: str) -> str | None:
    seen = {part[0] for part in _LETTERS.finditer(value) if part[1]}
    if unknown := seen - _YEAR - _MONTH - _DAY - _CLOCK - _MORE:
        return f"{min(unknown)} is not a supported part of a date pattern"
    if not (seen & _YEAR and seen & _MONTH and seen & _DAY):
        return "must tell year, month and day"
    if kind == "date" and seen & _CLOCK:
        return "tells a time of day: use timestamp"
    if kind == "timestamp" and not seen & _HOUR:
        return "tells no time of day: use date"
    return None


def pattern_problem(pattern: Any) -> str | None:
    """Say why a pattern cannot be used; None where it can."""
    if not isinstance(pattern, str):
        return "must be a text"
    # The pipeline's expressions run in linear time: they know no look-around, no back-reference.
    if re.search(r"\(\?<?[=!]|\\[1-9]", pattern):
        return "the pattern looks around or refers back, which is not supported"
    try:
        re.compile(pattern)
    except re.error as error:
        return f"the pattern is not a regular expression: {error}"
    except (OverflowError, RecursionError):
        return "the pattern is not a regular expression: it repeats or nests too much"
    return None


# --- what no value can keep ---------------------------------------------------------------------


def _contradictions(place: str, kind: str, options: Mapping[str, Any]) -> Iterator[Fault]:
    least, most = options.get("minLength"), options.get("maxLength")
    if least is not None and most is not None and least > most:
        detail = f"minLength {least} is above maxLength {most}: no value can be right"
        yield Fault(f"{place}/minLength", detail, "contradiction")
    if kind in {"string", "boolean"} or not values(kind, options).is_empty(step(kind, options)):
        return
    said = [name for name in (*_LIMITS, "multipleOf", "format") if name in options]
    detail = f"{' and '.join(said)} leave no value that can be right"
    yield Fault(f"{place}/{said[0]}", detail, "contradiction")


def values(kind: str, options: Mapping[str, Any]) -> Range:
    """Return the range that the options leave; of a string, the whole of it."""
    found = Range()
    if kind == "integer" and "format" in options:
        half = 1 << (INTEGER_BITS[options["format"]] - 1)
        found = Range(-half, half - 1)
    for name, value in options.items():
        if name not in _LIMITS or isinstance(value, bool):
            continue
        limit = moment(kind, value) if kind in DAYS else value
        if name in {"minimum", "exclusiveMinimum"}:
            # In v3.0 ``exclusiveMinimum: true`` sharpens ``minimum``; in v3.1 it is a bound.
            is_open = name != "minimum" or options.get("exclusiveMinimum") is True
            found = found.above(limit, excluded=is_open)
        else:
            is_open = name != "maximum" or options.get("exclusiveMaximum") is True
            found = found.below(limit, excluded=is_open)
    return found


def step(kind: str, options: Mapping[str, Any]) -> float | None:
    """Return what every value is a multiple of."""
    given: float | None = options.get("multipleOf")
    return given or (1 if kind == "integer" else None)


def moment(kind: str, value: Any) -> dt.datetime:
    """Return a date or an instant as the pipeline compares it."""
    if kind == "date":
        return dt.datetime.fromisoformat(str(value)[:10]).replace(tzinfo=dt.UTC)
    found = dt.datetime.fromisoformat(str(value))
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)
