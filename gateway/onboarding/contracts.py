"""Reads a project's data contract (Open Data Contract Standard v3) and refuses an impossible one.

Only what a pipeline acts upon is looked at; the rest of the standard passes through unread.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

LogicalType = Literal[
    "string", "integer", "number", "boolean", "date", "timestamp", "time", "object", "array"
]
TABLE_NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,62}$"
COLUMN_NAME = r"^[^\x00-\x1f ,;{}()=/\\\"']{1,128}$"
# What the pipeline adds to every row to say where it came from.
LINEAGE = frozenset({"_batch_id", "_file", "_line"})
# Which options of ODCS's logicalTypeOptions say something about which type.
_OPTIONS = {
    "string": {"minLength", "maxLength", "pattern", "format"},
    "integer": {
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "format",
    },
    "date": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "format"},
    "boolean": set[str](),
}
_OPTIONS["number"] = _OPTIONS["integer"]
_OPTIONS["timestamp"] = _OPTIONS["date"] | {"timezone", "defaultTimezone"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")


class Property(_Part):
    """One column."""

    name: str = Field(pattern=COLUMN_NAME)
    logicalType: LogicalType | None = None  # noqa: N815 - the standard's own spelling
    required: bool = False
    unique: bool = False
    primaryKey: bool = False  # noqa: N815
    logicalTypeOptions: dict[str, Any] = {}  # noqa: N815

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.name in LINEAGE:
            message = f"{self.name} is kept for where a row came from"
            raise ValueError(message)
        if self.logicalType in {"time", "object", "array"}:
            message = f"{self.logicalType} columns are not taken; use string"
            raise ValueError(message)
        for problem in _option_problems(self.logicalType or "string", self.logicalTypeOptions):
            raise ValueError(problem)
        return self


class SchemaObject(_Part):
    """One table."""

    name: str = Field(pattern=TABLE_NAME)
    properties: list[Property] = Field(min_length=1, max_length=2000)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        _refuse_repeated("column", (each.name for each in self.properties))
        return self


class Contract(_Part):
    """The parts of an ODCS document that a delivery is held to."""

    apiVersion: str = Field(pattern=r"^v3\.\d+\.\d+$")  # noqa: N815
    kind: Literal["DataContract"]
    id: str = Field(min_length=1)
    version: str = Field(min_length=1)
    status: str = Field(min_length=1)
    schema_: list[SchemaObject] = Field(alias="schema", min_length=1, max_length=100)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        _refuse_repeated("table", (each.name for each in self.schema_))
        return self


def _refuse_repeated(what: str, names: Iterator[str]) -> None:
    for name, count in Counter(each.lower() for each in names).items():
        if count > 1:
            message = f"the {what} {name} is there {count} times"
            raise ValueError(message)


def _option_problems(logical_type: str, options: dict[str, Any]) -> Iterator[str]:
    for name in options.keys() - _OPTIONS[logical_type]:
        yield f"{name} says nothing about a {logical_type}"
    for low, high in (
        ("minimum", "maximum"),
        ("minLength", "maxLength"),
        ("exclusiveMinimum", "exclusiveMaximum"),
    ):
        least, most = options.get(low), options.get(high)
        if least is not None and most is not None and _above(least, most):
            yield f"{low} {least} is above {high} {most}: no value can be right"
    if "pattern" in options:
        yield from _pattern_problems(str(options["pattern"]))


def _above(least: Any, most: Any) -> bool:
    try:
        return bool(least > most)
    except TypeError:
        return True


def _pattern_problems(pattern: str) -> Iterator[str]:
    # The pipeline's expressions run in linear time: they know no look-around, no back-reference.
    if re.search(r"\(\?<?[=!]|\\[1-9]", pattern):
        yield "the pattern looks around or refers back, which is not supported"
    try:
        re.compile(pattern)
    except re.error as error:
        yield f"the pattern is not a regular expression: {error}"
    except (OverflowError, RecursionError):
        yield "the pattern is not a regular expression: it repeats or nests too much"
