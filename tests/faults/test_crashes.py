"""Killed between any two steps of the path, a delivery ends as if nothing had happened."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from gateway.audit import trail
from gateway.batches.model import Batch, File
from gateway.jobs.model import Job
from gateway.outbox.model import Message
from tests import factories
from tests.fakes.airflow_server import AirflowServer, Dag
from tests.fakes.airflow_server import running as airflow_running
from tests.parts import REPOSITORY, GatewayServer, free_port, start_server, wait_until_alive

CONTENT = b"id,note\n1,one\n"
MOST_STEPS = 80
NEVER = 10**9


@contextmanager
def crashing(
    number: int, arm: Path, arguments: list[str], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the gateway so that it dies at a step, and see to it that it is dead afterwards."""
    log = arm.with_suffix(".log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.crashing", str(number), str(arm), *arguments],
        env={**os.environ, **environment},
        cwd=REPOSITORY,
        stdout=log,
        stderr=log,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        log.close()


def token(url: str, password: str) -> dict[str, str]:
    form = {"grant_type": "client_credentials"}
    answer = httpx.post(f"{url}/v1/token", data=form, auth=("acme-uploader", password))
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def deliver(url: str, headers: dict[str, str], batch: str) -> str:
    """PUT and seal; both may be repeated."""
    put = httpx.put(f"{url}/v1/batches/{batch}/files/a.csv", content=CONTENT, headers=headers)
    assert put.status_code in {200, 201}, put.text
    assert put.json()["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    sealed = httpx.post(f"{url}/v1/batches/{batch}/seal", headers=headers)
    assert sealed.status_code == 202, sealed.text
    job: str = sealed.json()["job"]["id"]
    return job


def open_batch(url: str, headers: dict[str, str], reference: str) -> str:
    body = {"project": "flights", "reference": reference}
    answer = httpx.post(f"{url}/v1/batches", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    identity: str = answer.json()["id"]
    return identity


def test_a_server_killed_at_any_step_of_put_and_seal_loses_and_doubles_nothing(
    environment: dict[str, str],
    server: GatewayServer,
    sessions: sessionmaker[Session],
    directory_server: object,
    tmp_path: Path,
) -> None:
    factories.onboard_two(sessions)
    password = directory_server.passwords["acme-uploader"]  # type: ignore[attr-defined]
    headers = token(server.url, password)
    died_at = []
    for number in range(MOST_STEPS):
        arm = tmp_path / f"arm-{number}"
        batch = open_batch(server.url, headers, f"crash-{number}")
        port = free_port()
        variables = {**environment, "GATEWAY_SERVER_PORT": str(port)}
        with crashing(number, arm, ["serve"], variables) as process:
            url = f"http://127.0.0.1:{port}"
            wait_until_alive(url, process, arm.with_suffix(".log"))
            httpx.get(f"{url}/v1/me", headers=headers)
            arm.touch()
            try:
                deliver(url, headers, batch)
            except httpx.TransportError:
                died_at.append(arm.read_text().strip())
            else:
                break
        # The client tries again, at a process that lives.
        deliver(server.url, headers, batch)
        check_landing(environment, batch)
    else:
        pytest.fail("the steps never end")
    assert {"before fsync", "before rename_without_replacing"} <= set(died_at)
    assert {"before do_commit", "after do_commit"} <= set(died_at)
    check_ledger(sessions, batches=len(died_at) + 1)
    assert httpx.post(f"{server.url}/v1/admin/reconcile").status_code == 401
    check_reconciled(server.url, directory_server)


def check_landing(environment: dict[str, str], batch: str) -> None:
    place = Path(environment["GATEWAY_LANDING_ROOT"]) / "acme" / "flights" / batch / "files"
    assert [each.name for each in place.iterdir()] == ["a.csv"]
    assert (place / "a.csv").read_bytes() == CONTENT


def check_ledger(sessions: sessionmaker[Session], batches: int) -> None:
    with sessions.begin() as session:
        found = session.scalars(select(Batch)).all()
        assert [each.state for each in found] == ["sealed"] * batches
        assert {each.reserved_bytes for each in found} == {len(CONTENT)}
        assert {each.file_count for each in found} == {1}
        files = session.scalars(select(File)).all()
        assert [each.state for each in files] == ["complete"] * batches
        jobs = session.scalars(select(Job)).all()
        messages = session.scalars(select(Message.key).where(Message.topic == "job.trigger")).all()
        assert sorted(messages) == sorted(each.id for each in jobs)
        assert len({each.batch_id for each in jobs}) == len(jobs) == batches
        sealed = trail.search(session, action="batch.sealed", limit=1000)
        received = trail.search(session, action="file.received", limit=1000)
        assert len(sealed) == len(received) == batches
        assert trail.verify(session).broken_at is None


def check_reconciled(url: str, directory_server: object) -> None:
    form = {"grant_type": "password", "username": "admin"}
    form["password"] = directory_server.passwords["admin"]  # type: ignore[attr-defined]
    issued = httpx.post(f"{url}/v1/token", data=form).json()["access_token"]
    headers = {"Authorization": f"Bearer {issued}"}
    report = httpx.post(f"{url}/v1/admin/reconcile", headers=headers).json()
    assert report["findings"] == []


@pytest.fixture
def airflow() -> Iterator[AirflowServer]:
    with airflow_running() as started:
        started.dags["acme__flights"] = Dag()
        yield started


def test_a_worker_killed_at_any_step_triggers_each_job_exactly_once(
    environment: dict[str, str],
    airflow: AirflowServer,
    sessions: sessionmaker[Session],
    directory_server: object,
    tmp_path: Path,
) -> None:
    factories.onboard(sessions, "acme", ("flights",))
    environment |= {
        "GATEWAY_AIRFLOW_URL": airflow.url,
        "GATEWAY_WORKER_CLAIM_SECONDS": "5",
        "GATEWAY_WORKER_POLL_SECONDS": "0.2",
    }
    server = start_server(environment, tmp_path)
    try:
        jobs, died_at = _killed_workers(server, environment, directory_server, sessions, tmp_path)
    finally:
        server.stop()
    assert {"before trigger", "after trigger", "before fsync"} <= set(died_at)
    assert {"before do_commit", "after do_commit"} <= set(died_at)
    postpone(sessions, hours=-1)
    with crashing(NEVER, tmp_path / "healthy", ["worker"], environment):
        until(lambda: states(sessions) == {"dispatched"})
    assert sorted(airflow.created.elements()) == sorted(f"gw.{job}" for job in jobs)
    with sessions.begin() as session:
        assert len(trail.search(session, action="job.dispatched", limit=1000)) == len(jobs)
        assert trail.verify(session).broken_at is None


def _killed_workers(
    server: GatewayServer,
    environment: dict[str, str],
    directory_server: object,
    sessions: sessionmaker[Session],
    tmp_path: Path,
) -> tuple[list[str], list[str]]:
    """Seal a batch, kill a worker at the next step, and so on until one comes through."""
    headers = token(server.url, directory_server.passwords["acme-uploader"])  # type: ignore[attr-defined]
    jobs: list[str] = []
    died_at: list[str] = []
    for number in range(MOST_STEPS):
        arm = tmp_path / f"arm-{number}"
        arm.touch()
        batch = open_batch(server.url, headers, f"crash-{number}")
        jobs.append(deliver(server.url, headers, batch))
        with crashing(number, arm, ["worker"], environment) as process:
            until(lambda: process.poll() is not None or state(sessions, jobs[-1]) == "dispatched")
        if not arm.read_text():
            return jobs, died_at
        died_at.append(arm.read_text().strip())
        postpone(sessions, hours=1)
    pytest.fail("the steps never end")


def postpone(sessions: sessionmaker[Session], hours: int) -> None:
    """Let what dead workers had claimed wait, so that the next meets its own message alone."""
    with sessions.begin() as session:
        due = func.now() + timedelta(hours=hours)
        pending = update(Message).where(Message.state == "pending")
        session.execute(pending.values(available_at=due))


def state(sessions: sessionmaker[Session], job: str) -> str:
    with sessions.begin() as session:
        return session.scalars(select(Job.state).where(Job.id == job)).one()


def states(sessions: sessionmaker[Session]) -> set[str]:
    with sessions.begin() as session:
        return set(session.scalars(select(Job.state)))


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
