"""Which table a file belongs to: by its name where the contract says so, else by its columns."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.contract import Contract, Table


@dataclass(frozen=True)
class Match:
    """The table of a file and its column at each position; or why there is none."""

    table: str | None
    columns: tuple[str, ...]
    refusal: str | None = None
    refused_columns: str | None = None


def match(file: str, heading: list[str], contract: Contract, *, empty: bool) -> Match:
    """Find the table of a file.

    The order of columns does not matter; their names do, and all of them must be there.
    """
    if empty:
        return Match(None, (), "empty-file", None)
    by_name = [t for t in contract.tables if _is_named(file, t)]
    candidates = by_name or list(contract.tables)
    fits = [t for t in candidates if _columns_of(heading, t) is not None]
    if len(fits) == 1:
        return Match(fits[0].name, _columns_of(heading, fits[0]) or ())
    if fits:
        names = ", ".join(t.name for t in fits)
        return Match(None, tuple(heading), "ambiguous-columns", names)
    nearest = max(candidates, key=lambda t: len(set(_known(t)) & set(heading)))
    return _refusal(heading, nearest)


def match_names(file: str, names: list[str], contract: Contract) -> tuple[Match, list[str]]:
    """Find the table of records that may leave names out; give all names that they may use."""
    found = match(file, names, contract, empty=False)
    if found.refusal != "missing-columns" or not names:
        return found, names
    missing = (found.refused_columns or "").split(", ")
    completed = match(file, [*names, *missing], contract, empty=False)
    return (found, names) if completed.table is None else (completed, [*names, *missing])


def _is_named(file: str, table: Table) -> bool:
    name = file.rsplit("/", 1)[-1]
    return any(fnmatchcase(name, glob) or fnmatchcase(file, glob) for glob in table.files)


def _known(table: Table) -> dict[str, str]:
    return {source: c.name for c in table.columns for source in c.source_names}


def _columns_of(heading: list[str], table: Table) -> tuple[str, ...] | None:
    """Give the table's column for each heading, or None if they do not fit one to one."""
    known = _known(table)
    columns = tuple(known.get(name, "") for name in heading)
    is_whole = len(columns) == len(table.columns) and set(columns) == set(known.values())
    return columns if is_whole else None


def _refusal(heading: list[str], table: Table) -> Match:
    known = _known(table)
    given = [known.get(name, name) for name in heading]
    unknown = [name for name in heading if name not in known]
    missing = [c.name for c in table.columns if c.name not in given]
    repeated = sorted({name for name in given if given.count(name) > 1})
    for rule, names in (
        ("unknown-columns", unknown),
        ("missing-columns", missing),
        ("repeated-columns", repeated),
    ):
        if names:
            return Match(None, tuple(heading), rule, ", ".join(names))
    return Match(None, tuple(heading), "unknown-columns", None)
