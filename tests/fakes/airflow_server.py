"""A loopback server that answers like Airflow 3.3's ``/api/v2`` and fails on demand.

It keeps what matters to the gateway: one run per ``(dag_id, dag_run_id)``, the rights of each kind
of token, filters and pages of run lists. ``tests/journeys`` holds the gateway against the real one.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

PAGE_MAX = 100
MISSING = object()


@dataclass
class Fault:
    """Something to go wrong with the next ``times`` requests that match.

    ``act`` is a status to answer, ``drop`` (close without an answer) or ``hang`` (say nothing until
    the caller gives up); ``after``: only once the request has been carried out.
    """

    act: int | str
    method: str = ".*"
    path: str = ".*"
    after: bool = False
    times: int = 1_000_000

    def matches(self, method: str, path: str) -> bool:
        """Say whether this fault is for this request."""
        return bool(re.fullmatch(self.method, method) and re.search(self.path, path))


@dataclass
class Dag:
    """A DAG as far as triggering goes."""

    is_paused: bool = False
    has_import_errors: bool = False


@dataclass
class Refusal(Exception):  # noqa: N818 - an answer, not an error
    """An answer other than 2xx."""

    status: int
    detail: str = ""


@dataclass
class AirflowServer:
    """The server and everything it knows. Use ``running()``."""

    dags: dict[str, Dag] = field(default_factory=dict)
    runs: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    tasks: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    pools: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    created: Counter[str] = field(default_factory=Counter)
    clock_offset: timedelta = timedelta()

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.released = threading.Event()
        self.port = 0
        self._server: _Server | None = None
        self.up()

    @property
    def url(self) -> str:
        """The base URL; the port stays the same when the server goes down and comes up."""
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        """Listen."""
        self.released.clear()
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.airflow = self
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections and close those that are open."""
        self.released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.hang_up()
            self._server.server_close()
            self._server = None

    def now(self) -> datetime:
        """Return what this host's clock says."""
        return datetime.now(UTC) + self.clock_offset

    def fail(self, act: int | str, **how: Any) -> Fault:
        """Add a fault."""
        fault = Fault(act, **how)
        self.faults.append(fault)
        return fault

    def heal(self) -> None:
        """Remove all faults."""
        self.faults.clear()

    def move(self, run_id: str, state: str) -> None:
        """Let a run proceed, as the scheduler would."""
        with self.lock:
            for run in self.runs.values():
                if run["dag_run_id"] == run_id:
                    run.update(state=state, updated_at=self.now())

    def fail_task(self, run_id: str, task_id: str) -> None:
        """Let a task fail, and its run with it."""
        dag_id = next(dag for dag, run in self.runs if run == run_id)
        self.tasks.setdefault((dag_id, run_id), []).append({"task_id": task_id, "state": "failed"})
        self.move(run_id, "failed")

    def count(self, method: str, path: str) -> int:
        """Return how many requests of a kind were received."""
        with self.lock:
            return sum(
                1 for verb, target, _ in self.requests if verb == method and re.search(path, target)
            )

    # --- what the routes do ---------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Any:
        """Carry a request out.

        Raises
        ------
        Refusal
            It is not one, or may not be.
        """
        for verb, pattern, action in ROUTES:
            found = re.fullmatch(pattern, path)
            if verb == method and found:
                with self.lock:
                    return action(self, [unquote(part) for part in found.groups()], query, body)
        raise Refusal(404, "Not Found")

    def _health(self, *_: Any) -> Any:
        return {"metadatabase": {"status": "healthy"}, "scheduler": {"status": "healthy"}}

    def _dag(self, names: list[str], *_: Any) -> Any:
        dag = self.dags.get(names[0])
        if dag is None:
            raise Refusal(404, f"The Dag with ID: `{names[0]}` was not found")
        return {"dag_id": names[0], "is_paused": dag.is_paused}

    def _trigger(self, names: list[str], _query: Any, body: Any) -> Any:
        dag = self.dags.get(names[0])
        if dag is None:
            raise Refusal(404, f"Dag with dag_id: '{names[0]}' not found")
        if dag.has_import_errors:
            raise Refusal(400, "has import errors and cannot be triggered")
        allowed = {"dag_run_id", "logical_date", "conf", "note", "run_after"}
        if set(body) - allowed or body.get("logical_date", MISSING) is not None:
            raise Refusal(422, "Unprocessable")
        key = (names[0], body["dag_run_id"])
        if key in self.runs:
            raise Refusal(409, "Unique constraint violation")
        self.created[body["dag_run_id"]] += 1
        self.runs[key] = {
            "id": len(self.runs) + 1,
            "dag_id": names[0],
            "dag_run_id": body["dag_run_id"],
            "conf": body["conf"],
            "state": "queued",
            "updated_at": self.now(),
        }
        return _shown(self.runs[key])

    def _run(self, names: list[str], *_: Any) -> Any:
        return _shown(self._known_run(names))

    def _patch_run(self, names: list[str], query: dict[str, list[str]], body: Any) -> Any:
        if query["update_mask"] != ["state"] or body["state"] not in {"failed", "success"}:
            raise Refusal(422)
        self._known_run(names).update(state=body["state"], updated_at=self.now())
        return _shown(self._known_run(names))

    def _known_run(self, names: list[str]) -> dict[str, Any]:
        run = self.runs.get((names[0], names[1]))
        if run is None:
            raise Refusal(404, "The DagRun was not found")
        return run

    def _list(self, _names: Any, query: dict[str, list[str]], _body: Any) -> Any:
        rows = sorted(self.runs.values(), key=lambda run: run["id"])
        for name, keep in FILTERS.items():
            if name in query:
                rows = [run for run in rows if keep(run, query[name])]
        start = int(query.get("cursor", ["0"])[0] or 0)
        size = min(int(query.get("limit", ["50"])[0]), PAGE_MAX)
        more = str(start + size) if start + size < len(rows) else None
        return {
            "dag_runs": [_shown(run) for run in rows[start : start + size]],
            "next_cursor": more,
            "total_entries": len(rows),
        }

    def _task_instances(self, names: list[str], query: dict[str, list[str]], _body: Any) -> Any:
        self._known_run(names)
        found = self.tasks.get((names[0], names[1]), [])
        return {"task_instances": [task for task in found if task["state"] in query["state"]]}

    def _bulk_pools(self, _names: Any, _query: Any, body: Any) -> Any:
        (action,) = body["actions"]
        if action["action"] != "create" or action["action_on_existence"] != "overwrite":
            raise Refusal(422, "the gateway does nothing else")
        for pool in action["entities"]:
            self.pools[pool["name"]] = pool
        done = [pool["name"] for pool in action["entities"]]
        return {"create": {"success": done, "errors": []}, "update": None, "delete": None}


RUN = r"/api/v2/dags/([^/]+)/dagRuns/([^/]+)"
ROUTES = (
    ("GET", r"/api/v2/monitor/health", AirflowServer._health),
    ("GET", r"/api/v2/dags/~/dagRuns", AirflowServer._list),
    ("GET", r"/api/v2/dags/([^/]+)", AirflowServer._dag),
    ("POST", r"/api/v2/dags/([^/]+)/dagRuns", AirflowServer._trigger),
    ("GET", RUN, AirflowServer._run),
    ("PATCH", RUN, AirflowServer._patch_run),
    ("GET", RUN + "/taskInstances", AirflowServer._task_instances),
    ("PATCH", r"/api/v2/pools", AirflowServer._bulk_pools),
)

# What each kind of token may do, as `airflow/plugins/ingest/rights.py` has it.
RIGHTS = {
    "dags:trigger": r"(GET|POST) /api/v2/dags/{dag}(/dagRuns.*)?",
    "dags:cancel": r"(GET|PATCH) /api/v2/dags/{dag}/dagRuns/[^/]+",
    "dags:watch": r"GET /api/v2/dags/[^/]+/dagRuns.*",
    "pools:write": r"PATCH /api/v2/pools",
}


def _permit(claims: dict[str, Any], method: str, path: str) -> None:
    if path.endswith("/monitor/health"):
        return
    if claims.get("aud") != "airflow" or claims.get("exp", 0) < time.time():
        raise Refusal(401, "Not authenticated")
    dags = "|".join(re.escape(each) for each in claims.get("dags", []))
    pattern = RIGHTS[claims["scope"]].format(dag=f"({dags})")
    if not re.fullmatch(pattern, f"{method} {path}"):
        raise Refusal(403, "Forbidden")


def _claims(header: str) -> dict[str, Any]:
    try:
        payload = header.removeprefix("Bearer ").split(".")[1]
        found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "==="))
    except (IndexError, ValueError):
        return {}
    return found


def _by_prefix(run: dict[str, Any], values: list[str]) -> bool:
    prefixes = [re.sub(r"[^A-Za-z0-9]+\Z", "", each) for each in values[0].split("|")]
    return run["dag_run_id"].startswith(tuple(prefixes))


FILTERS = {
    "state": lambda run, values: run["state"] in values,
    "run_id_prefix_pattern": _by_prefix,
    "updated_at_gte": lambda run, values: run["updated_at"] >= datetime.fromisoformat(values[0]),
}


def _shown(run: dict[str, Any]) -> dict[str, Any]:
    hidden = {"id", "updated_at"}
    return {name: value for name, value in run.items() if name not in hidden}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Set at once by whoever makes the server.
    airflow: AirflowServer

    def __init__(self, *arguments: Any) -> None:
        self.open: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Close every open connection, as a killed process would."""
        for connection in list(self.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: callers that gave up are part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        airflow, target = self.server.airflow, urlsplit(self.path)
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        claims = _claims(self.headers.get("authorization", ""))
        with airflow.lock:
            airflow.requests.append((self.command, self.path, claims))
        fault = self._fault(after=False)
        if fault is not None:
            self._break(fault)
            return
        try:
            _permit(claims, self.command, target.path)
            status, found = (
                200,
                airflow.answer(self.command, target.path, parse_qs(target.query), body),
            )
        except Refusal as refusal:
            status, found = refusal.status, {"detail": refusal.detail}
        fault = self._fault(after=True)
        if fault is not None:
            self._break(fault)
        else:
            self._send(status, found)

    do_GET = do_POST = do_PATCH = _serve  # noqa: N815 - names of http.server

    def _fault(self, *, after: bool) -> Fault | None:
        with self.server.airflow.lock:
            for fault in self.server.airflow.faults:
                fits = fault.after is after and fault.times > 0
                if fits and fault.matches(self.command, self.path):
                    fault.times -= 1
                    return fault
        return None

    def _break(self, fault: Fault) -> None:
        if isinstance(fault.act, int):
            self._send(fault.act, {"detail": "out of order"})
            return
        if fault.act == "hang":
            self.server.airflow.released.wait(30)
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return this host's time for the Date header."""
        return super().date_time_string(timestamp or self.server.airflow.now().timestamp())

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


@contextmanager
def running() -> Iterator[AirflowServer]:
    """Serve until the block ends."""
    server = AirflowServer()
    try:
        yield server
    finally:
        server.down()
