"""The client's own DAG, in the Airflow that plays both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from tests.journeys.borrowing import until

DAG = "/api/v2/dags/client_side"


@dataclass
class Run:
    """A run of the DAG, and what its tasks left behind."""

    speaker: httpx.Client
    id: str

    @property
    def path(self) -> str:
        return f"{DAG}/dagRuns/{self.id}"

    def state(self) -> str:
        state: str = self.speaker.get(self.path).json()["state"]
        return state

    def events(self) -> set[str]:
        """Return the states that Airflow has noted of the delivery's task."""
        wanted = {"dag_id": "client_side", "run_id": self.id, "task_id": "deliver"}
        found = self.speaker.get("/api/v2/eventLogs", params=wanted).json()["event_logs"]
        return {each["event"] for each in found}

    def xcom(self, key: str) -> Any:
        path = f"{self.path}/taskInstances/deliver/xcomEntries/{key}"
        answer = self.speaker.get(path, params={"deserialize": "true"})
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    def log(self, task: str = "deliver") -> str:
        """Return what a task's log says, as far as it can be read."""
        answer = self.speaker.get(f"{self.path}/taskInstances/{task}/logs/1")
        return answer.text

    def links(self) -> dict[str, str]:
        answer = self.speaker.get(f"{self.path}/taskInstances/deliver/links")
        links: dict[str, str] = answer.json()["extra_links"]
        return links


def scheduled(speaker: httpx.Client) -> Run:
    """Switch the DAG on, and return the run that its schedule makes of the last interval."""
    on = {"is_paused": False}
    until(lambda: speaker.patch(DAG, json=on).status_code == 200)
    found = until(lambda: speaker.get(f"{DAG}/dagRuns").json()["dag_runs"])
    run = Run(speaker, found[0]["dag_run_id"])
    until(lambda: run.state() in {"success", "failed"}, seconds=120)
    speaker.patch(DAG, json={"is_paused": True})
    return run
