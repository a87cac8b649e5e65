"""Requests per second: counted for a client over all the gateway's processes together.

A second begins with the first request after the one before is over, by the database's clock. Its
count is one row (``RequestWindow``); a process takes shares of what is left of it into a pocket and
lets requests through from there, so that few of them cost a statement. A limit of k lets at most k
requests through in such a second, and exactly k when more than that come at once.

Notes
-----
A share that is not used is lost to the other processes for the rest of its second. So a process
takes no more than as many as wait for it right now, or a twentieth of what it used in the second
before (or of what is left, if that is less). A burst out of nowhere thus loses nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session, sessionmaker

from gateway import database
from gateway.clients.limits import Limits
from gateway.errors import GatewayError, UnavailableError

WINDOW_SECONDS = 1
SHARES = 20
LATE_SECONDS = 0.02


class RateLimitedError(GatewayError):
    """The client has had as many requests in this second as it may."""

    slug = "rate-limited"
    status = 429
    title = "Too many requests in a second"
    retryable = True

    def __init__(self) -> None:
        super().__init__(
            "Your account has a limit of requests per second; see /v1/projects.",
            headers={"Retry-After": str(WINDOW_SECONDS)},
        )


class RequestRate:
    """Counts requests of clients; one for a process, used by all its threads."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._pockets: dict[str, _Pocket] = {}

    def take(self, client: str) -> None:
        """Count one request; asks the database when the pocket is empty, so it may block.

        Raises
        ------
        RateLimitedError
        """
        with self.waiting(client):
            while not self.take_from_pocket(client):
                self.fill(client)

    def take_from_pocket(self, client: str) -> bool:
        """Count one request if that can be done at once; never blocks.

        Returns
        -------
        bool
            False when nothing was counted: there may be more after ``fill``.

        Raises
        ------
        RateLimitedError
        """
        return self._pocket(client).take()

    @contextmanager
    def waiting(self, client: str) -> Iterator[None]:
        """Note that a request waits for its share: who fills the pocket asks for all that do."""
        pocket = self._pocket(client)
        pocket.wait(1)
        try:
            yield
        finally:
            pocket.wait(-1)

    def fill(self, client: str) -> None:
        """Take more out of the second, if nobody else has done so meanwhile; blocks.

        Raises
        ------
        RateLimitedError, UnavailableError
        """
        self._pocket(client).fill(lambda wanted: self._lease(client, wanted))

    def _pocket(self, client: str) -> _Pocket:
        return self._pockets.get(client) or self._pockets.setdefault(client, _Pocket())

    def _lease(self, client: str, wanted: int) -> _Lease:
        values = {"client": client, "wanted": wanted, "default": Limits().requests_per_second}
        with self._sessions() as session:
            row = database.alone(session).exec_driver_sql(_LEASE, values).one()
        return _Lease(row.began_at, row.granted, row.remaining, row.allowed, float(row.seconds))


@dataclass(frozen=True, slots=True)
class _Lease:
    """A share of a second that has ``seconds`` to go and ``remaining`` requests for others."""

    began_at: datetime
    granted: int
    remaining: int
    allowed: int
    seconds: float


class _Pocket:
    """What this process may still let through in the present second, for one client."""

    def __init__(self) -> None:
        # Held for moments only: also the event loop's thread takes from the pocket.
        self._guard = threading.Lock()
        # Held while the database is asked: one thread asks for all that wait.
        self._refilling = threading.Lock()
        self._waiting = 0
        self._failures = 0
        self._began_at: datetime | None = None
        self._ends_at = 0.0
        self._shares = 0
        self._remaining = self._allowed = 0
        self._used = self._used_before = 0

    def take(self) -> bool:
        """Let one through; False when it takes the database to say whether there are more."""
        with self._guard:
            if time.monotonic() >= self._ends_at:
                return False
            if self._shares:
                self._shares -= 1
                self._used += 1
                return True
            if not self._remaining:
                raise RateLimitedError
            return False

    def wait(self, change: int) -> None:
        """Count those who wait for a share."""
        with self._guard:
            self._waiting += change

    def fill(self, lease: Callable[[int], _Lease]) -> None:
        """Take more out of the second if nobody else has done so meanwhile."""
        failures = self._failures
        with self._refilling:
            if self._failures != failures:
                # It has been asked in vain for this one too: no queue of time limits.
                raise UnavailableError("The database does not answer.")
            if not self._has_more():
                self._ask(lease)

    def _has_more(self) -> bool:
        with self._guard:
            return self._shares > 0 and time.monotonic() < self._ends_at

    def _ask(self, lease: Callable[[int], _Lease]) -> None:
        asked_at = time.monotonic()
        with self._guard:
            wanted = max(self._waiting, self._share(asked_at))
        try:
            got = lease(wanted)
        except BaseException:
            self._failures += 1
            raise
        with self._guard:
            self._keep(asked_at, got)
        if not got.granted:
            raise RateLimitedError

    def _share(self, asked_at: float) -> int:
        if asked_at < self._ends_at:
            return min(self._used_before, self._remaining) // SHARES
        return min(self._used_until(asked_at), self._allowed) // SHARES

    def _used_until(self, asked_at: float) -> int:
        """Return what was used in the second just over, if it is just over."""
        return self._used if asked_at < self._ends_at + WINDOW_SECONDS else 0

    def _keep(self, asked_at: float, got: _Lease) -> None:
        if got.began_at != self._began_at:
            self._used_before, self._used = self._used_until(asked_at), 0
        self._began_at = got.began_at
        # From before the question: over here not later than over there. But for what came late:
        # who waited for a slow database would ask again and again.
        self._ends_at = max(asked_at + got.seconds, time.monotonic() + LATE_SECONDS)
        self._remaining, self._allowed = got.remaining, got.allowed
        self._shares = got.granted


# The time is read once and travels as ``excluded.began_at``. A beginning far in the future was
# written before the clock was set back.
_OVER = """
    held.began_at <= excluded.began_at - interval '1 second'
    OR held.began_at > excluded.began_at + interval '10 seconds'
"""
_MORE = "least(%(wanted)s, greatest(0, excluded.allowed - held.taken))"
_LEASE = database.prepared(
    f"""
    INSERT INTO request_window AS held (client, began_at, allowed, taken, granted)
    SELECT name, clock_timestamp(), most, least(%(wanted)s, most), least(%(wanted)s, most)
    FROM (
        SELECT name, coalesce(CAST(limits ->> 'requests_per_second' AS int), %(default)s) AS most
        FROM client WHERE name = %(client)s
    ) AS limited
    ON CONFLICT (client) DO UPDATE SET
        began_at = CASE WHEN {_OVER} THEN excluded.began_at ELSE held.began_at END,
        allowed = excluded.allowed,
        taken = CASE WHEN {_OVER} THEN excluded.taken ELSE held.taken + {_MORE} END,
        granted = CASE WHEN {_OVER} THEN excluded.granted ELSE {_MORE} END
    RETURNING began_at, granted, allowed, greatest(0, allowed - taken) AS remaining,
        least(1, 1 + extract(epoch FROM began_at - clock_timestamp())) AS seconds
    """,  # noqa: S608 - put together from the constants above
    client="text",
    wanted="integer",
    default="integer",
)
