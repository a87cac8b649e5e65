"""What Airflow loads from this folder for leases: the middleware of its API server."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from ingest.asking import NoteTask


class Leases(AirflowPlugin):
    """Has the API server note which task asks."""

    name = "ingest_leases"
    fastapi_root_middlewares = [{"name": "note task", "middleware": NoteTask}]  # noqa: RUF012 - Airflow's shape
