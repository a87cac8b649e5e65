"""The background loops: messages for Airflow, runs to look after, things to sweep.

Each loop is a thread that survives its own failures. Nothing is kept in memory that matters: a
worker may be killed at any moment, and any number of workers may run.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from gateway import logs
from gateway.batches import clearing, idempotency, ledger
from gateway.bootstrap import Services
from gateway.clients import usage
from gateway.dispatch import cancel, pools, trigger
from gateway.dispatch.airflow_api import AirflowError, UnavailableError
from gateway.dispatch.bell import Bell
from gateway.dispatch.crew import Crew
from gateway.dispatch.messenger import Messenger
from gateway.dispatch.setbacks import Setback
from gateway.dispatch.watch import Watcher
from gateway.errors import GatewayError
from gateway.identity import sessions as signed_in
from gateway.identity import throttle
from gateway.outbox import queue
from gateway.outbox.queue import Claim
from gateway.settings import Settings
from gateway.uploads import sweep as uploads

Errand = Callable[[Messenger, Claim], Setback | None]
ERRANDS: Mapping[str, Errand] = MappingProxyType(
    {trigger.TOPIC: trigger.carry, cancel.TOPIC: cancel.carry, pools.TOPIC: pools.carry}
)
CREW_SIZE = 8
STOP_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
# While Airflow is away, a few messages at a time find out whether it is back.
PROBES = 4
PROBE_SECONDS = 1.0
SWEEP_LIMIT = 100

log = logs.get("worker")


class Loop:
    """Something done again and again."""

    def turn(self) -> None:
        """Do it once, then wait until it is worth doing again."""
        raise NotImplementedError

    def wake(self) -> None:
        """End the wait."""

    def finish(self, seconds: float) -> bool:  # noqa: ARG002
        """Wait for what was begun, at most so long. False: something is unfinished."""
        return True


def run(services: Services, stop: threading.Event) -> None:
    """Run the loops until ``stop`` is set; return within ten seconds after that."""
    parts = Messenger(
        services.settings,
        services.sessions,
        services.zone,
        services.keys,
        services.airflow_api,
    )
    watch = Watch(parts, stop)
    loops = [Outbox(services, parts, stop, watch.wake), watch, Sweep(services, stop)]
    threads = [
        threading.Thread(target=_keep, args=(loop, stop), name=type(loop).__name__, daemon=True)
        for loop in loops
    ]
    for thread in threads:
        thread.start()
    log.info("worker_started")
    stop.wait()
    _finish(loops, threads)


def _finish(loops: list[Loop], threads: list[threading.Thread]) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    for loop in loops:
        loop.wake()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    is_done = all(loop.finish(deadline - time.monotonic()) for loop in loops)
    log.info("worker_stopped", in_flight_finished=is_done)


def _keep(loop: Loop, stop: threading.Event) -> None:
    """Turn a loop until told to stop; after a failure a little later, and later each time."""
    failures = 0
    while not stop.is_set():
        try:
            loop.turn()
            failures = 0
        except Exception as error:  # noqa: BLE001 - a loop that ends helps nobody
            failures += 1
            expected = isinstance(error, (SQLAlchemyError, AirflowError))
            log.log(
                logging.WARNING if expected else logging.ERROR,
                "loop_failed",
                loop=type(loop).__name__,
                kind=type(error).__name__,
                failures=failures,
                # Where, never what: the text of an exception may be another system's.
                trace=None if expected else traceback.format_tb(error.__traceback__)[-3:],
            )
            stop.wait(_pause_seconds(failures))


class Outbox(Loop):
    """Takes messages out of the out-tray and has them carried, several at a time."""

    def __init__(
        self,
        services: Services,
        parts: Messenger,
        stop: threading.Event,
        on_carried: Callable[[], None],
    ) -> None:
        self._on_carried = on_carried
        self._parts = parts
        self._sessions = services.sessions
        self._config = services.settings.worker
        self._stop = stop
        self._bell = Bell(services.engine)
        # Each errand needs a connection at times, and so do the loops.
        size = max(1, min(CREW_SIZE, services.settings.database.pool_size - 3))
        self._crew = Crew(size, self._bell.ring)
        self._is_away = False

    def turn(self) -> None:
        """Claim as many messages as can be started now; wait when there are no more."""
        limit = min(self._crew.free, PROBES) if self._is_away else self._crew.free
        claims = self._claim(limit) if limit > 0 else []
        for claim in claims:
            self._crew.start(partial(self._carry, claim))
        if self._is_away:
            self._stop.wait(random.uniform(0.5, 1.5) * PROBE_SECONDS)  # noqa: S311 - spreads load
        elif len(claims) < limit or limit == 0:
            self._bell.wait(self._config.poll_seconds)

    def wake(self) -> None:
        """End the wait."""
        self._bell.ring()

    def finish(self, seconds: float) -> bool:
        """Wait for errands under way."""
        return self._crew.wait(seconds)

    def _claim(self, limit: int) -> list[Claim]:
        with self._sessions.begin() as session:
            return queue.claim(
                session,
                topics=list(ERRANDS),
                limit=limit,
                claim_seconds=self._config.claim_seconds,
            )

    def _carry(self, claim: Claim) -> None:
        setback = ERRANDS[claim.topic](self._parts, claim)
        self._is_away = setback is not None and setback.reason == UnavailableError.reason
        if setback is None:
            self._on_carried()


class Watch(Loop):
    """Looks after active runs; idles slowly while there are none."""

    def __init__(self, parts: Messenger, stop: threading.Event) -> None:
        self._stop = stop
        self._watcher = Watcher(parts)
        self._config = parts.settings.worker
        self._news = threading.Event()

    def turn(self) -> None:
        """Look once."""
        self._news.clear()
        if self._watcher.run_once():
            # News cannot hurry this: a pause keeps the load on Airflow the same at any rate.
            self._stop.wait(self._config.watch_seconds)
        else:
            self._news.wait(self._config.poll_seconds)

    def wake(self) -> None:
        """End the wait for the first active run."""
        self._news.set()


class Sweep(Loop):
    """Ends what was abandoned and forgets what no longer matters."""

    def __init__(self, services: Services, stop: threading.Event) -> None:
        self._services = services
        self._stop = stop

    def turn(self) -> None:
        """Sweep once."""
        sweep(self._services)
        self._stop.wait(self._services.settings.worker.sweep_seconds)


def sweep(services: Services) -> None:
    """Expire abandoned batches, remove the files of ended ones, forget what has had its time."""
    with services.sessions.begin() as session:
        expired = ledger.expire_open(session, SWEEP_LIMIT)
    with services.sessions.begin() as session:
        uncleared = ledger.uncleared(session, SWEEP_LIMIT)
    for batch in uncleared:
        try:
            clearing.clear(services.sessions, services.zone, batch)
        except GatewayError as error:
            # What is wrong with one batch must not keep the rest from being swept.
            log.warning("batch_not_cleared", batch=batch.id, slug=error.slug)
    with services.sessions.begin() as session:
        _forget(session, services.settings)
    dead = uploads.run(services.sessions, services.zone)
    if expired or uncleared or dead:
        log.info("swept", expired=len(expired), cleared=len(uncleared), uploads=dead)


def _forget(session: Session, config: Settings) -> None:
    idempotency.purge(session, config.batches.idempotency_seconds)
    signed_in.sweep(session)
    throttle.sweep(session, config.throttle)
    usage.sweep(session)


def _pause_seconds(failures: int) -> float:
    bound = min(FIRST_PAUSE_SECONDS * 2 ** min(failures, 16), LONGEST_PAUSE_SECONDS)
    return random.uniform(bound / 2, bound)  # noqa: S311 - spreads load
