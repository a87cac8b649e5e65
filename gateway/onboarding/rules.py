"""The quality rules of a contract: which can be honoured, and which no data can keep.

The pipeline reads the same rules (``airflow/pipeline/quality.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gateway.errors import Fault
from gateway.onboarding import columns
from gateway.onboarding.ranges import Range

METRICS = ("nullValues", "missingValues", "invalidValues", "duplicateValues", "rowCount")
_METRICS_OF_V3_0 = {
    "nullCheck": "nullValues",
    "validValues": "invalidValues",
    "uniqueCheck": "duplicateValues",
    "duplicateCount": "duplicateValues",
}
_BOUNDS = (
    "mustBe",
    "mustNotBe",
    "mustBeGreaterThan",
    "mustBeGreaterOrEqualTo",
    "mustBeLessThan",
    "mustBeLessOrEqualTo",
    "mustBeBetween",
    "mustNotBeBetween",
)
_QUERY = re.compile(r"\s*(select|with)\b", re.IGNORECASE)
_PAIR = 2


@dataclass(frozen=True, slots=True)
class Of:
    """What rules are about: a column, or a whole table (``kind`` None).

    Parameters
    ----------
    names
        The columns that there are.
    takes_null, repeats
        Whether a value may be missing, and be there twice.
    """

    names: Sequence[str]
    kind: str | None = None
    options: Mapping[str, Any] | None = None
    takes_null: bool = True
    repeats: bool = True


def faults(place: str, given: Any, of: Of) -> Iterator[Fault]:
    """Yield what is wrong with a list of rules, which lies at ``place``."""
    if given is None:
        return
    if not isinstance(given, list):
        yield Fault(place, "must be a list", "contract")
        return
    for number, rule in enumerate(given):
        yield from _of_rule(f"{place}/{number}", rule, of)


def _of_rule(place: str, rule: Any, of: Of) -> Iterator[Fault]:
    if not isinstance(rule, dict):
        yield Fault(place, "is not a mapping", "contract")
        return
    kind = rule.get("type", "library")
    if kind == "library":
        yield from _library(place, rule, of)
    elif kind == "sql":
        yield from _sql(place, rule)
    elif kind != "text":
        yield Fault(f"{place}/type", f"{kind} is not supported", "contract")


def _library(place: str, rule: dict[str, Any], of: Of) -> Iterator[Fault]:
    given = rule.get("metric") or rule.get("rule")
    metric = _METRICS_OF_V3_0.get(str(given), given)
    if metric not in METRICS:
        yield Fault(f"{place}/metric", f"must be one of {', '.join(METRICS)}", "contract")
        return
    arguments = rule.get("arguments") or {}
    if not isinstance(arguments, dict):
        yield Fault(f"{place}/arguments", "is not a mapping", "contract")
        return
    if "validValues" in rule:
        arguments = {**arguments, "validValues": rule["validValues"]}
    wrong = [*_misplaced(place, metric, arguments, of), *_arguments(place, metric, arguments, rule)]
    wrong += _bounds(place, rule)
    yield from wrong
    if not wrong:
        yield from _contradictions(place, metric, arguments, rule, of)


def _misplaced(place: str, metric: str, arguments: dict[str, Any], of: Of) -> Iterator[Fault]:
    if of.kind is not None:
        if metric == "rowCount":
            detail = "rowCount belongs to a table, not to a column"
            yield Fault(f"{place}/metric", detail, "contract")
        return
    if metric == "rowCount":
        return
    names = arguments.get("properties")
    if metric != "duplicateValues" or not isinstance(names, list) or not names:
        detail = f"{metric} belongs to a column, or needs arguments.properties (duplicateValues)"
        yield Fault(f"{place}/metric", detail, "contract")
        return
    unknown = [name for each in names if (name := str(each).rsplit(".", 1)[-1]) not in of.names]
    if unknown:
        detail = f"no such column: {unknown[0]}"
        yield Fault(f"{place}/arguments/properties", detail, "contract")


def _arguments(
    place: str, metric: str, arguments: dict[str, Any], rule: dict[str, Any]
) -> Iterator[Fault]:
    if metric == "rowCount" and not any(name in rule for name in _BOUNDS):
        yield Fault(place, "rowCount needs a bound such as mustBeGreaterThan", "contract")
    if metric == "missingValues" and not isinstance(arguments.get("missingValues"), list):
        yield Fault(f"{place}/arguments", "must hold missingValues", "contract")
    if metric != "invalidValues":
        return
    known, pattern = arguments.get("validValues"), arguments.get("pattern")
    if not isinstance(known, list) and not isinstance(pattern, str):
        yield Fault(f"{place}/arguments", "must hold validValues or pattern", "contract")
    elif pattern is not None and (problem := columns.pattern_problem(pattern)):
        yield Fault(f"{place}/arguments/pattern", problem, "contract")


def _sql(place: str, rule: dict[str, Any]) -> Iterator[Fault]:
    query = rule.get("query")
    if not isinstance(query, str) or not query.strip():
        yield Fault(f"{place}/query", "is missing", "contract")
        return
    yield from _bounds(place, rule)
    is_bounded = any(name in rule for name in _BOUNDS)
    if _QUERY.match(query) and not is_bounded:
        yield Fault(place, "a query needs a bound such as mustBe: 0", "contract")
    if is_bounded and not _QUERY.match(query):
        detail = "an expression holds or does not hold for a row: no bound"
        yield Fault(place, detail, "contract")


def _bounds(place: str, rule: dict[str, Any]) -> Iterator[Fault]:
    if rule.get("unit", "rows") not in {"rows", "percent"}:
        yield Fault(f"{place}/unit", "must be rows or percent", "contract")
    for name in _BOUNDS:
        if name not in rule:
            continue
        limit = rule[name]
        ends = limit if name.endswith("Between") else [limit]
        is_right = isinstance(ends, list) and len(ends) in {1, _PAIR}
        if name.endswith("Between"):
            is_right = isinstance(limit, list) and len(limit) == _PAIR
        if not is_right or not all(_is_number(each) for each in ends):
            yield Fault(f"{place}/{name}", "must be a number, or two for Between", "contract")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- what no data can keep ----------------------------------------------------------------------


def _contradictions(
    place: str, metric: str, arguments: dict[str, Any], rule: dict[str, Any], of: Of
) -> Iterator[Fault]:
    counts = _counts(rule)
    step = None if rule.get("unit") == "percent" else 1
    if counts.is_empty(step):
        yield Fault(place, "its bounds leave no number that keeps them", "contradiction")
    elif metric == "nullValues" and not of.takes_null and not counts.holds(0):
        yield Fault(place, "wants missing values where each is required", "contradiction")
    elif metric == "duplicateValues" and not of.repeats and not counts.holds(0):
        yield Fault(place, "wants repeated values where each is unique", "contradiction")
    known = arguments.get("validValues")
    if metric != "invalidValues" or not isinstance(known, list) or not counts.holds(0):
        return
    if not any(_is_possible(value, arguments.get("pattern"), of) for value in known):
        detail = "the column can hold none of the validValues"
        yield Fault(place, detail, "contradiction")


def _counts(rule: dict[str, Any]) -> Range:
    """Return which numbers keep a rule's bounds; a rule without any wants none."""
    found = Range(0, 100) if rule.get("unit") == "percent" else Range(0)
    if not any(name in rule for name in _BOUNDS):
        return found.below(0)
    if "mustBe" in rule:
        found = found.above(rule["mustBe"]).below(rule["mustBe"])
    if "mustBeBetween" in rule:
        low, high = rule["mustBeBetween"]
        found = found.above(low).below(high)
    if "mustBeGreaterThan" in rule:
        found = found.above(rule["mustBeGreaterThan"], excluded=True)
    if "mustBeGreaterOrEqualTo" in rule:
        found = found.above(rule["mustBeGreaterOrEqualTo"])
    if "mustBeLessThan" in rule:
        found = found.below(rule["mustBeLessThan"], excluded=True)
    if "mustBeLessOrEqualTo" in rule:
        found = found.below(rule["mustBeLessOrEqualTo"])
    return found


def _is_possible(value: Any, pattern: Any, of: Of) -> bool:
    """Say whether a column can hold a value, as far as is known without its data."""
    if value is None:
        return of.takes_null
    kind, options = of.kind or "string", of.options or {}
    text = str(value)
    if isinstance(pattern, str) and not re.search(pattern, text):
        return False
    if kind == "string":
        held = options.get("pattern")
        fits = options.get("minLength", 0) <= len(text) <= options.get("maxLength", len(text))
        return fits and (held is None or re.search(held, text) is not None)
    if kind not in {"integer", "number"}:
        return True
    with suppress(ValueError):
        number = int(text) if kind == "integer" else float(text)
        return columns.values(kind, options).holds(number)
    return False
