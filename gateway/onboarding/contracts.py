"""Reads a project's data contract (Open Data Contract Standard v3.0 or v3.1) and refuses an impossible one.

Only what a pipeline acts upon is looked at; the rest of the standard passes through unread. What it
acts upon is honoured or refused here, at its place in the document: never left to the first
delivery.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError

from gateway.errors import Fault
from gateway.onboarding import columns, rules

LogicalType = Literal["string", "integer", "number", "boolean", "date", "timestamp"]
TABLE_NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,62}$"
COLUMN_NAME = r"^[^\x00-\x1f ,;{}()=/\\\"']{1,128}$"
# What the pipeline adds to every row to say where it came from.
LINEAGE = frozenset({"_batch_id", "_file", "_line"})


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")


class CustomProperty(_Part):
    """What the standard leaves to its users; ``files`` and ``naTokens`` mean something here."""

    property: str
    value: Any = None


class Property(_Part):
    """One column."""

    name: str = Field(pattern=COLUMN_NAME)
    physicalName: str | None = None  # noqa: N815 - the standard's own spelling
    logicalType: LogicalType  # noqa: N815
    required: StrictBool = False
    unique: StrictBool = False
    primaryKey: StrictBool = False  # noqa: N815
    primaryKeyPosition: StrictInt | None = None  # noqa: N815
    logicalTypeOptions: dict[str, Any] | None = None  # noqa: N815
    quality: list[Any] | None = None
    customProperties: list[CustomProperty] | None = None  # noqa: N815

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of its type."""
        return self.logicalTypeOptions or {}

    @property
    def headings(self) -> set[str]:
        """Return the names that a file may give it."""
        return {self.name, self.physicalName or self.name}


class SchemaObject(_Part):
    """One table."""

    name: str = Field(pattern=TABLE_NAME)
    properties: list[Property] = Field(min_length=1, max_length=2000)
    quality: list[Any] | None = None
    customProperties: list[CustomProperty] | None = None  # noqa: N815

    @property
    def files(self) -> set[str]:
        """Return the patterns of its files' names."""
        given = [each.value for each in self.customProperties or () if each.property == "files"]
        return set(_texts(given[-1])) if given else set()


class Contract(_Part):
    """The parts of an ODCS document that a delivery is held to."""

    apiVersion: str = Field(pattern=r"^v3\.[01]\.\d+$")  # noqa: N815
    kind: Literal["DataContract"]
    id: str = Field(min_length=1)
    version: str = Field(min_length=1)
    status: str = Field(min_length=1)
    schema_: list[SchemaObject] = Field(alias="schema", min_length=1, max_length=100)


def faults(document: Any) -> list[Fault]:
    """Return what is wrong with a contract; each pointer is the path into it, parts by ``/``."""
    try:
        contract = Contract.model_validate(document)
    except ValidationError as error:
        return of_validation(error)
    return list(_of_contract(contract))


def of_validation(error: ValidationError, prefix: str = "") -> list[Fault]:
    """Return what a model has refused."""
    return [
        Fault(
            prefix + "/".join(str(part) for part in each["loc"]),
            each["msg"].removeprefix("Value error, "),
            each["type"],
        )
        for each in error.errors(include_url=False, include_input=False)
    ]


def _of_contract(contract: Contract) -> Iterator[Fault]:
    tables = contract.schema_
    yield from _repeated("schema", "table", (each.name for each in tables))
    for number, table in enumerate(tables):
        yield from _of_table(f"schema/{number}", table)
    for (_, one), (number, other) in combinations(enumerate(tables), 2):
        if _are_alike(one, other):
            detail = f"its files cannot be told from those of {one.name}: name them by `files`"
            yield Fault(f"schema/{number}", detail, "contradiction")


def _of_table(place: str, table: SchemaObject) -> Iterator[Fault]:
    names = [each.name for each in table.properties]
    yield from _repeated(f"{place}/properties", "column", names)
    yield from _custom(place, table.customProperties)
    keys = [each for each in table.properties if each.primaryKey]
    seen: set[int] = set()
    headings: set[str] = set()
    for number, column in enumerate(table.properties):
        here = f"{place}/properties/{number}"
        yield from _of_column(here, column, is_only_key=keys == [column])
        if column.headings & headings:
            detail = f"another column may be called {min(column.headings & headings)} as well"
            yield Fault(f"{here}/physicalName", detail, "contradiction")
        headings |= column.headings
        if column.primaryKey and column.primaryKeyPosition is not None:
            if column.primaryKeyPosition in seen:
                detail = "another column has this place in the primary key"
                yield Fault(f"{here}/primaryKeyPosition", detail, "contradiction")
            seen.add(column.primaryKeyPosition)
    yield from rules.faults(f"{place}/quality", table.quality, rules.Of(names))


def _of_column(place: str, column: Property, *, is_only_key: bool) -> Iterator[Fault]:
    if column.name in LINEAGE:
        detail = f"{column.name} is kept for where a row came from"
        yield Fault(f"{place}/name", detail, "contract")
    yield from _custom(place, column.customProperties)
    kind = columns.kind_of(column.logicalType, column.options)
    wrong = list(columns.faults(f"{place}/logicalTypeOptions", kind, column.options))
    yield from wrong
    of = rules.Of(
        [column.name],
        kind,
        {} if wrong else column.options,
        takes_null=not (column.required or column.primaryKey),
        repeats=not (column.unique or is_only_key),
    )
    yield from rules.faults(f"{place}/quality", column.quality, of)


def _custom(place: str, given: list[CustomProperty] | None) -> Iterator[Fault]:
    for number, each in enumerate(given or ()):
        values = each.value if isinstance(each.value, list) else [each.value]
        is_text = each.value is None or all(isinstance(value, str) for value in values)
        if each.property in {"files", "naTokens"} and not is_text:
            detail = "must be a text or a list of texts"
            yield Fault(f"{place}/customProperties/{number}/value", detail, "contract")


def _texts(value: Any) -> list[str]:
    return [str(each) for each in (value if isinstance(value, list) else [value]) if each]


def _are_alike(one: SchemaObject, other: SchemaObject) -> bool:
    """Say whether a file may fit two tables: its name tells no difference, nor do its columns."""
    if one.files and other.files and not one.files & other.files:
        return False
    return {each.name for each in one.properties} == {each.name for each in other.properties}


def _repeated(place: str, what: str, names: Iterable[str]) -> Iterator[Fault]:
    seen: dict[str, int] = {}
    for number, name in enumerate(each.casefold() for each in names):
        if name in seen:
            detail = f"the {what} {name} is there twice"
            yield Fault(f"{place}/{number}/name", detail, "contradiction")
        seen[name] = number
