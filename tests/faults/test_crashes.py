"""A worker killed between any two of its steps carries each job to Airflow once.

For what kills a server see ``test_killed_calls``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from gateway.audit import trail
from gateway.jobs.model import Job
from gateway.outbox.model import Message
from tests.fakes.airflow_server import AirflowServer, Dag
from tests.fakes.airflow_server import running as airflow_running
from tests.faults.conftest import Check, watching_token
from tests.faults.history import Client
from tests.nursery import Child, Nursery

CONTENT = b"id,note\n1,one\n"
MOST_STEPS = 80
NEVER = 10**9


@contextmanager
def crashing(
    nursery: Nursery, number: int, arm: Path, environment: dict[str, str]
) -> Iterator[Child]:
    """Run a worker so that it dies at a step, and see to it that it is dead afterwards."""
    argv, log = [str(number), str(arm), "worker"], arm.with_suffix(".log")
    with nursery.brood() as mine:
        yield mine.start(argv, environment, log, program="tests.faults.crashing")


@pytest.fixture
def airflow() -> Iterator[AirflowServer]:
    with airflow_running() as started:
        started.dags["acme__flights"] = Dag()
        yield started


def test_a_worker_killed_at_any_step_triggers_each_job_exactly_once(
    nursery: Nursery,
    environment: dict[str, str],
    airflow: AirflowServer,
    sessions: sessionmaker[Session],
    acme: Client,
    check: Check,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    environment |= {
        "GATEWAY_AIRFLOW_URL": airflow.url,
        "GATEWAY_WORKER_CLAIM_SECONDS": "5",
        "GATEWAY_WORKER_POLL_SECONDS": "0.2",
    }
    jobs, died_at = _killed_workers(nursery, acme, environment, sessions, tmp_path)
    assert {"before trigger", "after trigger", "before fsync"} <= set(died_at)
    assert {"before do_commit", "after do_commit"} <= set(died_at)
    postpone(sessions, hours=-1)
    with crashing(nursery, NEVER, tmp_path / "healthy", environment):
        until(lambda: states(sessions) == {"dispatched"})
    assert sorted(airflow.created.elements()) == sorted(f"gw.{job}" for job in jobs)
    with sessions.begin() as session:
        assert len(trail.search(session, action="job.dispatched", limit=1000)) == len(jobs)
    monkeypatch.setenv("AIRFLOW_TOKEN", watching_token())
    found = check("--airflow", airflow.url)
    assert found == []


def _killed_workers(
    nursery: Nursery,
    acme: Client,
    environment: dict[str, str],
    sessions: sessionmaker[Session],
    tmp_path: Path,
) -> tuple[list[str], list[str]]:
    """Seal a batch, kill a worker at the next step, and so on until one comes through."""
    jobs: list[str] = []
    died_at: list[str] = []
    for number in range(MOST_STEPS):
        arm = tmp_path / f"arm-{number}"
        arm.touch()
        batch = acme.batch(f"crash-{number}")
        acme.store(batch, "a.csv", CONTENT)
        jobs.append(acme.seal(batch).json()["job"]["id"])
        with crashing(nursery, number, arm, environment) as process:
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
