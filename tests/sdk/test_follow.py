"""Watching a job: never backwards, patient with a blocked one, not for ever."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gateway.sdk import follow, records
from gateway.sdk.client import GatewayClient
from gateway.sdk.follow import Following, Pace
from gateway.sdk.problems import FollowTimeoutError
from gateway.sdk.records import Job
from tests.fakes.gateway_api import Fault, State

QUICK = Pace(first_seconds=0.01, longest_seconds=0.02)


def _told(api: State, *answers: dict[str, Any]) -> None:
    api.jobs["job_1"] = [{"id": "job_1", "batch": "bat_1", **answer} for answer in answers]


def _step(state: str, done: int) -> dict[str, Any]:
    return {"name": "process", "state": state, "done": done, "total": 8}


def test_job_is_watched_to_its_end_and_never_seen_to_go_back(
    api: State, gateway: GatewayClient
) -> None:
    _told(
        api,
        {"state": "queued"},
        {"state": "running", "steps": [_step("running", 3)]},
        {"state": "dispatched"},
        {"state": "running", "steps": [_step("running", 2)]},
        {"state": "running", "steps": [_step("running", 7)]},
        {"state": "succeeded", "steps": [_step("succeeded", 8)], "rows": {"read": 9, "loaded": 9}},
    )
    seen: list[Job] = []
    job = follow.follow(gateway, "job_1", seen.append, timeout_seconds=10, pace=QUICK)
    assert [each.state for each in seen] == ["queued", "running", "running", "succeeded"]
    assert [each.steps[0].done for each in seen if each.steps] == [3, 7, 8]
    assert job.rows.loaded == 9


def test_blocked_job_is_waited_for(api: State, gateway: GatewayClient) -> None:
    _told(
        api,
        {"state": "dispatched"},
        {"state": "blocked", "waiting_reason": "the DAG is paused"},
        {"state": "queued"},
        {"state": "succeeded"},
    )
    seen: list[Job] = []
    follow.follow(gateway, "job_1", seen.append, timeout_seconds=10, pace=QUICK)
    assert [each.state for each in seen] == ["dispatched", "blocked", "queued", "succeeded"]
    assert seen[1].waiting_reason == "the DAG is paused"


def test_patience_ends_with_the_reason(api: State, gateway: GatewayClient) -> None:
    _told(api, {"state": "blocked", "waiting_reason": "the DAG is missing"})
    started = time.monotonic()
    with pytest.raises(FollowTimeoutError, match=r"still blocked.*the DAG is missing"):
        follow.follow(gateway, "job_1", lambda _: None, timeout_seconds=0.3, pace=QUICK)
    assert 0.3 <= time.monotonic() - started < 2.0


def test_gateway_may_be_away_for_a_moment(api: State, gateway: GatewayClient) -> None:
    _told(api, {"state": "running"}, {"state": "succeeded"})
    api.faults += [
        Fault("GET", "/v1/jobs/job_1", "lose"),
        Fault("GET", "/v1/jobs/job_1", "refuse", times=3),
    ]
    job = follow.follow(gateway, "job_1", lambda _: None, timeout_seconds=10, pace=QUICK)
    assert job.state == "succeeded"


@pytest.mark.parametrize("state", ["partially_succeeded", "failed", "canceled"])
def test_every_end_is_an_end(api: State, gateway: GatewayClient, state: str) -> None:
    _told(api, {"state": state, "error": {"code": "too-many-rejects", "detail": "2 of 3"}})
    job = follow.follow(gateway, "job_1", lambda _: None, timeout_seconds=10, pace=QUICK)
    assert (job.state, job.error) == (state, "too-many-rejects: 2 of 3")


def test_waits_grow_to_the_longest_and_are_never_shorter_than_the_gateway_wishes() -> None:
    following = Following(lambda _: None, timeout_seconds=60, pace=Pace(0.5, longest_seconds=2.0))
    waits = [following.rest_seconds(None) for _ in range(20)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.5, 2.0)
    assert following.rest_seconds(7.0) == 7.0
    assert following.rest_seconds(1.0) == 2.0
    assert 59 < following.rest_seconds(600.0) <= 60, "patience ends first"


def test_job_without_optional_members_is_understood() -> None:
    job = records.job({"id": "job_1", "batch": {"id": "bat_1"}, "state": "queued", "new": [1]})
    assert (job.batch, job.rows.read, job.steps, job.has_ended) == ("bat_1", 0, (), False)
