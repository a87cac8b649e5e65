"""What a project asks for that cannot be in its client's Postgres database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.errors import Fault

# Postgres cuts longer names without a word, and two that are cut to one are the same.
MAX_NAME_BYTES = 63
# A table of Postgres has room for 1,600; each row says besides where it came from.
MAX_COLUMNS = 1_597
# Columns that every table of Postgres has (documentation, "System Columns").
SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
# Schemas that are Postgres' own, or the client's for whatever it likes.
TAKEN_SCHEMAS = frozenset({"public", "information_schema"})


def faults(project: str, contract: dict[str, Any], *, has_databases: bool) -> Iterator[Fault]:
    """Yield what stands against loading a project, whose contract is sound, into a database."""
    place = f"projects/{project}/load/postgres"
    if not has_databases:
        detail = (
            "this platform has no databases for clients: GATEWAY_LEASES_POSTGRES_URL is not set"
        )
        yield Fault(place, detail, "not-offered")
    if project.startswith("pg_") or project in TAKEN_SCHEMAS:
        detail = f"a project named {project} cannot have a schema in Postgres"
        yield Fault(place, detail, "database")
    for number, table in enumerate(contract["schema"]):
        here = f"projects/{project}/contract/schema/{number}/properties"
        yield from _of_columns(here, [each["name"] for each in table["properties"]])


def _of_columns(place: str, names: list[str]) -> Iterator[Fault]:
    if len(names) > MAX_COLUMNS:
        detail = (
            f"a table in Postgres has room for {MAX_COLUMNS:,} columns, and not for {len(names):,}"
        )
        yield Fault(place, detail, "database")
    for number, name in enumerate(names):
        if len(name.encode()) > MAX_NAME_BYTES:
            detail = f"a column's name in Postgres has at most {MAX_NAME_BYTES} bytes"
            yield Fault(f"{place}/{number}/name", detail, "database")
        if name in SYSTEM_COLUMNS:
            detail = f"every table in Postgres has a column {name} of its own"
            yield Fault(f"{place}/{number}/name", detail, "database")
