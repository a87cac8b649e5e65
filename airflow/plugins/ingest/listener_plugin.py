"""What Airflow loads from this folder for news of runs: the listener of its scheduler."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from ingest import listener


class Listener(AirflowPlugin):
    """Has the scheduler tell the gateway of runs."""

    name = "ingest_listener"
    listeners = [listener]  # noqa: RUF012 - Airflow's shape
