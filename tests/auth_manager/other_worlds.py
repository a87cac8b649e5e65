"""The same Airflow with more in it, or set up in another way; all is taken back in the end."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from airflow.models import DagModel, Pool
from airflow.models.backfill import Backfill, ReprocessBehavior
from airflow.models.connection import Connection
from airflow.models.dag import clear_team_name_cache
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagwarning import DagWarning
from airflow.models.errors import ParseImportError
from airflow.models.log import Log
from airflow.models.team import Team
from airflow.models.variable import Variable
from airflow.utils.session import create_session
from sqlalchemy import delete, text, update

from tests.auth_manager.world import ORDERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.auth_manager.world import World

MORE = "globex__more"
_RUNS = ("gw.job_globex_2", "gw.job_globex_3")


@contextmanager
def doubled(world: World) -> Iterator[None]:
    """Give the other client at least twice as much of everything."""
    runs = f"/api/v2/dags/{ORDERS}/dagRuns"
    for run in _RUNS:
        body = {"dag_run_id": run, "logical_date": None, "conf": {"secret": "xq-conf"}}
        assert world.as_kind("admin", "POST", runs, json=body).status_code == 200
    with create_session() as session:
        session.add_all(_rows())
    yield
    for run in _RUNS:
        assert world.as_kind("admin", "DELETE", f"{runs}/{run}").status_code == 204
    with create_session() as session:
        for model, condition in (
            (DagWarning, DagWarning.dag_id == MORE),
            (Backfill, Backfill.dag_id == MORE),
            (DagModel, DagModel.dag_id == MORE),
            (Pool, Pool.pool == "client-globex-2"),
            (Variable, Variable.key == "globex-variable-2"),
            (Connection, Connection.conn_id == "globex-db-2"),
            (Log, Log.event == "xq-event-2"),
            (ParseImportError, ParseImportError.filename == "globex-2.py"),
        ):
            session.execute(delete(model).where(condition))


def _rows() -> list[Any]:
    now = datetime.now(UTC)
    times = {"from_date": now, "to_date": now}
    return [
        DagModel(
            dag_id=MORE,
            bundle_name="dags-folder",
            is_paused=False,
            is_stale=False,
            fileloc="globex.py",
            relative_fileloc="globex.py",
            owners="xq-owner",
            timetable_summary="@daily",
        ),
        DagWarning(MORE, "non-existent pool", "xq-warning"),
        Backfill(dag_id=MORE, **times, reprocess_behavior=ReprocessBehavior.NONE),
        Pool(pool="client-globex-2", slots=3, description="xq-pool", include_deferred=False),
        Variable(key="globex-variable-2", val="xq-variable"),
        Connection(conn_id="globex-db-2", conn_type="generic", host="xq-host"),
        Log(event="xq-event-2", owner="globex-operator", extra="xq-extra"),
        ParseImportError(
            filename="globex-2.py",
            bundle_name="dags-folder",
            stacktrace="xq-stacktrace",
            timestamp=now,
        ),
    ]


@contextmanager
def teams() -> Iterator[None]:
    """Let Airflow run with teams: one for each client, each with a bundle of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
        with create_session() as session:
            for client in ("acme", "globex"):
                bundle = DagBundleModel(name=f"{client}-bundle")
                bundle.teams = [Team(name=client)]
                session.add(bundle)
                session.flush()
                _move(session, f"{client}__%", bundle.name)
        yield
        with create_session() as session:
            _move(session, "%", "dags-folder")
            session.flush()
            session.execute(delete(DagBundleModel).where(DagBundleModel.name.like("%-bundle")))
            session.execute(delete(Team))


def give(dag_id: str, bundle: str) -> None:
    """Put a DAG into another bundle, and so into another team."""
    with create_session() as session:
        _move(session, dag_id, bundle)


def _move(session: Any, pattern: str, bundle: str) -> None:
    # Airflow remembers for a while which team a DAG is of.
    clear_team_name_cache()
    session.execute(
        update(DagModel).where(DagModel.dag_id.like(pattern)).values(bundle_name=bundle)
    )


def everything(*, but: str = "") -> dict[str, tuple[int, int]]:
    """Return how many rows each table of Airflow's database has, and a digest of them.

    Parameters
    ----------
    but
        A table that is left out.
    """
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
    one = "SELECT '{0}', count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) FROM \"{0}\" AS t"
    with create_session() as session:
        names = sorted(set(session.scalars(text(tables))) - {but})
        rows = session.execute(text(" UNION ALL ".join(one.format(name) for name in names)))
        return {name: (int(count), int(digest)) for name, count, digest in rows}
