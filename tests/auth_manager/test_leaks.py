"""No answer of Airflow's tells one client anything about another.

Every GET endpoint of the public API and of the interface, and the lists that are asked for by POST,
each with every mixture of own, foreign and wildcard names in path and query. What marks a leak is
content only the other client has; an admin asks the same questions, to show that they are answered.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.routing import APIRoute

from tests.auth_manager.world import FLIGHTS, FLIGHTS_RUN, MARK, ORDERS, ORDERS_RUN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi.dependencies.models import Dependant

    from tests.auth_manager.world import World

FOREIGN_NAMES = (ORDERS, ORDERS_RUN, "globex")

PATH_VALUES: dict[str, tuple[str, ...]] = {
    "dag_id": (ORDERS, "~", FLIGHTS),
    "dag_run_id": (ORDERS_RUN, "~"),
    "run_id": (ORDERS_RUN, "~"),
    "task_id": ("globex_process",),
    "group_id": ("globex_process",),
    "xcom_key": ("xq-key",),
    "connection_id": ("globex-db",),
    "variable_key": ("globex-variable",),
    "pool_name": ("client-globex",),
    "version_number": ("1",),
    "try_number": ("1",),
    "task_try_number": ("1",),
    "map_index": ("-1",),
    "section": ("api",),
    "option": ("secret_key",),
    "event_log_id": ("1", "4"),
    "job_id": ("1",),
}
QUERY_VALUES = {
    "dag_id": ORDERS,
    "dag_ids": ORDERS,
    "dag_id_pattern": "globex",
    "dag_id_prefix_pattern": "globex",
    "dag_run_id": ORDERS_RUN,
    "run_id": ORDERS_RUN,
    "run_ids": ORDERS_RUN,
    "run_id_pattern": "globex",
    "task_id": "globex_process",
    "pool": "client-globex",
    "tags": "xq-tag",
    "owners": "xq-owner",
    "node_id": f"dag:{ORDERS}",
    "result": "globex_process",
}
REQUIRED_VALUES = {
    "start_date": "2026-01-01T00:00:00Z",
    "end_date": "2036-01-01T00:00:00Z",
    "interval": "0.1",
    "external_dependencies": "true",
}
ANYTHING = "1"
# Fails in Airflow 3.3.2 for runs without a logical date, whoever asks, unless dates are given.
FAULTY = "/ui/calendar/{dag_id}"


def routes(world: World) -> list[APIRoute]:
    """Return every route of the API and of the interface that reads."""
    found = [route for route in _flat(world.app.routes) if isinstance(route, APIRoute)]
    return [
        route
        for route in found
        if ("GET" in route.methods and route.path.startswith(("/api/v2/", "/ui/")))
        or (route.path.endswith("/list") and "POST" in route.methods)
    ]


def _flat(nested: Any) -> Iterator[Any]:
    for route in nested:
        yield from _flat(route.routes) if hasattr(route, "routes") else [route]


def questions(route: APIRoute) -> Iterator[tuple[str, dict[str, str]]]:
    """Ask with every mixture of names, without filters and with foreign ones."""
    template = route.path.replace(":path}", "}")
    names = re.findall(r"{(\w+)}", template)
    values = [PATH_VALUES.get(name, (ANYTHING,)) for name in names]
    for chosen in itertools.product(*values):
        path = template.format(**dict(zip(names, chosen, strict=True)))
        for filters in query_sets(route.dependant):
            yield path, filters


def query_sets(dependant: Dependant) -> list[dict[str, str]]:
    """Return the queries to try: nothing beyond the required, then foreign names."""
    known = list(_query_names(dependant))
    required = {name: _required(name) for name, needed in known if needed}
    foreign = {name: QUERY_VALUES[name] for name, _ in known if name in QUERY_VALUES}
    mine = {"dag_id": FLIGHTS} if "dag_id" in foreign else {}
    sets = [required, {**required, **foreign}, {**required, **foreign, **mine}]
    return [each for number, each in enumerate(sets) if each not in sets[:number]]


def _query_names(dependant: Dependant) -> Iterator[tuple[str, bool]]:
    for parameter in dependant.query_params:
        yield parameter.alias, parameter.field_info.is_required()
    for inner in dependant.dependencies:
        yield from _query_names(inner)


def _required(name: str) -> str:
    return QUERY_VALUES.get(name) or REQUIRED_VALUES.get(name) or ANYTHING


def leaked(text: str, asked: str) -> set[str]:
    """Return what an answer says about the other client beyond repeating the question."""
    found = {MARK} if MARK in text.replace("xq-key", "").replace("xq-tag", "") else set()
    return found | {name for name in FOREIGN_NAMES if name in text and name not in asked}


def answers(world: World, token: str) -> Iterator[tuple[str, str, int, set[str]]]:
    """Ask everything; give the route, the question, the status and what leaked."""
    for route in routes(world):
        method = "GET" if "GET" in route.methods else "POST"
        body = {} if method == "POST" else None
        for path, query in questions(route):
            answer = world.call(method, path, token, params=query, json=body)
            asked = f"{path} {query}" if answer.status_code >= 400 else ""
            yield route.path, f"{path} {query}", answer.status_code, leaked(answer.text, asked)


@pytest.mark.parametrize("kind", ["person", "trigger", "cancel", "pools"])
def test_nobody_of_one_client_learns_anything_of_another(world: World, kind: str) -> None:
    token = world.gateway.token(kind)
    seen = list(answers(world, token))
    assert len(seen) > 300
    assert [row for row in seen if row[3]] == []
    assert [row[:3] for row in seen if row[2] >= 500 and row[0] != FAULTY] == []
    assert sum(1 for row in seen if row[2] == 403) > 100


def test_the_same_questions_are_answered_to_an_admin(world: World) -> None:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path, _, _, leaks in answers(world, world.gateway.token("admin")):
        found[path] |= leaks
    telling = {path for path, leaks in found.items() if leaks}
    assert len(telling) > 40, sorted(set(found) - telling)
    for path in (
        "/api/v2/dags/{dag_id}/dagRuns",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/logs/{try_number}",
        "/api/v2/connections",
        "/api/v2/eventLogs",
        "/api/v2/importErrors",
        "/api/v2/assets/events",
        "/ui/dags",
        "/ui/dependencies",
    ):
        assert path in telling, path


def test_a_client_with_a_foreign_run_id_under_its_own_dag_finds_nothing(world: World) -> None:
    own = f"/api/v2/dags/{FLIGHTS}/dagRuns"
    assert world.as_kind("person", "GET", f"{own}/{FLIGHTS_RUN}").status_code == 200
    assert world.as_kind("person", "GET", f"{own}/{ORDERS_RUN}").status_code == 404
    absent = world.as_kind("person", "GET", "/api/v2/dags/globex__absent")
    present = world.as_kind("person", "GET", f"/api/v2/dags/{ORDERS}")
    assert (absent.status_code, absent.json()) == (present.status_code, present.json())


def test_sums_on_the_start_page_count_only_the_clients_own(world: World) -> None:
    stats = "/ui/dashboard/dag_stats"
    mine, all_of_them = (world.as_kind(kind, "GET", stats).json() for kind in ("person", "admin"))
    assert mine["active_dag_count"] == 2 < all_of_them["active_dag_count"]
    metrics = "/ui/dashboard/historical_metrics_data?start_date=2026-01-01T00:00:00Z"
    mine, all_of_them = (world.as_kind(kind, "GET", metrics).json() for kind in ("person", "admin"))
    assert mine["dag_run_states"]["success"] == 0 < all_of_them["dag_run_states"]["success"]
