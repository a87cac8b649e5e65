"""The background loops: messages for Airflow, runs to look after, leases, things to sweep.

Each loop is a thread that survives its own failures. Nothing is kept in memory that matters: a
worker may be killed at any moment, and any number of workers may run.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from gateway import logs
from gateway.batches import clearing, idempotency, ledger, purging
from gateway.bootstrap import Services
from gateway.clients import usage
from gateway.dispatch import cancel, pools, trigger
from gateway.dispatch.airflow_api import AirflowError, UnavailableError
from gateway.dispatch.bell import Bell
from gateway.dispatch.crew import Crew
from gateway.dispatch.hints import Hints
from gateway.dispatch.messenger import Messenger
from gateway.dispatch.pace import Pace
from gateway.dispatch.setbacks import Setback
from gateway.dispatch.watch import Watcher
from gateway.errors import GatewayError
from gateway.identity import rotation, throttle
from gateway.identity import sessions as signed_in
from gateway.jobs import news
from gateway.leases import reaper
from gateway.leases.lending import Lending
from gateway.outbox import queue
from gateway.outbox.queue import Claim
from gateway.settings import Settings, SettingsError
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
STRAYS_SECONDS = 300.0

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
    loops = [
        Outbox(services, parts, stop),
        Watch(services, parts),
        Leases(services, stop),
        Sweep(services, stop),
    ]
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

    def __init__(self, services: Services, parts: Messenger, stop: threading.Event) -> None:
        self._parts = parts
        self._sessions = services.sessions
        self._config = services.settings.worker
        self._stop = stop
        self._bell = Bell(services.engine)
        # Each errand needs a connection at times, and so do the loops.
        size = max(1, min(CREW_SIZE, services.settings.database.pool_size - 4))
        self._crew = Crew(size, self._bell.ring)
        self._pace = Pace(self._config.lane_width)
        self._lanes = Counter[str]()
        self._lanes_lock = threading.Lock()
        self._is_away = False

    def turn(self) -> None:
        """Claim as many messages as can be started now; wait when there are no more."""
        limit = min(self._crew.free, PROBES) if self._is_away else self._crew.free
        claims = self._claim(limit) if limit > 0 else []
        for claim in claims:
            under_way = self._enter(claim.lane, 1)
            self._crew.start(partial(self._carry, claim, under_way))
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
                busy=dict(self._lanes),
                lane_width=self._pace.width,
            )

    def _carry(self, claim: Claim, under_way: int) -> None:
        began = time.monotonic()
        try:
            setback = ERRANDS[claim.topic](self._parts, claim)
        finally:
            self._enter(claim.lane, -1)
        if setback is None and claim.topic == trigger.TOPIC:
            self._pace.took(time.monotonic() - began, under_way)
        self._is_away = setback is not None and setback.reason == UnavailableError.reason

    def _enter(self, lane: str, step: int) -> int:
        with self._lanes_lock:
            self._lanes[lane] += step
            under_way = self._lanes[lane]
            if not under_way:
                del self._lanes[lane]
        return under_way


class Watch(Loop):
    """Looks after active runs: when Airflow says that one has changed, and now and then at all."""

    def __init__(self, services: Services, parts: Messenger) -> None:
        self._watcher = Watcher(parts)
        self._seconds = parts.settings.worker.watch_seconds
        self._bell = Bell(services.engine, news.CHANNEL)
        self._hints = Hints()
        self._next_at = 0.0

    def turn(self) -> None:
        """Look at what is due."""
        self._look_at_hinted()
        if time.monotonic() >= self._next_at:
            self._watcher.run_once()
            self._next_at = time.monotonic() + self._seconds
        left = max(0.0, self._next_at - time.monotonic())
        self._bell.wait(self._hints.seconds_left(left))
        self._hints.hear(self._bell.take())

    def _look_at_hinted(self) -> None:
        if hinted := self._hints.due():
            late: set[str] = set()
            try:
                late = self._watcher.look_at(hinted)
            except AirflowError as error:
                log.info("runs_not_asked", jobs=len(hinted), kind=type(error).__name__)
            finally:
                self._hints.looked(hinted, late)

    def wake(self) -> None:
        """End the wait."""
        self._bell.ring()


class Leases(Loop):
    """Renews the credentials of running tasks, and ends those of others."""

    def __init__(self, services: Services, stop: threading.Event) -> None:
        config = services.settings.leases
        self._lending = Lending(config, services.sessions, services.resources)
        self._seconds = config.reap_seconds
        self._stop = stop
        self._strays_at = time.monotonic() + STRAYS_SECONDS

    def turn(self) -> None:
        """Look once; now and then compare with what the data systems hold."""
        done = reaper.turn(self._lending)
        if time.monotonic() >= self._strays_at:
            self._strays_at = time.monotonic() + STRAYS_SECONDS
            reaper.find_strays(self._lending)
        if done.revoked or done.renewed:
            log.info("leases_tended", revoked=done.revoked, renewed=done.renewed)
        self._stop.wait(self._seconds)


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
    purged = _purge(services)
    _retire_keys(services)
    dead = uploads.run(services.sessions, services.zone)
    if expired or uncleared or dead or purged:
        counts = {"expired": len(expired), "cleared": len(uncleared), "uploads": dead}
        log.info("swept", **counts, purged=purged)


def _purge(services: Services) -> int:
    """Take what is past its retention; what fails is tried again by the next sweep."""
    try:
        return purging.run(
            services.sessions, services.zone, services.settings.pipeline, SWEEP_LIMIT
        )
    except GatewayError as error:
        log.warning("retention_failed", slug=error.slug)
        return 0


def _retire_keys(services: Services) -> None:
    try:
        rotation.retire(services.sessions, services.settings.tokens.keys_dir, actor="gateway")
    except SettingsError as error:
        # The worker may be one that can only read them: `gateway keys rotate` does it as well.
        log.warning("keys_not_retired", reason=str(error))


def _forget(session: Session, config: Settings) -> None:
    idempotency.purge(session, config.batches.idempotency_seconds)
    signed_in.sweep(session)
    throttle.sweep(session, config.throttle)
    usage.sweep(session)


def _pause_seconds(failures: int) -> float:
    bound = min(FIRST_PAUSE_SECONDS * 2 ** min(failures, 16), LONGEST_PAUSE_SECONDS)
    return random.uniform(bound / 2, bound)  # noqa: S311 - spreads load
