"""Two clients in one Airflow: their DAGs, their runs, and everything one must not see of the other.

Whatever belongs to the other client carries ``globex`` in its name or ``xq-`` in its content.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.app import create_app
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.models.dagwarning import DagWarning
from airflow.models.errors import ParseImportError
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.utils.db import upgradedb
from airflow.utils.session import create_session
from sqlalchemy import update
from starlette.testclient import TestClient

from airflow import settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastapi import FastAPI
    from httpx import Response

    from tests.auth_manager.gateway_fake import Gateway

FLIGHTS, HOTELS, ORDERS, STRAY = "acme__flights", "acme__hotels", "globex__orders", "acme__stray"
FLIGHTS_RUN, HOTELS_RUN, ORDERS_RUN = "gw.job_acme_1", "gw.job_acme_2", "gw.job_globex_1"
MARK = "xq-"


@dataclass
class World:
    """The running parts, and how to speak to them."""

    app: FastAPI
    http: TestClient
    gateway: Gateway

    def call(self, method: str, path: str, token: str | None, **options: Any) -> Response:
        """Send one request as the bearer of a token, without any cookie."""
        self.http.cookies.clear()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.http.request(method, path, headers=headers, **options)

    def as_kind(self, kind: str, method: str, path: str, **options: Any) -> Response:
        """Send one request with a golden token."""
        return self.call(method, path, self.gateway.token(kind), **options)


@contextmanager
def running(gateway: Gateway, home: Path) -> Iterator[World]:
    """Migrate, fill the database, start the API server."""
    upgradedb()
    _sync_dags()
    app = create_app()
    with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as http:
        world = World(app, http, gateway)
        _fill_through_the_api(world)
        _fill_directly()
        _write_task_logs(home)
        yield world
        assert http.portal
        # Its connections belong to the server's event loop, which ends here.
        http.portal.call(settings.async_engine.dispose)


def _sync_dags() -> None:
    manager = DagBundlesManager()
    manager.sync_bundles_to_db()
    for bundle in manager.get_all_dag_bundles():
        bundle.initialize()
        bag = BundleDagBag(bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
        assert not bag.import_errors
        sync_bag_to_db(bag, bundle.name, bundle_version=None)


def _fill_through_the_api(world: World) -> None:
    run = {"logical_date": None, "conf": {"job_id": "xq-conf"}, "note": "xq-note"}
    own = {"logical_date": None, "conf": {"job_id": "job_acme"}}
    task = f"/api/v2/dags/{ORDERS}/dagRuns/{ORDERS_RUN}/taskInstances/globex_process"
    steps: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", f"/api/v2/dags/{FLIGHTS}/dagRuns", {**own, "dag_run_id": FLIGHTS_RUN}),
        ("POST", f"/api/v2/dags/{HOTELS}/dagRuns", {**own, "dag_run_id": HOTELS_RUN}),
        (
            "POST",
            f"/api/v2/dags/{ORDERS}/dagRuns",
            {**run, "dag_run_id": ORDERS_RUN, "conf": {"secret": "xq-conf"}},
        ),
        ("POST", f"{task}/xcomEntries", {"key": "xq-key", "value": "xq-xcom"}),
        ("PATCH", task, {"new_state": "success", "note": "xq-tinote"}),
        ("PATCH", f"/api/v2/dags/{ORDERS}/dagRuns/{ORDERS_RUN}", {"state": "success"}),
        ("POST", "/api/v2/pools", {"name": "client-globex", "slots": 3, "description": "xq-pool"}),
        ("POST", "/api/v2/pools", {"name": "client-acme", "slots": 3}),
        ("POST", "/api/v2/variables", {"key": "globex-variable", "value": "xq-variable"}),
        (
            "POST",
            "/api/v2/connections",
            {"connection_id": "globex-db", "conn_type": "generic", "host": "xq-host"},
        ),
        (
            "POST",
            "/api/v2/backfills",
            {
                "dag_id": ORDERS,
                "from_date": "2026-01-01T00:00:00Z",
                "to_date": "2026-01-02T00:00:00Z",
            },
        ),
    ]
    for method, path, body in steps:
        answer = world.as_kind("admin", method, path, json=body)
        assert answer.status_code < 300, (method, path, answer.text)
    events = world.as_kind("admin", "GET", "/api/v2/assets").json()["assets"]
    event = {"asset_id": events[0]["id"], "extra": {"globex": "xq-event"}}
    assert world.as_kind("admin", "POST", "/api/v2/assets/events", json=event).status_code == 200


def _fill_directly() -> None:
    """Write what only the scheduler and the DAG processor write."""
    with create_session() as session:
        session.add(Log(event="xq-event", owner="globex-operator", extra="xq-extra"))
        session.add(
            ParseImportError(
                filename="globex.py",
                bundle_name="dags-folder",
                stacktrace="xq-stacktrace",
                timestamp=datetime.now(UTC),
            )
        )
        session.execute(
            update(TaskInstance).where(TaskInstance.dag_id == ORDERS).values(try_number=1)
        )
        session.add(DagWarning(ORDERS, "non-existent pool", "xq-warning"))


def _write_task_logs(home: Path) -> None:
    folder = home / f"logs/dag_id={ORDERS}/run_id={ORDERS_RUN}/task_id=globex_process"
    folder.mkdir(parents=True)
    (folder / "attempt=1.log").write_text("xq-logline\n")
