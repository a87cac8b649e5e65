"""What Airflow tells of a run by itself makes the gateway look at once, and is never believed."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import text

from gateway.dispatch.bell import Bell
from gateway.dispatch.hints import DELAYS_SECONDS, Hints
from gateway.dispatch.watch import Watcher
from gateway.errors import InvalidRequestError, NotFoundError
from gateway.jobs import news
from gateway.jobs.views import RunNews
from tests.dispatch.dispatching import Desk


@pytest.fixture
def watcher(desk: Desk) -> Watcher:
    return Watcher(desk.parts)


def tell(desk: Desk, job_id: str, state: str, **other: str) -> None:
    said = {"dag_id": "acme__flights", "run_id": f"gw.{job_id}", "state": state}
    with desk.services.sessions.begin() as session:
        news.pass_on(session, job_id, RunNews.model_validate(said | other))


def test_a_hinted_run_is_looked_at_and_its_job_moves(desk: Desk, watcher: Watcher) -> None:
    job_id = desk.dispatch()
    desk.airflow.move(f"gw.{job_id}", "running")
    assert watcher.look_at({job_id: "running"}) == set()
    assert desk.job(job_id).state == "running"
    desk.report(job_id)
    desk.airflow.move(f"gw.{job_id}", "success")
    assert watcher.look_at({job_id: "success"}) == set()
    assert desk.job(job_id).state == "succeeded"


def test_a_run_that_is_not_there_yet_is_to_be_looked_at_again(desk: Desk, watcher: Watcher) -> None:
    job_id = desk.dispatch()
    assert watcher.look_at({job_id: "running"}) == {job_id}
    desk.airflow.move(f"gw.{job_id}", "running")
    assert watcher.look_at({job_id: "success"}) == {job_id}
    assert desk.job(job_id).state == "running"


def test_a_hint_that_is_a_lie_changes_nothing(desk: Desk, watcher: Watcher) -> None:
    job_id = desk.dispatch()
    desk.airflow.move(f"gw.{job_id}", "running")
    watcher.look_at({job_id: "failed"})
    assert desk.job(job_id).state == "running"


def test_a_run_that_is_over_is_over_whatever_was_said(desk: Desk, watcher: Watcher) -> None:
    job_id = desk.dispatch()
    desk.airflow.move(f"gw.{job_id}", "failed")
    assert watcher.look_at({job_id: "running"}) == set()
    assert desk.job(job_id).state == "failed"


def test_airflow_is_not_asked_about_jobs_that_have_ended(desk: Desk, watcher: Watcher) -> None:
    job_id = desk.dispatch()
    desk.airflow.move(f"gw.{job_id}", "failed")
    watcher.look_at({job_id: "failed"})
    asked = len(desk.airflow.requests)
    assert watcher.look_at({job_id: "failed", "job_of_nobody": "failed"}) == set()
    assert len(desk.airflow.requests) == asked


def test_a_run_heard_of_before_its_trigger_is_settled_makes_its_job_run(
    desk: Desk, watcher: Watcher
) -> None:
    job_id = desk.dispatch()
    with desk.services.sessions.begin() as session:
        session.execute(text("UPDATE job SET state = 'queued'"))
    desk.airflow.move(f"gw.{job_id}", "running")
    watcher.look_at({job_id: "running"})
    assert desk.job(job_id).state == "running"


def test_news_of_a_job_wake_who_listens_and_say_which(desk: Desk) -> None:
    job_id = desk.dispatch()
    bell = Bell(desk.services.engine, news.CHANNEL)
    bell.wait(0)
    try:
        tell(desk, job_id, "running")
        began = time.monotonic()
        bell.wait(5)
        assert time.monotonic() - began < 2
        assert bell.take() == [f"{job_id} running"]
        assert bell.take() == []
    finally:
        bell.close()


def test_news_of_an_ended_job_go_nowhere(desk: Desk, watcher: Watcher) -> None:
    job_id = desk.dispatch()
    desk.airflow.move(f"gw.{job_id}", "failed")
    watcher.look_at({job_id: "failed"})
    bell = Bell(desk.services.engine, news.CHANNEL)
    bell.wait(0)
    try:
        tell(desk, job_id, "failed")
        bell.wait(0.2)
        assert bell.take() == []
    finally:
        bell.close()


@pytest.mark.parametrize("wrong", [{"dag_id": "globex__weather"}, {"run_id": "gw.job_other"}])
def test_news_of_another_run_than_the_jobs_are_refused(desk: Desk, wrong: dict[str, str]) -> None:
    job_id = desk.dispatch()
    with pytest.raises(InvalidRequestError):
        tell(desk, job_id, "running", **wrong)


@pytest.mark.parametrize("job_id", ["job_" + "0" * 26, "job_", "' OR 1=1", "job_\x00"])
def test_news_of_no_job_are_refused(desk: Desk, job_id: str) -> None:
    with pytest.raises(NotFoundError):
        tell(desk, job_id, "running")


def test_a_hint_is_followed_up_a_few_times_later_each_time_and_then_dropped() -> None:
    hints = Hints()
    hints.hear(["job_1 success", "job_2 success"])
    hints.looked(hints.due(), late={"job_1"})
    waited = []
    while True:
        left = hints.seconds_left(9)
        if left == 9:
            break
        waited.append(left)
        time.sleep(left)
        assert hints.due() == {"job_1": "success"}
        hints.looked(["job_1"], late={"job_1"})
    assert len(waited) == len(DELAYS_SECONDS) - 1
    assert waited == sorted(waited)


def test_a_newer_hint_takes_the_place_of_an_older_one() -> None:
    hints = Hints()
    hints.hear(["job_1 running"])
    hints.hear(["job_1 success"])
    assert hints.due() == {"job_1": "success"}
