"""Watching a job to its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from gateway.sdk import records
from gateway.sdk.client import GatewayClient
from gateway.sdk.problems import FollowTimeoutError
from gateway.sdk.records import Job, Step

OnChange = Callable[[Job], None]

_RANKS = {"queued": 0, records.BLOCKED: 0, "dispatched": 1, "running": 2}
_ENDED_RANK = 3


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to look: at first quickly, then slower; the gateway's wish goes first."""

    first_seconds: float = 0.5
    longest_seconds: float = 2.0
    growth: float = 1.25

    def slower(self, seconds: float) -> float:
        """Return the wait after this one."""
        return min(self.longest_seconds, seconds * self.growth)


def follow(
    gateway: GatewayClient,
    job_id: str,
    on_change: OnChange,
    *,
    timeout_seconds: float,
    pace: Pace | None = None,
) -> Job:
    """Return a job once it has ended; a blocked one may still be unblocked, so it is waited for.

    Parameters
    ----------
    on_change
        Told the job each time something about it is new; what it is told never goes back.

    Raises
    ------
    FollowTimeoutError
        The job had not ended in time. It goes on without us.
    GatewayProblem
        The gateway could not be asked for longer than the retry policy allows.
    """
    pace = pace or Pace()
    deadline = time.monotonic() + timeout_seconds
    wait_seconds = pace.first_seconds
    seen: Job | None = None
    while True:
        answered, wanted_seconds = gateway.poll_job(job_id)
        latest = merged(seen, answered)
        if latest != seen:
            on_change(latest)
        seen = latest
        if seen.has_ended:
            return seen
        check_patience(seen, deadline)
        left_seconds = max(0.0, deadline - time.monotonic())
        gateway.transport.pause(min(wanted_seconds or wait_seconds, left_seconds))
        wait_seconds = pace.slower(wait_seconds)


def merged(seen: Job | None, answered: Job) -> Job:
    """Return the newer knowledge of two: an answer from a lagging replica changes nothing."""
    if seen is None or records.BLOCKED in {seen.state, answered.state}:
        return answered
    if _rank(answered) < _rank(seen):
        return seen
    before = {step.name: step for step in seen.steps}
    steps = tuple(_further(before.get(step.name), step) for step in answered.steps)
    return replace(answered, steps=steps or seen.steps)


def _further(before: Step | None, step: Step) -> Step:
    return step if before is None or step.done >= before.done else replace(step, done=before.done)


def _rank(job: Job) -> int:
    return _ENDED_RANK if job.has_ended else _RANKS.get(job.state, 0)


def check_patience(job: Job, deadline: float) -> None:
    """Give a job up that has not ended by a moment of the monotonic clock.

    Raises
    ------
    FollowTimeoutError
    """
    if time.monotonic() < deadline:
        return
    reason = f" ({job.waiting_reason})" if job.waiting_reason else ""
    raise FollowTimeoutError(
        f"{job.id} is still {job.state}{reason}; it goes on without us: "
        f"gateway status {job.id} --follow"
    )
