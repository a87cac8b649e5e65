"""At which door of Airflow's API somebody stands, who may come to it, and what is done there.

Airflow tells an auth manager less than it has to know. The same permission (``PUT``) is asked for
clearing a run and for declaring it successful by hand, and some doors ask for nothing but to be
signed in. So a middleware notes each request, and Airflow's own router writes into it which route
it has chosen: there is no second reading of a path that could come to another result.

`doors.txt` lists every door there is with the kinds of callers that may come to it. At a door that
nobody has decided about, as a new version of Airflow may bring, only admins are let in.
"""

from __future__ import annotations

import json
import re
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.users import Kind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    App = Callable[[Scope, Receive, Any], Awaitable[None]]

LIST = Path(__file__).with_name("doors.txt")
PREFIXES = ("/api/v2/", "/ui/")
STARTING = "POST /api/v2/dags/{dag_id}/dagRuns"
# Runs of this name are the gateway's: one for each job.
GATEWAYS_PREFIX = "gw."
MAX_BODY_BYTES = 64 * 1024

_STARTING_PATH = re.compile(r"/api/v2/dags/[^/]+/dagRuns/?")
_CLEAR, _BOOKMARK, _START = "CLEAR", "BOOKMARK", "START"
# What Airflow asks at a door, and what it is called here.
_ACTS = {
    ("POST /api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/clear", "PUT"): _CLEAR,
    ("POST /api/v2/dags/{dag_id}/clearTaskInstances", "PUT"): _CLEAR,
    ("POST /api/v2/dags/{dag_id}/favorite", "GET"): _BOOKMARK,
    ("POST /api/v2/dags/{dag_id}/unfavorite", "GET"): _BOOKMARK,
}


@dataclass(frozen=True)
class Asked:
    """A request, as far as it is known.

    Attributes
    ----------
    scope
        Airflow's own, in which it notes the route.
    is_by_hand
        It would start a run, and surely none by a name of the gateway's.
    """

    scope: Scope
    is_by_hand: bool = False


# None outside a request to the API or the interface. Nothing is told apart then.
asked: ContextVar[Asked | None] = ContextVar("ingest_asked", default=None)


class NoteDoor:
    """Notes each request to the API and to the interface."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Any) -> None:
        """Handle one request."""
        path = _path(scope) if scope["type"] == "http" else ""
        if not path.startswith(PREFIXES):
            await self._app(scope, receive, send)
            return
        by_hand = False
        if scope["method"] == "POST" and _STARTING_PATH.fullmatch(path):
            body, receive = await _read(receive)
            by_hand = _is_by_hand(body)
        mark = asked.set(Asked(scope, by_hand))
        try:
            await self._app(scope, receive, send)
        finally:
            asked.reset(mark)


def here() -> str | None:
    """Return the door of this request, ``GET /api/v2/dags``; None before it is known."""
    found = asked.get()
    route = found.scope.get("route") if found else None
    path = getattr(route, "path", None)
    return f"{found.scope['method']} {path}" if found and path else None


def act(method: str) -> str:
    """Return what is asked for, where Airflow's word says too little."""
    door = here()
    if door == STARTING and method == "POST":
        found = asked.get()
        return _START if found and found.is_by_hand else method
    return _ACTS.get((str(door), method), method)


def lets_in(kind: Kind) -> bool:
    """Say whether callers of this kind may come to the door of this request at all."""
    door = here()
    return door is None or kind is Kind.ADMIN or kind in guests().get(door, ())


@cache
def guests() -> dict[str, frozenset[Kind]]:
    """Return who may come to each door, beside admins."""
    found = {}
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            method, path, *kinds = line.split()
            found[f"{method} {path}"] = frozenset(map(Kind, kinds))
    return found


def _path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


async def _read(receive: Receive) -> tuple[bytes | None, Receive]:
    """Read a small body, and give a ``receive`` that tells it again; None: it is not small."""
    messages, body = [], bytearray()
    while True:
        message = await receive()
        messages.append(message)
        body += message.get("body", b"")
        is_whole = message["type"] == "http.request" and not message.get("more_body")
        if is_whole or message["type"] == "http.disconnect" or len(body) > MAX_BODY_BYTES:
            break

    async def again() -> MutableMapping[str, Any]:
        return messages.pop(0) if messages else await receive()

    return (bytes(body) if is_whole and len(body) <= MAX_BODY_BYTES else None), again


def _is_by_hand(body: bytes | None) -> bool:
    try:
        run_id = json.loads(body or b"")["dag_run_id"]
    except KeyError:
        return True
    except (ValueError, TypeError, RecursionError):
        return False
    return run_id is None or (isinstance(run_id, str) and not run_id.startswith(GATEWAYS_PREFIX))
