"""What can be asked of Airflow: its doors, and at each every mixture of own and foreign names."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi.routing import APIRoute

from ingest import doors
from tests.auth_manager.world import FLIGHTS, FLIGHTS_RUN, MARK, ORDERS, ORDERS_RUN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi.dependencies.models import Dependant
    from httpx import Response

    from ingest.users import Kind
    from tests.auth_manager.world import World

FOREIGN_NAMES = (ORDERS, ORDERS_RUN, "globex")

OWN_VALUES = {
    "dag_id": FLIGHTS,
    "dag_run_id": FLIGHTS_RUN,
    "run_id": FLIGHTS_RUN,
    "task_id": "process",
    "group_id": "process",
    "pool_name": "client-acme",
    "version_number": "1",
    "map_index": "-1",
}
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
# The lists that are asked for by POST name others in their bodies.
BODIES: tuple[dict[str, Any], ...] = ({}, {"dag_ids": [ORDERS]}, {"dag_ids": [ORDERS, FLIGHTS]})
ANYTHING = "1"
# Answers when the run has ended: of a run of one's own, never here.
WAITS = "/wait"


@dataclass(frozen=True)
class Question:
    """One request."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: Any = None

    def put(self, world: World, token: str) -> Response:
        """Ask it."""
        query = dict(self.query)
        return world.call(self.method, self.path, token, params=query, json=self.body)


def routes(world: World) -> dict[str, APIRoute]:
    """Return every route of the public API and of the interface by its door."""
    return {
        f"{method} {route.path}": route
        for route in flat(world.app.routes)
        if isinstance(route, APIRoute) and route.path.startswith(doors.PREFIXES)
        for method in route.methods
    }


def flat(nested: Any) -> Iterator[Any]:
    """Return routes, those of included routers one by one."""
    for route in nested:
        yield from flat(route.routes) if hasattr(route, "routes") else [route]


def reads(door: str) -> bool:
    """Say whether a door only tells."""
    return door.startswith("GET ") or door.endswith("/list")


def open_to(world: World, kind: Kind) -> dict[str, APIRoute]:
    """Return the doors that callers of one kind may come to."""
    listed = doors.guests()
    return {door: route for door, route in routes(world).items() if kind in listed[door]}


def own(door: str) -> str:
    """Return the path of a door with names of the caller's own client."""
    _, template = door.split(" ")
    known = {name: values[0] for name, values in PATH_VALUES.items()} | OWN_VALUES
    names = re.findall(r"{(\w+)", template)
    chosen = {name: known.get(name, ANYTHING) for name in names}
    return template.replace(":path}", "}").format(**chosen)


def of(door: str, route: APIRoute) -> Iterator[Question]:
    """Ask with every mixture of names, without filters and with foreign ones."""
    method, template = door.replace(":path}", "}").split(" ")
    bodies = BODIES if method == "POST" else (None,)
    queries = query_sets(route.dependant)
    for path in [*paths(template), *([] if template.endswith(WAITS) else [own(door)])]:
        for query, body in itertools.product(queries, bodies):
            yield Question(method, path, tuple(query.items()), body)


def paths(template: str) -> Iterator[str]:
    """Return a path with every mixture of names."""
    names = re.findall(r"{(\w+)}", template)
    for chosen in itertools.product(*(PATH_VALUES.get(name, (ANYTHING,)) for name in names)):
        yield template.format(**dict(zip(names, chosen, strict=True)))


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


def leaked(answer: Response, question: Question) -> set[str]:
    """Return what an answer says about the other client beyond repeating the question."""
    text = answer.text
    asked = f"{question}" if answer.status_code >= 400 else ""
    found = {MARK} if MARK in text.replace("xq-key", "").replace("xq-tag", "") else set()
    return found | {name for name in FOREIGN_NAMES if name in text and name not in asked}
