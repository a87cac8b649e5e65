"""Watching jobs from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from gateway.sdk.follow import Pace
from gateway.sdk.login import Account
from gateway.sdk.problems import FollowTimeoutError, GatewayProblem
from gateway.sdk.records import Job
from gateway.sdk.watching import Address, JobWatch
from tests.fakes.gateway_api import PASSWORD, USER, Fault, State
from tests.sdk.conftest import QUICK

T = TypeVar("T")
PACE = Pace(first_seconds=0.01, longest_seconds=0.02)


def watched(api: State, work: Callable[[JobWatch], Awaitable[T]]) -> T:
    async def run() -> T:
        async with JobWatch(Address(api.url), Account(USER, PASSWORD), QUICK) as watch:
            return await work(watch)

    return asyncio.run(run())


def told(api: State, job: str, *answers: dict[str, Any]) -> None:
    api.jobs[job] = [{"id": job, "batch": "bat_1", **answer} for answer in answers]


def test_many_jobs_are_watched_at_a_time_none_of_them_seen_to_go_back(api: State) -> None:
    names = [f"job_{number}" for number in range(20)]
    for name in names:
        told(api, name, {"state": "running"}, {"state": "queued"}, {"state": "succeeded"})
    seen: list[Job] = []

    async def follow_all(watch: JobWatch) -> list[Job]:
        waits = [watch.follow(name, seen.append, timeout_seconds=10, pace=PACE) for name in names]
        return await asyncio.gather(*waits)

    ended = watched(api, follow_all)
    assert [job.id for job in ended] == names
    for name in names:
        assert [job.state for job in seen if job.id == name] == ["running", "succeeded"]


def test_a_lapsed_token_and_a_gateway_that_is_away_are_borne(api: State) -> None:
    # The first answer is lost.
    told(api, "job_1", {"state": "queued"}, {"state": "running"}, {"state": "succeeded"})
    api.faults += [
        Fault("GET", "/v1/jobs/job_1", "refuse", times=2),
        Fault("GET", "/v1/jobs/job_1", "lose"),
    ]

    def forget(_: Job) -> None:
        api.tokens.clear()

    job = watched(api, lambda watch: watch.follow("job_1", forget, timeout_seconds=10, pace=PACE))
    assert job.state == "succeeded"
    assert len(api.forms) == 2


def test_a_wait_ends_when_its_time_is_up(api: State) -> None:
    told(api, "job_1", {"state": "running"})
    with pytest.raises(FollowTimeoutError, match="still running"):
        watched(api, lambda watch: watch.follow("job_1", print, timeout_seconds=0.1, pace=PACE))


def test_what_is_refused_is_not_asked_again(api: State) -> None:
    with pytest.raises(GatewayProblem) as refused:
        watched(api, lambda watch: watch.follow("job_none", print, timeout_seconds=10))
    assert refused.value.status == 404
    assert sum("job_none" in each for each in api.requests) == 1
