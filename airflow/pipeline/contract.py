"""A project's contract: an Open Data Contract Standard document (v3.0 or v3.1), read strictly.

Pure Python. What cannot be honoured is refused with its place in the document, never ignored:
a rule that is silently skipped is a promise silently broken.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.dates import FormatError, strftime_of
from pipeline.quality import LINEAGE, QualityError, Rule, read_rules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KINDS = ("string", "integer", "number", "boolean", "date", "timestamp")
DEFAULT_NA_TOKENS = ("", "NA", "NULL", "null", "\\N")
INTEGER_BITS = {"i8": 8, "i16": 16, "i32": 32, "i64": 64}
STRING_FORMATS = ("email", "uuid", "uri", "hostname", "ipv4", "ipv6")

_TABLE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_COLUMN_NAME = re.compile(r"[^\x00-\x1f ,;{}()=/\\\"']{1,128}")
_API_VERSION = re.compile(r"v3\.[01]\.\d+")
_NUMBER_OPTIONS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_STRING_OPTIONS = ("minLength", "maxLength", "pattern")
_OPTIONS_BY_KIND = {
    "string": (*_STRING_OPTIONS, "format"),
    "integer": (*_NUMBER_OPTIONS, "format"),
    "number": (*_NUMBER_OPTIONS, "format"),
    "boolean": (),
    "date": (*_NUMBER_OPTIONS[:4], "format"),
    "timestamp": (*_NUMBER_OPTIONS[:4], "format", "timezone", "defaultTimezone"),
}


class ContractError(Exception):
    """The document asks for something that cannot be honoured.

    ``problems`` lists each one as ``place: reason``.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True)
class Column:
    """One column of a table.

    ``kind`` is one of `KINDS`; ``source_names`` are the headings under which a file may carry it.
    """

    name: str
    kind: str
    source_names: tuple[str, ...]
    required: bool
    unique: bool
    key_position: int | None
    options: Mapping[str, Any]
    na_tokens: tuple[str, ...]
    rules: tuple[Rule, ...]
    time_format: str | None = None


@dataclass(frozen=True)
class Table:
    """One schema object: a table, the files that belong to it and the rules that it keeps."""

    name: str
    columns: tuple[Column, ...]
    files: tuple[str, ...]
    rules: tuple[Rule, ...]
    primary_key: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        keys = [c for c in self.columns if c.key_position is not None]
        keys.sort(key=lambda c: c.key_position or 0)
        object.__setattr__(self, "primary_key", tuple(c.name for c in keys))

    @property
    def unique_keys(self) -> list[tuple[str, tuple[str, ...]]]:
        """Each rule that forbids repeated values, as (rule, columns)."""
        keys = [("primaryKey", self.primary_key)] if self.primary_key else []
        keys += [("unique", (c.name,)) for c in self.columns if c.unique]
        keys += [(r.name, (c.name,)) for c in self.columns for r in c.rules if r.forbids_duplicates]
        keys += [(r.name, r.columns) for r in self.rules if r.forbids_duplicates]
        return keys


@dataclass(frozen=True)
class Contract:
    """All tables of a project."""

    tables: tuple[Table, ...]

    def table(self, name: str) -> Table:
        """Give the table of that name.

        Raises
        ------
        KeyError
            If the contract has none.
        """
        return next((t for t in self.tables if t.name == name), None) or _missing(name)


def _missing(name: str) -> Table:
    raise KeyError(name)


def read_contract(document: Any) -> Contract:
    """Read a contract document (already parsed from YAML or JSON).

    Raises
    ------
    ContractError
        Naming every problem found.
    """
    problems: list[str] = []
    contract = _Reader(problems).contract(document)
    if problems or contract is None:
        raise ContractError(problems or ["document: not a contract"])
    return contract


class _Reader:
    """Walks the document once and notes every problem on its way."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems

    def note(self, place: str, reason: str) -> None:
        self.problems.append(f"{place}: {reason}")

    def contract(self, document: Any) -> Contract | None:
        if not isinstance(document, dict):
            self.note("document", "is not a mapping")
            return None
        if document.get("kind") != "DataContract":
            self.note("kind", "must be DataContract")
        if not _API_VERSION.fullmatch(str(document.get("apiVersion"))):
            self.note("apiVersion", "must be v3.0.x or v3.1.x")
        objects = document.get("schema")
        if not isinstance(objects, list) or not objects:
            self.note("schema", "names no table")
            return None
        tables = [t for i, o in enumerate(objects) if (t := self.table(f"schema[{i}]", o))]
        self._distinct("schema", [t.name.casefold() for t in tables])
        return Contract(tuple(tables))

    def table(self, place: str, node: Any) -> Table | None:
        if not isinstance(node, dict):
            self.note(place, "is not a mapping")
            return None
        name = self._name(place, node, _TABLE_NAME)
        properties = node.get("properties")
        if not isinstance(properties, list) or not properties:
            self.note(f"{place}.properties", "names no column")
            return None
        custom = self._custom(place, node)
        tokens = self._texts(f"{place}.naTokens", custom.get("naTokens"), DEFAULT_NA_TOKENS)
        columns = [
            column
            for i, p in enumerate(properties)
            if (column := self.column(f"{place}.properties[{i}]", p, tokens))
        ]
        self._distinct(f"{place}.properties", [c.name.casefold() for c in columns])
        files = self._texts(f"{place}.files", custom.get("files"), ())
        names = tuple(c.name for c in columns)
        return Table(name, tuple(columns), files, self._rules(place, node, names, None))

    def column(self, place: str, node: Any, tokens: tuple[str, ...]) -> Column | None:
        if not isinstance(node, dict):
            self.note(place, "is not a mapping")
            return None
        name = self._name(place, node, _COLUMN_NAME)
        if name in LINEAGE:
            self.note(place, f"{name} is reserved for the line of origin")
        kind, options = self._kind(place, node)
        custom = self._custom(place, node)
        heading = node.get("physicalName")
        sources = (name, heading) if isinstance(heading, str) and heading != name else (name,)
        return Column(
            name=name,
            kind=kind,
            source_names=sources,
            required=self._flag(place, node, "required"),
            unique=self._flag(place, node, "unique"),
            key_position=self._key_position(place, node),
            options=options,
            na_tokens=self._texts(f"{place}.naTokens", custom.get("naTokens"), tokens),
            rules=self._rules(place, node, (name,), name),
            time_format=self._time_format(place, kind, options),
        )

    def _kind(self, place: str, node: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        kind = node.get("logicalType")
        options = node.get("logicalTypeOptions") or {}
        if kind not in KINDS:
            self.note(f"{place}.logicalType", f"must be one of {', '.join(KINDS)}")
            return "string", {}
        if not isinstance(options, dict):
            self.note(f"{place}.logicalTypeOptions", "is not a mapping")
            return kind, {}
        if kind == "string" and options.get("format") in ("date", "date-time"):
            kind = "date" if options["format"] == "date" else "timestamp"
            options = {k: v for k, v in options.items() if k != "format"}
        for option in options:
            self._option(f"{place}.logicalTypeOptions.{option}", kind, option, options[option])
        return kind, options

    def _option(self, place: str, kind: str, option: str, value: Any) -> None:
        if option not in _OPTIONS_BY_KIND[kind]:
            self.note(place, f"means nothing for {kind}")
        elif option in ("minLength", "maxLength"):
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                self.note(place, "must be a whole number, 0 or more")
        elif option == "pattern":
            self._pattern(place, value)
        elif option in _NUMBER_OPTIONS:
            self._bound(place, kind, option, value)
        elif option == "format":
            self._format(place, kind, value)
        elif option == "timezone" and not isinstance(value, bool):
            self.note(place, "must be true or false")
        elif option == "defaultTimezone" and value not in ("UTC", "Etc/UTC"):
            self.note(place, "must be Etc/UTC")

    def _bound(self, place: str, kind: str, option: str, value: Any) -> None:
        if isinstance(value, bool):
            if not option.startswith("exclusive"):
                self.note(place, "must be a number")
        elif kind in ("date", "timestamp"):
            try:
                dt.datetime.fromisoformat(str(value))
            except ValueError:
                self.note(place, "must be an ISO 8601 date")
        elif not isinstance(value, int | float) or (option == "multipleOf" and value <= 0):
            self.note(place, "must be a number")

    def _format(self, place: str, kind: str, value: Any) -> None:
        if kind == "integer" and value not in INTEGER_BITS:
            self.note(place, f"must be one of {', '.join(INTEGER_BITS)}")
        elif kind == "number" and value not in ("f32", "f64"):
            self.note(place, "must be f32 or f64")
        elif kind == "string" and value not in STRING_FORMATS:
            self.note(place, f"must be one of {', '.join(STRING_FORMATS)}, date, date-time")

    def _pattern(self, place: str, value: Any) -> None:
        if not isinstance(value, str):
            self.note(place, "must be a text")
            return
        # the dialect is Rust's: whether it compiles is tried where it is used (`validate.Judge`)
        if re.search(r"\(\?(=|!|<=|<!)|\\[1-9]", value):
            self.note(place, "look-around and back-references are not supported")

    def _time_format(self, place: str, kind: str, options: Mapping[str, Any]) -> str | None:
        if kind not in ("date", "timestamp") or "format" not in options:
            return None
        try:
            return strftime_of(options["format"], kind)
        except FormatError as error:
            self.note(f"{place}.logicalTypeOptions.format", str(error))
            return None

    def _rules(
        self, place: str, node: dict[str, Any], known: tuple[str, ...], column: str | None
    ) -> tuple[Rule, ...]:
        try:
            return read_rules(node.get("quality"), known, column)
        except QualityError as error:
            self.note(f"{place}.quality{error.place}", error.reason)
            return ()

    def _name(self, place: str, node: dict[str, Any], allowed: re.Pattern[str]) -> str:
        name = node.get("name")
        if not isinstance(name, str) or not allowed.fullmatch(name):
            self.note(f"{place}.name", "is missing or holds characters that a table cannot")
            return ""
        return name

    def _flag(self, place: str, node: dict[str, Any], name: str) -> bool:
        value = node.get(name, False)
        if not isinstance(value, bool):
            self.note(f"{place}.{name}", "must be true or false")
        return value is True

    def _key_position(self, place: str, node: dict[str, Any]) -> int | None:
        if not self._flag(place, node, "primaryKey"):
            return None
        position = node.get("primaryKeyPosition", 1)
        if not isinstance(position, int) or isinstance(position, bool):
            self.note(f"{place}.primaryKeyPosition", "must be a whole number")
            return 1
        return position

    def _custom(self, place: str, node: dict[str, Any]) -> dict[str, Any]:
        items = node.get("customProperties") or []
        if not isinstance(items, list) or not all(isinstance(i, dict) for i in items):
            self.note(f"{place}.customProperties", "must be a list of property and value")
            return {}
        return {str(i.get("property")): i.get("value") for i in items}

    def _texts(self, place: str, value: Any, default: tuple[str, ...]) -> tuple[str, ...]:
        if value is None:
            return default
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(v, str) for v in values):
            self.note(place, "must be a text or a list of texts")
            return default
        return tuple(values)

    def _distinct(self, place: str, names: list[str]) -> None:
        for name in sorted({n for n in names if names.count(n) > 1}):
            self.note(place, f"{name} is named twice")
