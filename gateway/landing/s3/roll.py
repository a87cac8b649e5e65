"""Which uploads each process works on, written down where the others see it.

A file system tells by its locks who is alive; an object store has none. So every process keeps one
object, its *roll*, that lists the uploads in its hands and is written again while there are any. A
roll that was not written for a while is a dead process's. All ages are differences of times that
the store itself has set: no clock of ours is compared with another.
"""

from __future__ import annotations

import contextlib
import json
import math
import secrets
import threading
import time
from datetime import datetime, timedelta

from gateway.errors import GatewayError
from gateway.landing.s3.store import Store
from gateway.landing.zone import StorageUnavailableError

ROLLS = ".rolls"
BEATS_A_LEASE = 3
# A dead process's roll is kept this many leases, for whoever looks into what happened.
KEPT_LEASES = 240


class Roll:
    """The roll of this process, and what those of the others say.

    Raises
    ------
    InsufficientStorageError, StorageUnavailableError
        From every method but ``holds``, ``drop`` and ``close``.
    """

    def __init__(self, store: Store, lease_seconds: float) -> None:
        self._store = store
        self._lease = timedelta(seconds=lease_seconds)
        self._key = f"{ROLLS}/{secrets.token_hex(8)}"
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._uploads: set[str] = set()
        self._wanted = self._written = 0
        self._written_at = -math.inf
        self._is_there = False
        self._ended = threading.Event()
        self._beating: threading.Thread | None = None

    def add(self, upload: str) -> None:
        """Take an upload in hand; when this returns every process can see it.

        Raises
        ------
        ValueError
            It is in hand already.
        """
        with self._lock:
            if upload in self._uploads:
                raise ValueError(upload)
            self._uploads.add(upload)
            self._wanted += 1
            wanted = self._wanted
            if self._beating is None:
                self._beating = threading.Thread(target=self._beat, name="roll", daemon=True)
                self._beating.start()
        try:
            self._tell(wanted)
        except BaseException:
            self.drop(upload)
            raise

    def drop(self, upload: str, *, at_once: bool = False) -> None:
        """Let go of an upload; ``at_once`` when another process may already wait for it."""
        with self._lock:
            if upload not in self._uploads:
                return
            self._uploads.discard(upload)
            self._wanted += 1
            wanted = self._wanted
        if at_once:
            with contextlib.suppress(GatewayError):
                self._tell(wanted)

    def holds(self, upload: str) -> bool:
        """Say whether this process works on an upload."""
        with self._lock:
            return upload in self._uploads

    def require_writable(self, max_age_seconds: float) -> None:
        """Say by raising that nothing can be written; what was shown lately is believed."""
        if time.monotonic() - self._written_at > max_age_seconds:
            self._tell(None)

    def now(self) -> datetime:
        """Return the store's time."""
        return self._look()[0]

    def others(self) -> set[str]:
        """Return the uploads that other living processes work on."""
        found: set[str] = set()
        now, rolls = self._look()
        for key, written_at in rolls.items():
            if key != self._key and now - written_at <= self._lease:
                with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                    found |= set(json.loads(self._store.read(key)[0])["uploads"])
        return found

    def forget_dead(self) -> None:
        """Remove the rolls of processes that have ended long ago."""
        now, rolls = self._look()
        dead = [key for key, at in rolls.items() if now - at > KEPT_LEASES * self._lease]
        self._store.delete(dead)

    def close(self) -> None:
        """Remove the roll: nobody waits for what this process had in hand."""
        self._ended.set()
        if self._beating is not None:
            self._beating.join()
        if self._is_there:
            with contextlib.suppress(GatewayError):
                self._store.delete([self._key])

    def _look(self) -> tuple[datetime, dict[str, datetime]]:
        self._tell(None)
        rolls = {each.key: each.written_at for each in self._store.walk(ROLLS)}
        if self._key not in rolls:
            raise StorageUnavailableError
        return rolls[self._key], rolls

    def _tell(self, wanted: int | None) -> None:
        """Write the roll, unless one that has this change is written already.

        Those who wait for a write that has begun share the next one.
        """
        with self._writing:
            if wanted is not None and self._written >= wanted:
                return
            with self._lock:
                version, uploads = self._wanted, sorted(self._uploads)
            self._written_at = -math.inf  # after a failure nothing is believed
            self._store.put(self._key, json.dumps({"uploads": uploads}).encode())
            self._written, self._written_at = version, time.monotonic()
            self._is_there = True

    def _beat(self) -> None:
        pause = self._lease.total_seconds() / BEATS_A_LEASE
        while not self._ended.wait(pause):
            with self._lock:
                is_idle = not self._uploads and self._written == self._wanted
            if not is_idle:
                with contextlib.suppress(GatewayError):
                    self._tell(None)
