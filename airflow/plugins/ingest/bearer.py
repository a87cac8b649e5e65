"""A service account's access token, kept until shortly before it ends."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

EARLY_SECONDS = 30.0


class Bearer:
    """Safe to share between threads: of many who need a new token, one fetches it.

    Parameters
    ----------
    fetch
        Returns a token and for how many seconds it is good.
    """

    def __init__(self, fetch: Callable[[], tuple[str, float]]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._token, self._until = "", 0.0

    def headers(self) -> dict[str, str]:
        """Return the header of an authorized request; raises what ``fetch`` raises."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._token, life = self._fetch()
                self._until = time.monotonic() + max(life - EARLY_SECONDS, 0.0)
            return {"Authorization": f"Bearer {self._token}"}

    def forget(self) -> None:
        """Fetch another next time: this one was refused."""
        with self._lock:
            self._until = 0.0
