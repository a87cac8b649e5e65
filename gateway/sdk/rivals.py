"""Somebody else who sends the same file at the same time: left to it for as long as it goes on.

To begin an upload ends another of the same name. Two senders of one delivery would end each
other's for ever; so whoever loses one looks first, and waits while the other comes further.
"""

from __future__ import annotations

import random
import time

import httpx

from gateway.sdk.problems import GatewayProblem
from gateway.sdk.records import BatchFile
from gateway.sdk.transport import Transport

# Of the time that a failing exchange is repeated: who stands still for so long is gone.
STILL_SHARE = 1 / 20
# Of that again: how long at most until the next look.
LOOK_SHARE = 1 / 10


class Rival:
    """What is seen of another's upload."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._still_seconds = transport.policy.deadline_seconds * STILL_SHARE
        self._furthest = -1
        self._moved_at = 0.0

    def is_waited_for(self, held: BatchFile | None) -> bool:
        """Wait a moment where somebody sends the file, which was just looked at; say whether.

        Raises
        ------
        AbortedError
        """
        if held is None or held.state != "pending":
            return False
        reached = held.received_bytes + held.verified_bytes
        if reached > self._furthest:
            self._furthest, self._moved_at = reached, time.monotonic()
        if time.monotonic() - self._moved_at >= self._still_seconds:
            return False
        self._transport.pause(random.uniform(0, self._still_seconds * LOOK_SHARE))  # noqa: S311
        return True


def is_elsewhere(problem: GatewayProblem) -> bool:
    """Say whether an upload stands at another offset than was thought, or somebody is at it."""
    is_conflict = problem.status == httpx.codes.CONFLICT
    return is_conflict and problem.slug in {"upload-conflict", "http-409"}
