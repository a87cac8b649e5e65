"""How many messages of one lane are carried side by side: as many as Airflow works on at once.

More would only wait for each other over there, and before the next client's one. What waits is
reckoned as TCP Vegas does (Brakmo and Peterson, SIGCOMM 1994): an errand that took twice the
shortest time of late spent half of it in a queue, and with it half of those that were under way.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

# Errands of one lane that wait for each other: below, one more is tried; above, one fewer.
FEW, MANY = 0.75, 1.5
# After so long the shortest time is found anew, by one errand at a time: Airflow may have become
# slower, and in a long storm it shows nobody how quick it is.
MEMORY_SECONDS = 30.0
TICK = 1e-6


class Pace:
    """The width of every lane, from the time that errands take. Safe between threads.

    Parameters
    ----------
    most
        The width that is never exceeded.
    clock
        Seconds, monotonic.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._width = 1.0
        self._shortest = float("inf")
        self._since = clock()
        self._lock = threading.Lock()

    @property
    def width(self) -> int:
        """How many messages of a lane to carry at a time."""
        return max(1, int(self._width))

    def took(self, seconds: float, under_way: int) -> None:
        """Learn from an errand that succeeded.

        Parameters
        ----------
        under_way
            How many of its lane there were when it began, itself included.
        """
        with self._lock:
            if self._clock() - self._since > MEMORY_SECONDS:
                self._shortest, self._width, self._since = float("inf"), 1.0, self._clock()
            if under_way == 1 or math.isfinite(self._shortest):
                self._shortest = min(self._shortest, seconds)
                self._learn(under_way * (1 - self._shortest / max(seconds, TICK)), under_way)

    def _learn(self, waiting: float, under_way: int) -> None:
        if waiting > MANY:
            self._width = max(1.0, self._width - 1 / self._width)
        elif waiting < FEW and under_way >= self.width:
            self._width = min(float(self._most), self._width + 1 / self._width)
