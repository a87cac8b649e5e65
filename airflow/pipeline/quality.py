"""The quality rules of a contract, read into values; what they mean for rows is in `validate`."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LINEAGE = ("_batch_id", "_file", "_line")
METRICS = ("nullValues", "missingValues", "invalidValues", "duplicateValues", "rowCount")
_METRICS_OF_V3_0 = {
    "nullCheck": "nullValues",
    "validValues": "invalidValues",
    "uniqueCheck": "duplicateValues",
    "duplicateCount": "duplicateValues",
}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "mustBe": operator.eq,
    "mustNotBe": operator.ne,
    "mustBeGreaterThan": operator.gt,
    "mustBeGreaterOrEqualTo": operator.ge,
    "mustBeLessThan": operator.lt,
    "mustBeLessOrEqualTo": operator.le,
    "mustBeBetween": lambda measured, ends: ends[0] <= measured <= ends[1],
    "mustNotBeBetween": lambda measured, ends: not ends[0] <= measured <= ends[1],
}
_QUERY = re.compile(r"\s*(select|with)\b", re.IGNORECASE)


class QualityError(Exception):
    """A rule that cannot be honoured; ``place`` is relative to the list of rules."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


@dataclass(frozen=True)
class Rule:
    """One quality rule.

    ``metric`` is one of `METRICS`, or ``sql`` for a query over the table, or ``row`` for an SQL
    expression that must hold for each row.
    """

    name: str
    metric: str
    columns: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    bounds: tuple[tuple[str, Any], ...] = ()
    percent: bool = False
    query: str = ""

    @property
    def tolerates_none(self) -> bool:
        """Whether a single offending row breaks the rule, so that the row itself is refused."""
        return all(bound == ("mustBe", 0) for bound in self.bounds)

    @property
    def is_per_row(self) -> bool:
        """Whether each row is judged by itself."""
        counted = ("nullValues", "missingValues", "invalidValues")
        return self.metric == "row" or (self.metric in counted and self.tolerates_none)

    @property
    def forbids_duplicates(self) -> bool:
        """Whether a repeated value is refused."""
        return self.metric == "duplicateValues" and self.tolerates_none

    @property
    def is_per_table(self) -> bool:
        """Whether the rule speaks of the rows together."""
        return not self.is_per_row and not self.forbids_duplicates

    def accepts(self, measured: float) -> bool:
        """Tell whether what was measured keeps within every bound."""
        return all(_holds(comparison, measured, limit) for comparison, limit in self.bounds)

    def wanted(self) -> str:
        """Name the bounds for people, for example ``mustBeLessThan 10``."""
        return ", ".join(f"{name} {limit}" for name, limit in self.bounds)


def _holds(comparison: str, measured: float, limit: Any) -> bool:
    return bool(_COMPARISONS[comparison](measured, limit))


def read_rules(nodes: Any, known: tuple[str, ...], column: str | None) -> tuple[Rule, ...]:
    """Read the ``quality`` list of a column or (``column`` None) of a table.

    Raises
    ------
    QualityError
        For the first rule that cannot be honoured. Rules of type ``text`` are prose and skipped.
    """
    if nodes is None:
        return ()
    if not isinstance(nodes, list):
        raise QualityError("", "must be a list")
    rules = [_read_rule(f"[{i}]", node, known, column) for i, node in enumerate(nodes)]
    return tuple(rule for rule in rules if rule is not None)


def _read_rule(place: str, node: Any, known: tuple[str, ...], column: str | None) -> Rule | None:
    if not isinstance(node, dict):
        raise QualityError(place, "is not a mapping")
    match node.get("type", "library"):
        case "text":
            return None
        case "library":
            return _library(place, node, known, column)
        case "sql":
            return _sql(place, node, column)
        case other:
            raise QualityError(f"{place}.type", f"{other} is not supported")


def _library(place: str, node: dict[str, Any], known: tuple[str, ...], column: str | None) -> Rule:
    given = node.get("metric") or node.get("rule")
    metric = _METRICS_OF_V3_0.get(str(given), given)
    if metric not in METRICS:
        raise QualityError(f"{place}.metric", f"must be one of {', '.join(METRICS)}")
    arguments = node.get("arguments") or {}
    if not isinstance(arguments, dict):
        raise QualityError(f"{place}.arguments", "is not a mapping")
    if "validValues" in node:
        arguments = {**arguments, "validValues": node["validValues"]}
    bounds = _bounds(place, node)
    columns = _columns(place, metric, arguments, known, column)
    _check_arguments(place, metric, arguments, bounds)
    return Rule(
        name=str(node.get("name") or metric),
        metric=metric,
        columns=columns,
        arguments=arguments,
        bounds=bounds,
        percent=_percent(place, node),
    )


def _columns(
    place: str,
    metric: str,
    arguments: dict[str, Any],
    known: tuple[str, ...],
    column: str | None,
) -> tuple[str, ...]:
    if column is not None:
        if metric == "rowCount":
            raise QualityError(f"{place}.metric", "rowCount belongs to a table, not to a column")
        return (column,)
    if metric == "rowCount":
        return ()
    names = arguments.get("properties")
    if metric != "duplicateValues" or not isinstance(names, list) or not names:
        reason = f"{metric} belongs to a column, or needs arguments.properties (duplicateValues)"
        raise QualityError(f"{place}.metric", reason)
    names = [str(name).rsplit(".", 1)[-1] for name in names]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise QualityError(f"{place}.arguments.properties", f"no such column: {unknown[0]}")
    return tuple(names)


def _check_arguments(
    place: str, metric: str, arguments: dict[str, Any], bounds: tuple[tuple[str, Any], ...]
) -> None:
    if metric == "rowCount" and not bounds:
        raise QualityError(place, "rowCount needs a bound such as mustBeGreaterThan")
    if metric == "invalidValues":
        values, pattern = arguments.get("validValues"), arguments.get("pattern")
        if not isinstance(values, list) and not isinstance(pattern, str):
            raise QualityError(f"{place}.arguments", "must hold validValues or pattern")
    if metric == "missingValues" and not isinstance(arguments.get("missingValues"), list):
        raise QualityError(f"{place}.arguments", "must hold missingValues")


def _sql(place: str, node: dict[str, Any], column: str | None) -> Rule:
    query = node.get("query")
    if not isinstance(query, str) or not query.strip():
        raise QualityError(f"{place}.query", "is missing")
    bounds = _bounds(place, node)
    is_query = bool(_QUERY.match(query))
    if is_query and not bounds:
        raise QualityError(place, "a query needs a bound such as mustBe: 0")
    if not is_query and bounds:
        raise QualityError(place, "an expression holds or does not hold for a row: no bound")
    return Rule(
        name=str(node.get("name") or "sql"),
        metric="sql" if is_query else "row",
        columns=(column,) if column else (),
        bounds=bounds,
        query=query.strip().rstrip(";"),
    )


def _bounds(place: str, node: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    bounds = tuple((name, node[name]) for name in _COMPARISONS if name in node)
    for name, limit in bounds:
        values = limit if name.endswith("Between") else [limit]
        pair = not name.endswith("Between") or (isinstance(limit, list) and len(limit) == 2)  # noqa: PLR2004
        if not pair or not all(isinstance(v, int | float) for v in values):
            raise QualityError(f"{place}.{name}", "must be a number, or two for Between")
    return bounds


def _percent(place: str, node: dict[str, Any]) -> bool:
    unit = node.get("unit", "rows")
    if unit not in ("rows", "percent"):
        raise QualityError(f"{place}.unit", "must be rows or percent")
    return bool(unit == "percent")
