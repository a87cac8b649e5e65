"""Why runs that Airflow took do not start."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, select, update

from gateway import logs
from gateway.dispatch import messenger
from gateway.dispatch.airflow_api import AirflowError
from gateway.dispatch.messenger import Messenger
from gateway.jobs.model import Job

PAUSED = "dag-paused"

log = logs.get("dispatch")


def explain(parts: Messenger, waiting_long_seconds: float) -> None:
    """Write the reason on jobs whose runs have been queued for long: their DAG is paused.

    Each DAG is asked about once. A DAG that cannot be asked about explains nothing this time.
    """
    for client, project in _projects(parts, waiting_long_seconds):
        dag = messenger.dag_id(client, project)
        try:
            paused = parts.airflow_api.is_paused(parts.trigger_token(client, dag), dag)
        except AirflowError as error:
            log.info("dag_not_asked", dag_id=dag, kind=type(error).__name__)
            continue
        _write(parts, client, project, PAUSED if paused else None)


def _projects(parts: Messenger, waiting_long_seconds: float) -> list[tuple[str, str]]:
    since = func.clock_timestamp() - timedelta(seconds=waiting_long_seconds)
    query = (
        select(Job.client, Job.project)
        .where(Job.state == "dispatched", Job.dispatched_at < since)
        .distinct()
    )
    with parts.sessions.begin() as session:
        return [(row.client, row.project) for row in session.execute(query)]


def _write(parts: Messenger, client: str, project: str, reason: str | None) -> None:
    statement = (
        update(Job)
        .where(
            Job.client == client,
            Job.project == project,
            Job.state == "dispatched",
            Job.waiting_reason.is_distinct_from(reason),
        )
        .values(waiting_reason=reason)
    )
    with parts.sessions.begin() as session:
        session.execute(statement)
