"""Runs of DAGs whose tasks ask for connections, and what their tasks found."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.journeys.conftest import Stack

OWN, SPOOF = "acme__probe", "acme__spoof"
USED = ("client_postgres", "client_landing", "client_directory")


def until(question: Callable[[], Any], seconds: float = 90, pause: float = 0.2) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(pause)
    return answer


@contextmanager
def airflow(stack: Stack, who: str = "ADMIN") -> Iterator[httpx.Client]:
    form = {"username": stack[f"{who}_USER"], "password": stack[f"{who}_PASSWORD"]}
    answer = httpx.post(f"{stack['AIRFLOW_URL']}/auth/token", json=form)
    assert answer.status_code in {200, 201}, answer.text
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    with httpx.Client(base_url=stack["AIRFLOW_URL"], headers=headers, timeout=30) as speaker:
        yield speaker


def findings(stack: Stack, dag_id: str, run_id: str, tried: int = 1) -> dict[str, Any]:
    path = stack.directory / "staged" / f"{dag_id}.{run_id}.{tried}.json"
    until(path.exists)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def onboard_probe(stack: Stack) -> None:
    """Give acme a project whose DAG uses each connection."""
    headers = stack.sign_in("ADMIN")
    url = f"{stack['GATEWAY_URL']}/v1/admin/clients/acme"
    spec = httpx.get(url, headers=headers).json()["spec"]
    contract = spec["projects"]["flights"]["contract"]
    spec["projects"]["probe"] = {"contract": contract}
    answer = httpx.put(url, json=spec, headers=headers)
    assert answer.status_code == 200, answer.text


def deliver(stack: Stack, path: Path) -> str:
    """Deliver a file to that project; return its job's id."""
    words = ["send", "--project", "probe", "--reference", path.name, "--json", str(path)]
    sent = stack.send("ACME", *words)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    job: str = json.loads(sent.stdout)["job"]["id"]
    return job


def leases(stack: Stack, job: str) -> list[dict[str, Any]]:
    headers = stack.sign_in("ADMIN")
    url = f"{stack['GATEWAY_URL']}/v1/admin/leases?client=acme&limit=200"
    found = httpx.get(url, headers=headers).json()["items"]
    return [each for each in found if each["job"] == job]


def run(speaker: httpx.Client, dag_id: str, run_id: str) -> None:
    """Start a run by hand, and see it end."""
    path = f"/api/v2/dags/{dag_id}/dagRuns"
    answer = speaker.post(path, json={"dag_run_id": run_id, "logical_date": None})
    assert answer.status_code == 200, answer.text
    until(lambda: speaker.get(f"{path}/{run_id}").json()["state"] in {"success", "failed"})


def rerun(speaker: httpx.Client, dag_id: str, run_id: str) -> None:
    """Have the tasks of a run that has ended run again."""
    body = {"dag_run_id": run_id, "dry_run": False, "only_failed": False}
    answer = speaker.post(f"/api/v2/dags/{dag_id}/clearTaskInstances", json=body)
    assert answer.status_code == 200, answer.text
