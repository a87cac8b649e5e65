"""A bounded number of threads that run errands side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from gateway import logs

log = logs.get("dispatch")


class Crew:
    """Runs each errand in a thread of its own, never more than ``size`` at once.

    The threads are daemons: whatever an errand has not finished when the process ends, another
    worker finishes after the claim has lapsed.
    """

    def __init__(self, size: int, on_half_free: Callable[[], None]) -> None:
        self._size = size
        self._on_half_free = on_half_free
        self._busy = 0
        self._changed = threading.Condition()

    @property
    def free(self) -> int:
        """How many more errands could start now."""
        return self._size - self._busy

    def start(self, errand: Callable[[], object]) -> None:
        """Run an errand; ask for ``free`` before."""
        with self._changed:
            self._busy += 1
        threading.Thread(target=self._run, args=(errand,), name="errand", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait for all to finish, at most so long. False: some have not."""
        deadline = time.monotonic() + seconds
        with self._changed:
            return self._changed.wait_for(
                lambda: self._busy == 0, max(0.0, deadline - time.monotonic())
            )

    def _run(self, errand: Callable[[], object]) -> None:
        try:
            errand()
        except Exception as error:  # noqa: BLE001 - its message is claimed again
            log.warning("errand_crashed", kind=type(error).__name__)
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._changed:
            self._busy -= 1
            # Half at a time: a claim for several messages costs what one for a single costs.
            is_half_free = self._busy * 2 <= self._size
            self._changed.notify_all()
        if is_half_free:
            self._on_half_free()
