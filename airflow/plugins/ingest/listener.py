"""What the scheduler calls when a DAG run changes (Airflow's listener interface)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from airflow.listeners import hookimpl

from ingest.news import News, Teller

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun


@cache
def _teller() -> Teller | None:
    return Teller.from_environment()


def _tell(dag_run: DagRun, state: str) -> None:
    teller = _teller()
    if teller is not None:
        teller.tell(News(dag_run.dag_id, dag_run.run_id, state))


@hookimpl
def on_dag_run_running(dag_run: DagRun, msg: str) -> None:  # noqa: ARG001 - Airflow's signature
    """Tell that a run has begun."""
    _tell(dag_run, "running")


@hookimpl
def on_dag_run_success(dag_run: DagRun, msg: str) -> None:  # noqa: ARG001
    """Tell that a run has succeeded."""
    _tell(dag_run, "success")


@hookimpl
def on_dag_run_failed(dag_run: DagRun, msg: str) -> None:  # noqa: ARG001
    """Tell that a run has failed."""
    _tell(dag_run, "failed")
