"""What Airflow says of a run becomes what the gateway says of its job."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from gateway.dispatch import airflow_api
from gateway.dispatch.watch import Watcher
from gateway.jobs.states import JobFinishedError
from tests.dispatch.dispatching import Desk


@pytest.fixture
def watcher(desk: Desk) -> Watcher:
    """A watcher that gives up and explains without waiting."""
    return Watcher(desk.parts, lost_after_seconds=0, waiting_long_seconds=0, explain_seconds=0)


def test_a_job_follows_its_run_from_start_to_end(desk: Desk, watcher: Watcher) -> None:
    job_id = desk.dispatch()
    seen = []
    for state in ("queued", "running", "success"):
        if state == "success":
            desk.report(job_id)
        desk.airflow.move(f"gw.{job_id}", state)
        watcher.run_once()
        seen.append(desk.job(job_id).state)
    assert seen == ["dispatched", "running", "succeeded"]
    assert watcher.run_once() == 0
    assert desk.actions(job_id)[1:] == ["job.dispatched", "job.started", "job.finished"]


def test_nothing_is_asked_while_no_run_is_active(desk: Desk, watcher: Watcher) -> None:
    desk.seal()
    assert watcher.run_once() == 0
    assert not desk.airflow.requests


def test_a_success_without_a_reported_publish_is_no_success(desk: Desk, watcher: Watcher) -> None:
    job_id = desk.dispatch()
    desk.airflow.move(f"gw.{job_id}", "success")
    watcher.run_once()
    assert desk.view(job_id).error.code == "no-result"


def test_rejected_rows_make_a_partial_success(desk: Desk, watcher: Watcher) -> None:
    job_id = desk.dispatch()
    desk.report(job_id, "process", rows={"read": 2, "loaded": 0, "rejected": 1})
    desk.report(job_id)
    desk.airflow.move(f"gw.{job_id}", "success")
    watcher.run_once()
    assert desk.job(job_id).state == "partially_succeeded"


def test_a_failed_run_names_the_task_that_failed(desk: Desk, watcher: Watcher) -> None:
    job_id = desk.dispatch()
    desk.airflow.fail_task(f"gw.{job_id}", "process")
    watcher.run_once()
    error = desk.view(job_id).error
    assert (error.code, error.detail) == ("run-failed", "The step process failed.")


def test_what_a_task_said_of_its_failure_is_the_error(desk: Desk, watcher: Watcher) -> None:
    job_id = desk.dispatch()
    said = {"code": "too-many-rejects", "detail": "1200 of 9000 rows were rejected"}
    desk.report(job_id, state="failed", error=said)
    desk.airflow.fail_task(f"gw.{job_id}", "publish")
    watcher.run_once()
    assert desk.view(job_id).error.model_dump() == said
    assert not desk.airflow.count("GET", "taskInstances")


def test_a_deleted_run_fails_its_job_only_when_it_stays_away(desk: Desk, watcher: Watcher) -> None:
    job_id = desk.dispatch()
    watcher.run_once()
    desk.airflow.runs.clear()
    watcher.full_check_seconds = 0
    watcher.lost_after_seconds = 60
    watcher.run_once()
    watcher.run_once()
    assert desk.job(job_id).state == "dispatched"
    watcher.lost_after_seconds = 0
    for _ in _rounds(watcher):
        if desk.job(job_id).state == "failed":
            break
    assert desk.view(job_id).error.code == "run-lost"


def test_an_airflow_that_is_restored_from_an_old_backup_changes_nothing_that_happened(
    desk: Desk, watcher: Watcher
) -> None:
    ended = desk.dispatch()
    desk.airflow.move(f"gw.{ended}", "running")
    backup = copy.deepcopy(desk.airflow.runs)
    desk.report(ended)
    desk.airflow.move(f"gw.{ended}", "success")
    newer = desk.dispatch()
    watcher.run_once()
    assert (desk.job(ended).state, desk.job(newer).state) == ("succeeded", "dispatched")
    desk.airflow.runs.clear()
    desk.airflow.runs |= backup
    waiting = desk.dispatch()
    watcher.full_check_seconds = 0
    for _ in _rounds(watcher):
        if desk.job(newer).state == "failed":
            break
    assert desk.view(newer).error.code == "run-lost"
    desk.airflow.move(f"gw.{waiting}", "running")
    # The run of the backup goes on, and ends another way than the first time.
    with pytest.raises(JobFinishedError):
        desk.report(ended, state="failed", error={"code": "x", "detail": "x"})
    desk.airflow.move(f"gw.{ended}", "failed")
    watcher.run_once()
    assert (desk.job(ended).state, desk.job(waiting).state) == ("succeeded", "running")
    again = desk.replay(newer)
    desk.carry()
    assert desk.job(again).state == "dispatched"
    assert len(desk.airflow.runs) == 3


def test_a_run_that_was_away_for_a_moment_is_not_lost(desk: Desk, watcher: Watcher) -> None:
    job_id = desk.dispatch()
    kept = dict(desk.airflow.runs)
    watcher.full_check_seconds, watcher.lost_after_seconds = 0, 0.3
    for _ in range(3):
        desk.airflow.runs.clear()
        watcher.run_once()
        desk.airflow.runs |= kept
        watcher.run_once()
        time.sleep(0.3)
    desk.report(job_id)
    desk.airflow.move(f"gw.{job_id}", "success")
    watcher.run_once()
    assert desk.job(job_id).state == "succeeded"


def test_a_run_that_may_not_be_asked_for_does_not_hide_others(desk: Desk, watcher: Watcher) -> None:
    gone, other = desk.dispatch(), desk.dispatch()
    del desk.airflow.runs["acme__flights", f"gw.{gone}"]
    desk.airflow.fail(403, path=f"dagRuns/gw.{gone}")
    desk.airflow.move(f"gw.{other}", "running")
    watcher.run_once()
    assert (desk.job(gone).state, desk.job(other).state) == ("dispatched", "running")


def test_a_deleted_run_of_a_job_being_canceled_is_its_cancellation(
    desk: Desk, watcher: Watcher
) -> None:
    job_id = desk.dispatch()
    desk.cancel(job_id)
    desk.airflow.runs.clear()
    watcher.run_once()
    assert desk.job(job_id).state == "canceled"


@pytest.mark.parametrize("minutes", [-10, 10])
def test_hosts_whose_clocks_disagree_do_not_hide_changes(
    desk: Desk, watcher: Watcher, minutes: int
) -> None:
    desk.airflow.clock_offset = timedelta(minutes=minutes)
    job_id = desk.dispatch()
    watcher.run_once()
    desk.airflow.move(f"gw.{job_id}", "running")
    watcher.run_once()
    assert desk.job(job_id).state == "running"
    assert desk.airflow.count("GET", "updated_at_gte") == 1


def test_a_change_the_short_question_misses_is_found_by_the_full_check(
    desk: Desk, watcher: Watcher
) -> None:
    job_id = desk.dispatch()
    watcher.run_once()
    # A scheduler whose clock is an hour behind the one that answers.
    run = desk.airflow.runs["acme__flights", f"gw.{job_id}"]
    run.update(state="running", updated_at=desk.airflow.now() - timedelta(hours=1))
    watcher.run_once()
    assert desk.job(job_id).state == "dispatched"
    watcher.full_check_seconds = 0
    watcher.run_once()
    assert desk.job(job_id).state == "running"


def test_job_states_never_go_back(desk: Desk, watcher: Watcher) -> None:
    job_id = desk.dispatch()
    desk.report(job_id)
    desk.airflow.move(f"gw.{job_id}", "success")
    watcher.run_once()
    other = desk.dispatch()
    for state in ("queued", "running", "failed"):
        desk.airflow.move(f"gw.{job_id}", state)
        watcher.run_once()
        assert desk.job(job_id).state == "succeeded"
    assert desk.job(other).state == "dispatched"


def test_many_runs_take_few_questions(desk: Desk, watcher: Watcher) -> None:
    jobs = [desk.dispatch() for _ in range(60)]
    asked = desk.airflow.count("GET", "dagRuns")
    watcher.explain_seconds = 60
    watcher.run_once()
    assert desk.airflow.count("GET", "dagRuns") - asked == 2
    for job_id in jobs:
        desk.airflow.move(f"gw.{job_id}", "running")
    asked = desk.airflow.count("GET", "dagRuns")
    watcher.run_once()
    assert desk.airflow.count("GET", "dagRuns") - asked == 1
    assert {desk.job(job_id).state for job_id in jobs} == {"running"}


def test_a_paused_dag_is_named_as_the_reason_until_it_is_unpaused(
    desk: Desk, watcher: Watcher
) -> None:
    desk.airflow.dags["acme__flights"].is_paused = True
    job_id = desk.dispatch()
    watcher.run_once()
    assert desk.job(job_id).waiting_reason == "dag-paused"
    desk.airflow.dags["acme__flights"].is_paused = False
    desk.airflow.move(f"gw.{job_id}", "running")
    watcher.run_once()
    assert (desk.job(job_id).state, desk.job(job_id).waiting_reason) == ("running", None)


def test_an_airflow_away_while_watching_loses_nothing(desk: Desk, watcher: Watcher) -> None:
    job_id = desk.dispatch()
    watcher.run_once()
    desk.airflow.move(f"gw.{job_id}", "running")
    desk.airflow.down()
    with pytest.raises(airflow_api.UnavailableError):
        watcher.run_once()
    assert desk.job(job_id).state == "dispatched"
    desk.airflow.up()
    watcher.run_once()
    assert desk.job(job_id).state == "running"


def test_a_run_whose_failed_task_cannot_be_asked_for_is_tried_again(
    desk: Desk, watcher: Watcher
) -> None:
    job_id = desk.dispatch()
    desk.airflow.fail_task(f"gw.{job_id}", "process")
    desk.airflow.fail(503, path="taskInstances", times=1)
    watcher.run_once()
    assert desk.job(job_id).state == "dispatched"
    watcher.run_once()
    assert desk.view(job_id).error.detail == "The step process failed."


def _rounds(watcher: Watcher) -> Iterator[int]:
    for _ in range(100):
        yield watcher.run_once()
