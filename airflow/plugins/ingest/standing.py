"""What the gateway says a session or a token is worth now, asked no more often than it has to be.

People's sessions may be asked about every few seconds: an answer is believed for as long as the
gateway's own knowledge of the directory is fresh, and never for longer than `PEOPLE_SECONDS`. The
gateway's own tokens that change something are asked about at every use: revoking one stops it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingest.gateway_api import GatewayAwayError, Worth

if TYPE_CHECKING:
    from collections.abc import Callable

PEOPLE_SECONDS = 5.0
WATCHER_SECONDS = 5.0
# While the gateway is away, nobody waits for it to time out again and again.
AWAY_SECONDS = 1.0
KNOWN = 10_000
LANES = 64


@dataclass(frozen=True)
class Confirmed:
    """An answer, and when it was asked for, in Unix seconds; no worth: it has ended."""

    worth: Worth | None
    at: float


class Standing:
    """Remembers answers.

    Parameters
    ----------
    ask
        Puts a token or session id, and the kind it is, to the gateway.
    clock
        Seconds, monotonic.
    """

    def __init__(
        self,
        ask: Callable[[str, str | None], Worth | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Confirmed]] = OrderedDict()
        self._lock = threading.Lock()
        # A page's many requests wait for one question.
        self._lanes = [threading.Lock() for _ in range(LANES)]
        self._away_until = float("-inf")

    def remembered(self, identity: str) -> Confirmed | None:
        """Return an answer that may still be believed; never asks."""
        with self._lock:
            good_until, confirmed = self._known.get(identity, (float("-inf"), None))
        return confirmed if good_until > self._clock() else None

    def confirmed(
        self, identity: str, token: str, kind: str | None, *, at_most_seconds: float
    ) -> Confirmed:
        """Return what something is worth.

        Parameters
        ----------
        identity
            By which the answer is remembered: never a secret.
        at_most_seconds
            How long it may be believed; nothing is remembered for 0.

        Raises
        ------
        GatewayAwayError
            It is not known, and cannot be asked for.
        """
        if at_most_seconds <= 0:
            return self._asked(token, kind)
        with self._lanes[hash(identity) % LANES]:
            found = self.remembered(identity)
            if found is None:
                found = self._asked(token, kind)
                self._remember(identity, found, at_most_seconds)
        return found

    def forget(self, identity: str) -> None:
        """Ask again next time."""
        with self._lock:
            self._known.pop(identity, None)

    def _asked(self, token: str, kind: str | None) -> Confirmed:
        if self._clock() < self._away_until:
            raise GatewayAwayError
        at = time.time()
        try:
            return Confirmed(self._ask(token, kind), at)
        except GatewayAwayError:
            self._away_until = self._clock() + AWAY_SECONDS
            raise

    def _remember(self, identity: str, found: Confirmed, at_most_seconds: float) -> None:
        fresh = at_most_seconds if found.worth is None else found.worth.fresh_seconds
        with self._lock:
            good_until = self._clock() + min(fresh, at_most_seconds)
            self._known[identity] = (good_until, found)
            self._known.move_to_end(identity)
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)
