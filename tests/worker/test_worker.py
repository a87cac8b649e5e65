"""The loops together: on real Postgres, before a loopback Airflow that fails on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, text, update

from gateway import worker
from gateway.batches import ledger
from gateway.batches.model import Batch
from gateway.batches.views import BatchRequest
from gateway.jobs import news
from gateway.jobs.views import RunNews
from gateway.landing.zone import BatchPath
from gateway.outbox.model import Message
from tests.dispatch.dispatching import CONTENT, Desk, complete_file, principal, timed, until
from tests.fakes.airflow_server import Dag
from tests.nursery import Nursery

POLL_SECONDS = 10


@contextmanager
def working(desk: Desk, workers: int = 1) -> Iterator[None]:
    """Run workers while the block runs; they end in time."""
    stop = threading.Event()
    threads = [
        threading.Thread(target=worker.run, args=(desk.services, stop)) for _ in range(workers)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(12)
        assert not any(thread.is_alive() for thread in threads)


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    """Polling is rare, so that what comes quickly was told."""
    return environment | {
        "GATEWAY_WORKER_POLL_SECONDS": str(POLL_SECONDS),
        "GATEWAY_WORKER_WATCH_SECONDS": "0.4",
        "GATEWAY_DATABASE_POOL_SIZE": "24",
    }


def test_a_job_is_dispatched_and_finished_soon_after_each_cause_not_at_the_next_poll(
    desk: Desk,
) -> None:
    with working(desk):
        until(lambda: desk.airflow.pools.keys() == {"client-acme", "client-globex"})
        with timed() as seconds:
            job_id = desk.seal()
            until(lambda: desk.job(job_id).state == "dispatched")
        assert seconds() < POLL_SECONDS
        for state, expected in (("running", "running"), ("success", "succeeded")):
            if state == "success":
                desk.report(job_id)
            with timed() as seconds:
                desk.airflow.move(f"gw.{job_id}", state)
                until(lambda wanted=expected: desk.job(job_id).state == wanted)
            assert seconds() < POLL_SECONDS


def test_what_airflow_tells_is_seen_long_before_the_next_poll(
    desk: Desk, environment: dict[str, str]
) -> None:
    seldom = desk.services.settings.worker.model_copy(update={"watch_seconds": 60.0})
    patient = desk.services.settings.model_copy(update={"worker": seldom})
    desk = Desk(replace(desk.services, settings=patient), desk.airflow)
    with working(desk):
        job_id = desk.seal()
        until(lambda: desk.job(job_id).state == "dispatched")
        desk.report(job_id)
        desk.airflow.move(f"gw.{job_id}", "success")
        with timed() as seconds:
            said = RunNews(dag_id="acme__flights", run_id=f"gw.{job_id}", state="success")
            with desk.services.sessions.begin() as session:
                news.pass_on(session, job_id, said)
            until(lambda: desk.job(job_id).state == "succeeded")
        assert seconds() < POLL_SECONDS


def test_one_clients_many_jobs_leave_hands_free_for_another(desk: Desk) -> None:
    slow = desk.services.settings.airflow.model_copy(update={"timeout_seconds": 4.0})
    patient = desk.services.settings.model_copy(update={"airflow": slow})
    desk = Desk(replace(desk.services, settings=patient), desk.airflow)
    desk.airflow.fail("hang", method="POST", path="acme__flights/dagRuns", times=100)
    jobs = [desk.seal() for _ in range(12)]
    with working(desk):
        until(lambda: desk.airflow.count("POST", "dagRuns"))
        other = desk.seal("globex", "weather")
        until(lambda: desk.job(other).state == "dispatched", seconds=3)
        # Nothing of the many has moved: it went past them.
        assert desk.airflow.count("POST", "acme__flights/dagRuns") <= 4
        assert {desk.job(job_id).state for job_id in jobs} == {"queued"}


def test_two_workers_at_once_make_one_run_for_each_of_many_jobs(desk: Desk) -> None:
    jobs = [desk.seal() for _ in range(30)]
    with working(desk, workers=2):
        until(lambda: all(desk.job(job_id).state == "dispatched" for job_id in jobs), seconds=30)
    assert desk.airflow.created == {f"gw.{job_id}": 1 for job_id in jobs}
    assert all(desk.actions(job_id).count("job.dispatched") == 1 for job_id in jobs)


def test_an_airflow_that_comes_back_gets_every_run_once(desk: Desk) -> None:
    desk.airflow.down()
    jobs = [desk.seal() for _ in range(10)]
    with working(desk, workers=2):
        until(lambda: desk.job(jobs[0]).waiting_reason == "airflow-unavailable")
        desk.airflow.up()
        until(lambda: all(desk.job(job_id).state == "dispatched" for job_id in jobs), seconds=25)
    assert desk.airflow.created == {f"gw.{job_id}": 1 for job_id in jobs}


def test_answers_lost_at_random_make_no_second_run(desk: Desk) -> None:
    for after in (True, False):
        desk.airflow.fail("drop", method="POST", path="dagRuns", after=after, times=6)
        desk.airflow.fail(503, method="POST", path="dagRuns", after=after, times=3)
    jobs = [desk.seal() for _ in range(15)]
    with working(desk, workers=2):
        until(lambda: all(desk.job(job_id).state == "dispatched" for job_id in jobs), seconds=40)
    assert desk.airflow.created == {f"gw.{job_id}": 1 for job_id in jobs}


def test_one_clients_blocked_and_quarantined_jobs_do_not_stand_before_anothers(
    desk: Desk,
) -> None:
    del desk.airflow.dags["acme__flights"]
    blocked = [desk.seal() for _ in range(20)]
    with working(desk):
        until(lambda: all(desk.job(job_id).state == "blocked" for job_id in blocked), seconds=20)
        with timed() as seconds:
            other = desk.seal("globex", "weather")
            until(lambda: desk.job(other).state == "dispatched")
        assert seconds() < POLL_SECONDS
        desk.airflow.dags["acme__flights"] = Dag()
        until(lambda: all(desk.job(job_id).state == "dispatched" for job_id in blocked), seconds=45)


def test_a_worker_survives_the_loss_of_every_database_connection(desk: Desk) -> None:
    with working(desk):
        first = desk.seal()
        until(lambda: desk.job(first).state == "dispatched")
        with desk.services.engine.begin() as connection:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            mine = " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            connection.execute(text(others + mine))
        time.sleep(1.5)
        with timed() as seconds:
            second = desk.seal()
            until(lambda: desk.job(second).state == "dispatched", seconds=15)
        # It hears notifications again, not only the clock.
        assert seconds() < 4


def test_sigterm_lets_what_is_in_flight_finish_and_exits_with_0(
    desk: Desk, nursery: Nursery, environment: dict[str, str], tmp_path: Path
) -> None:
    desk.airflow.fail("hang", method="POST", path="dagRuns", times=1)
    job_id = desk.seal()
    patience = {"GATEWAY_AIRFLOW_TIMEOUT_SECONDS": "2"}
    process = nursery.start(["worker"], {**environment, **patience}, tmp_path / "worker.log")
    until(lambda: desk.airflow.count("POST", "dagRuns"), seconds=60)
    with timed() as seconds:
        process.terminate()
        assert process.wait(30) == 0
    assert seconds() < 15
    # It was put off in an orderly way, not left to its claim.
    assert desk.message(job_id).last_error == "airflow-unavailable"


def test_what_was_abandoned_is_swept(desk: Desk) -> None:
    services = desk.services
    with services.sessions.begin() as session:
        wanted = BatchRequest(project="flights", reference="forgotten")
        batch = ledger.open_batch(
            session, principal("acme"), wanted, batches=services.settings.batches
        )
        hour_ago = func.clock_timestamp() - timedelta(hours=1)
        session.execute(update(Batch).values(expires_at=hour_ago))
    path = BatchPath("acme", "flights", batch.id)
    part = services.zone.open_part("upl_1", len(CONTENT))
    part.write([CONTENT])
    part.finish()
    services.zone.publish(part, path, "rows.csv")
    with services.sessions.begin() as session:
        session.add(complete_file(batch.id))
    worker.sweep(services)
    worker.sweep(services)
    with services.sessions.begin() as session:
        assert session.get_one(Batch, batch.id).state == "expired"
        assert session.get_one(Batch, batch.id).file_count == 0
        assert ledger.files_of(session, batch.id) == []
    assert list(services.zone.walk()) == []


def test_a_message_of_an_unknown_topic_is_left_alone(desk: Desk) -> None:
    with desk.services.sessions.begin() as session:
        session.add(Message(topic="other.topic", key="1", lane="acme", payload={}))
    with working(desk):
        job_id = desk.seal()
        until(lambda: desk.job(job_id).state == "dispatched")
    assert desk.message("1", "other.topic").attempts == 0


def test_a_worker_killed_after_airflow_accepted_leaves_no_trace_but_time(
    desk: Desk, nursery: Nursery, environment: dict[str, str], tmp_path: Path
) -> None:
    hang = desk.airflow.fail("hang", method="POST", path="dagRuns", after=True)
    job_id = desk.seal()
    patience = {"GATEWAY_AIRFLOW_TIMEOUT_SECONDS": "30", "GATEWAY_WORKER_CLAIM_SECONDS": "5"}
    process = nursery.start(["worker"], {**environment, **patience}, tmp_path / "worker.log")
    until(lambda: desk.airflow.created, seconds=60)
    process.kill()
    process.wait()
    assert desk.job(job_id).state == "queued"
    hang.times = 0
    with working(desk):
        until(lambda: desk.job(job_id).state == "dispatched", seconds=15)
    assert desk.airflow.created == {f"gw.{job_id}": 1}
    assert desk.airflow.count("POST", "dagRuns") == 1
