"""Small files that wait for the database, gathered: one transaction for all that are there.

While a client's group is being stored, what comes meanwhile becomes its next one: the more there is
to do, the less each costs. Senders who were just answered come back a moment later; the next group
waits that moment for them, or two halves would take turns for ever, at twice the price. Who comes
alone never waits. Clients do not share groups: one whose rows are locked holds up no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from sqlalchemy.orm import Session, sessionmaker

from gateway import logs
from gateway.batches.views import FileView
from gateway.jobs.reading import client_of
from gateway.landing.zone import Gathering
from gateway.uploads import together
from gateway.uploads.small import Ready

log = logs.get("uploads")
LANES = 4
MOST = 256
# A group waits for those who were answered last for this part of the time they took, at most, if
# the first of them is back so soon.
PAUSE = 0.5
PAUSE_SECONDS = 0.01
RETURN_SECONDS = 0.05


class Groups:
    """Stores ready files of many requests; ``zone`` may be one that cannot do this."""

    def __init__(self, sessions: sessionmaker[Session], zone: object) -> None:
        self._sessions = sessions
        self._zone = zone
        self._lanes = ThreadPoolExecutor(LANES, thread_name_prefix="group")
        self._queues: dict[str, _Queue] = {}
        self._lock = threading.Lock()

    @property
    def can_store(self) -> bool:
        """Whether the landing zone takes many files at once."""
        return isinstance(self._zone, Gathering)

    def add(self, ready: Ready, waiter: Waiter) -> None:
        """Have a file stored; its part belongs to the group from now on."""
        client = client_of(ready.small.principal)
        with self._lock:
            queue = self._queues.get(client)
            if queue is None:
                queue = self._queues[client] = _Queue(threading.Condition(self._lock))
            is_idle = not queue.is_served
            if is_idle:
                queue.begin()
            queue.waiting.append((ready, waiter))
            if len(queue.waiting) >= queue.expected:
                queue.complete.notify()
        if is_idle:
            self._submit(client)

    def close(self) -> None:
        """Store what waits, and take no more."""
        self._lanes.shutdown()

    def store(self, client: str, files: Sequence[Ready]) -> list[FileView | None]:
        """Store one client's files: None stands for each that must go its way alone; blocks.

        Their parts are let go of.
        """
        views: list[FileView | None] = [None] * len(files)
        try:
            views = self._stored(client, files)
        except Exception as error:  # noqa: BLE001 - what was published is adopted, or reconciled
            log.warning("group_unsettled", files=len(files), kind=type(error).__name__)
        for file, view in zip(files, views, strict=True):
            file.part.abort() if view is None else file.part.release()
        return views

    def _stored(self, client: str, files: Sequence[Ready]) -> list[FileView | None]:
        zone = self._zone
        if not isinstance(zone, Gathering):
            return [None] * len(files)
        try:
            with self._sessions.begin() as session:
                return together.store(session, zone, client, files)
        except Exception as error:  # noqa: BLE001 - each is tried again alone, and its sender told
            log.warning("group_failed", files=len(files), kind=type(error).__name__)
        with self._sessions.begin() as session:
            return together.settle(session, zone, client, files)

    def _turn(self, client: str) -> None:
        group = self._next(client)
        began = time.monotonic()
        views = self.store(client, [ready for ready, _ in group])
        with self._lock:
            queue = self._queues[client]
            is_idle = not queue.waiting
            queue.rest(len(group), time.monotonic() - began, is_idle=is_idle)
        _tell(group, views)
        if not is_idle:
            self._submit(client)

    def _submit(self, client: str) -> None:
        try:
            self._lanes.submit(self._turn, client)
        except RuntimeError:  # closed: what waits is stored by whoever is still here
            self._turn(client)

    def _next(self, client: str) -> list[tuple[Ready, Waiter]]:
        with self._lock:
            queue = self._queues[client]
            is_complete = lambda: len(queue.waiting) >= queue.expected  # noqa: E731 - said once
            queue.complete.wait_for(is_complete, queue.pause_seconds)
            group, queue.waiting[:] = queue.waiting[:MOST], queue.waiting[MOST:]
            return group


@dataclass(slots=True)
class _Queue:
    """A client's files that wait for the next group, and when it is as large as it will be."""

    complete: threading.Condition
    waiting: list[tuple[Ready, Waiter]] = field(default_factory=list)
    expected: int = 1
    pause_seconds: float = 0.0
    is_served: bool = False
    told_at: float = float("-inf")

    def begin(self) -> None:
        """Have a thread serve it. Who was answered long ago is not expected back."""
        self.is_served = True
        if time.monotonic() > self.told_at + RETURN_SECONDS:
            self.expected = 1

    def rest(self, stored: int, seconds: float, *, is_idle: bool) -> None:
        """Note what became of a group that took so long, and whether that was all."""
        self.is_served = not is_idle
        self.told_at = time.monotonic()
        self.expected = min(MOST, stored + len(self.waiting))
        self.pause_seconds = min(PAUSE_SECONDS, PAUSE * seconds)


class Waiter:
    """Who waits for a file, on which event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[FileView | None] = self.loop.create_future()

    def resolve(self, view: FileView | None) -> None:
        """Tell the outcome; on the loop."""
        if not self.outcome.done():
            self.outcome.set_result(view)

    def resolve_soon(self, view: FileView | None) -> None:
        """Tell the outcome; from a thread."""
        with contextlib.suppress(RuntimeError):  # closed: nobody waits there any more
            self.loop.call_soon_threadsafe(self.resolve, view)


def _tell(group: Sequence[tuple[Ready, Waiter]], views: Sequence[FileView | None]) -> None:
    """Wake each loop once, whoever of it waits."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Waiter, FileView | None]]]
    by_loop = defaultdict(list)
    for (_, waiter), view in zip(group, views, strict=True):
        by_loop[waiter.loop].append((waiter, view))
    for loop, told in by_loop.items():
        with contextlib.suppress(RuntimeError):  # closed: nobody waits there any more
            loop.call_soon_threadsafe(_resolve_all, told)


def _resolve_all(told: Sequence[tuple[Waiter, FileView | None]]) -> None:
    for waiter, view in told:
        waiter.resolve(view)
