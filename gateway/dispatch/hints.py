"""What Airflow said of runs, kept until its own answers agree, or for a moment."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

# Airflow tells of a change a moment before it can be read. What is later than the last of these is
# found by the next poll.
DELAYS_SECONDS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)


@dataclass(slots=True)
class _Hint:
    state: str
    due_at: float
    looks: int = 0


class Hints:
    """Which jobs' runs to look at, and when. Of one thread."""

    def __init__(self) -> None:
        self._hints: dict[str, _Hint] = {}

    def hear(self, said: Iterable[str]) -> None:
        """Take notifications of ``jobs.news``: a job's id and its run's state."""
        for each in said:
            job_id, _, state = each.partition(" ")
            self._hints[job_id] = _Hint(state, time.monotonic())

    def due(self) -> dict[str, str]:
        """Return the jobs to look at now, with what was said of their runs."""
        now = time.monotonic()
        return {job: hint.state for job, hint in self._hints.items() if hint.due_at <= now}

    def looked(self, jobs: Iterable[str], late: Collection[str]) -> None:
        """Forget those that were seen as they were said to be; look again at the others."""
        for job in jobs:
            hint = self._hints[job]
            hint.looks += 1
            if job not in late or hint.looks == len(DELAYS_SECONDS):
                del self._hints[job]
            else:
                hint.due_at = time.monotonic() + DELAYS_SECONDS[hint.looks]

    def seconds_left(self, most: float) -> float:
        """Return in how many seconds a look is due, at most ``most``."""
        now = time.monotonic()
        return max(0.0, min([most, *(hint.due_at - now for hint in self._hints.values())]))
