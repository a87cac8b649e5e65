"""What Airflow's API server loads from this folder: what it notes of each request."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from ingest.asking import NoteTask
from ingest.doors import NoteDoor


class Server(AirflowPlugin):
    """Has the API server note which task asks, and at which door."""

    name = "ingest_server"
    fastapi_root_middlewares = [  # noqa: RUF012 - Airflow's shape
        {"name": "note task", "middleware": NoteTask},
        {"name": "note door", "middleware": NoteDoor},
    ]
