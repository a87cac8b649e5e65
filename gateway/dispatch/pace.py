"""How many messages of one lane are carried side by side: as many as Airflow works on at once.

More would only wait for each other over there, and before the next client's one. What waits is
reckoned as TCP Vegas does (Brakmo and Peterson, SIGCOMM 1994): an errand that took twice the
shortest time of late spent half of it in a queue, and with it half of those that were under way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# Errands of one lane that wait for each other: below, one more is tried; above, one fewer.
FEW, MANY = 0.75, 1.5
# The shortest time is that of this long, and of as long before: Airflow may have become slower.
MEMORY_SECONDS = 30.0


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
        self._shortest = self._shortest_before = float("inf")
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
            base = self._base(seconds)
            waiting = under_way * (1 - base / seconds) if seconds else 0.0
            if waiting > MANY:
                self._width = max(1.0, self._width - 1 / self._width)
            elif waiting < FEW and under_way >= self.width:
                self._width = min(float(self._most), self._width + 1 / self._width)

    def _base(self, seconds: float) -> float:
        if self._clock() - self._since > MEMORY_SECONDS:
            self._shortest_before, self._shortest = self._shortest, float("inf")
            self._since = self._clock()
        self._shortest = min(self._shortest, seconds)
        return min(self._shortest, self._shortest_before)
