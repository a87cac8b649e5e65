"""The smaller errands: ending a run, sizing a pool."""

from __future__ import annotations

from sqlalchemy import select

from gateway.dispatch import cancel, pools
from gateway.dispatch.watch import Watcher
from gateway.outbox.model import Message
from tests.dispatch.dispatching import Desk


def test_canceling_a_started_job_ends_its_run_and_then_the_job(desk: Desk) -> None:
    job_id = desk.dispatch()
    desk.airflow.move(f"gw.{job_id}", "running")
    desk.cancel(job_id)
    assert cancel.carry(desk.parts, desk.claim(cancel.TOPIC)) is None
    assert desk.airflow.runs["acme__flights", f"gw.{job_id}"]["state"] == "failed"
    Watcher(desk.parts).run_once()
    assert desk.job(job_id).state == "canceled"
    assert desk.message(job_id, cancel.TOPIC).state == "done"


def test_a_run_that_succeeded_before_it_could_be_ended_stays_a_success(desk: Desk) -> None:
    job_id = desk.dispatch()
    desk.report(job_id)
    desk.airflow.move(f"gw.{job_id}", "success")
    desk.cancel(job_id)
    cancel.carry(desk.parts, desk.claim(cancel.TOPIC))
    assert not desk.airflow.count("PATCH", "dagRuns")
    Watcher(desk.parts).run_once()
    assert desk.job(job_id).state == "succeeded"


def test_a_cancellation_waits_for_airflow_to_come_back(desk: Desk) -> None:
    job_id = desk.dispatch()
    desk.cancel(job_id)
    desk.airflow.down()
    setback = cancel.carry(desk.parts, desk.claim(cancel.TOPIC))
    assert setback is not None
    assert setback.reason == "airflow-unavailable"
    desk.airflow.up()
    cancel.carry(desk.parts, desk.claim(cancel.TOPIC))
    assert desk.airflow.runs["acme__flights", f"gw.{job_id}"]["state"] == "failed"


def test_a_cancel_token_is_for_one_client_and_dag_and_starts_nothing(desk: Desk) -> None:
    job_id = desk.dispatch()
    desk.cancel(job_id)
    cancel.carry(desk.parts, desk.claim(cancel.TOPIC))
    _, _, claims = desk.airflow.requests[-1]
    assert (claims["scope"], claims["client"], claims["dags"]) == (
        "dags:cancel",
        "acme",
        ["acme__flights"],
    )


def test_onboarding_gives_each_client_a_pool_as_soon_as_airflow_is_there(desk: Desk) -> None:
    desk.airflow.down()
    pools.carry(desk.parts, desk.claim(pools.TOPIC))
    desk.airflow.up()
    for _ in range(2):
        pools.carry(desk.parts, desk.claim(pools.TOPIC))
    assert desk.airflow.pools.keys() == {"client-acme", "client-globex"}
    with desk.services.sessions.begin() as session:
        states = session.scalars(select(Message.state).where(Message.topic == pools.TOPIC))
        assert set(states) == {"done"}
