"""Who is in which groups, believed for a short while: at most a minute."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from gateway.identity.accounts import Account, DirectoryUnavailableError
from gateway.identity.directory import Directory

ACCOUNTS = 10_000
LANES = 64
WAIT_SECONDS = 5.0


class Membership:
    """Answers from memory while an answer is fresh, else from the directory.

    A stale answer is never used: while the directory is away, nobody's rights are known.
    """

    def __init__(self, directory: Directory, fresh_seconds: float) -> None:
        self._directory = directory
        self._fresh_seconds = fresh_seconds
        self._known: OrderedDict[str, tuple[float, Account | None]] = OrderedDict()
        self._lock = threading.Lock()
        # Many requests of one account wait for one question to the directory.
        self._lanes = [threading.Lock() for _ in range(LANES)]

    def account(self, name: str) -> Account | None:
        """Return an account with its groups; None when it is gone or locked.

        Raises
        ------
        DirectoryUnavailableError
            It has to be asked for and cannot be.
        """
        fresh, account = self._remembered(name)
        if fresh:
            return account
        lane = self._lanes[hash(name) % LANES]
        if not lane.acquire(timeout=WAIT_SECONDS):
            raise DirectoryUnavailableError
        try:
            fresh, account = self._remembered(name)
            return account if fresh else self._asked(name)
        finally:
            lane.release()

    def recall(self, name: str) -> Account | None:
        """Return an account whose groups are known at this moment; never asks the directory."""
        fresh, account = self._remembered(name)
        return account if fresh else None

    def seconds_left(self, name: str) -> float:
        """Return how long what is known of an account may still be believed."""
        with self._lock:
            good_until, _ = self._known.get(name, (0.0, None))
        return max(0.0, good_until - time.monotonic())

    def learn(self, name: str, account: Account | None, asked_at: float) -> None:
        """Remember what the directory was asked at ``asked_at`` on the monotonic clock."""
        if self._fresh_seconds <= 0:
            return
        with self._lock:
            self._known[name] = (asked_at + self._fresh_seconds, account)
            self._known.move_to_end(name)
            if len(self._known) > ACCOUNTS:
                self._known.popitem(last=False)

    def _remembered(self, name: str) -> tuple[bool, Account | None]:
        with self._lock:
            good_until, account = self._known.get(name, (0.0, None))
        return good_until > time.monotonic(), account

    def _asked(self, name: str) -> Account | None:
        asked_at = time.monotonic()
        account = self._directory.account(name)
        self.learn(name, account, asked_at)
        return account
