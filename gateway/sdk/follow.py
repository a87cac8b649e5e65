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
    """How often to look: at first quickly, then slower; never sooner than the gateway wishes."""

    first_seconds: float = 0.5
    longest_seconds: float = 1.0
    growth: float = 1.25


class Following:
    """One job on its way to its end: what is new of it, and when to look again.

    Parameters
    ----------
    on_change
        Told the job each time something about it is new; what it is told never goes back.
    """

    def __init__(self, on_change: OnChange, *, timeout_seconds: float, pace: Pace) -> None:
        self._on_change = on_change
        self._deadline = time.monotonic() + timeout_seconds
        self._pace = pace
        self._wait_seconds = pace.first_seconds
        self._seen: Job | None = None

    @property
    def left_seconds(self) -> float:
        """How much patience is left."""
        return max(0.0, self._deadline - time.monotonic())

    def take(self, answered: Job) -> Job | None:
        """Take an answer in; return the job if it has ended.

        Raises
        ------
        FollowTimeoutError
            It has not, and there is no patience left.
        """
        latest = merged(self._seen, answered)
        if latest != self._seen:
            self._on_change(latest)
        self._seen = latest
        if latest.has_ended:
            return latest
        if not self.left_seconds:
            raise _given_up(latest)
        return None

    def rest_seconds(self, wanted_seconds: float | None) -> float:
        """Return how long to wait before the next look; ``wanted_seconds`` is the gateway's wish."""
        rest_seconds = max(wanted_seconds or 0.0, self._wait_seconds)
        slower = self._wait_seconds * self._pace.growth
        self._wait_seconds = min(self._pace.longest_seconds, slower)
        return min(rest_seconds, self.left_seconds)


def follow(
    gateway: GatewayClient,
    job_id: str,
    on_change: OnChange,
    *,
    timeout_seconds: float,
    pace: Pace | None = None,
) -> Job:
    """Return a job once it has ended; a blocked one may still be unblocked, so it is waited for.

    Raises
    ------
    FollowTimeoutError
        The job had not ended in time. It goes on without us.
    GatewayProblem
        The gateway could not be asked for longer than the retry policy allows.
    """
    following = Following(on_change, timeout_seconds=timeout_seconds, pace=pace or Pace())
    while True:
        answered, wanted_seconds = gateway.poll_job(job_id)
        ended = following.take(answered)
        if ended is not None:
            return ended
        gateway.transport.pause(following.rest_seconds(wanted_seconds))


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


def _given_up(job: Job) -> FollowTimeoutError:
    reason = f" ({job.waiting_reason})" if job.waiting_reason else ""
    return FollowTimeoutError(
        f"{job.id} is still {job.state}{reason}; it goes on without us: "
        f"gateway status {job.id} --follow"
    )
