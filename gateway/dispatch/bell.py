"""Waiting for the first of: a notification of Postgres, a thread of ours ringing, time passed."""

from __future__ import annotations

import os
import select
from typing import Any

import psycopg2
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from gateway import logs
from gateway.outbox import queue

DRAIN_BYTES = 4096

log = logs.get("dispatch")


class Bell:
    """One waiter, any number of ringers.

    Postgres' notifications come over a connection of the bell's own, outside the pool and never
    inside a transaction. While it is broken, the time that passes has to do.
    """

    def __init__(self, engine: Engine, channel: str = queue.CHANNEL) -> None:
        self._engine = engine
        self._channel = channel
        self._said: list[str] = []
        self._heard, self._pulled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._connection: Any = None

    def ring(self) -> None:
        """Wake the waiter, now or when it next waits."""
        try:
            os.write(self._pulled, b"!")
        except BlockingIOError:
            # So many rings are unheard that one more says nothing new.
            return

    def wait(self, seconds: float) -> None:
        """Wait for news, at most so long. Returns at once after it had been deaf for a while."""
        if self._connection is None and self._listen():
            return
        try:
            self._wait(seconds)
        except psycopg2.Error:
            self._hang_up()

    def take(self) -> list[str]:
        """Return what notifications said since the last time, oldest first."""
        said, self._said = self._said, []
        return said

    def close(self) -> None:
        """Give the connection and the pipe back. Call it when nobody rings any more."""
        self._hang_up()
        os.close(self._heard)
        os.close(self._pulled)

    def _wait(self, seconds: float) -> None:
        sources: list[Any] = [self._heard]
        if self._connection is not None:
            self._connection.poll()
            sources.append(self._connection)
        if self._connection is not None and self._connection.notifies:
            seconds = 0
        ready, _, _ = select.select(sources, [], [], seconds)
        if self._heard in ready:
            os.read(self._heard, DRAIN_BYTES)
        if self._connection is not None:
            self._connection.poll()
            self._said += [each.payload for each in self._connection.notifies]
            self._connection.notifies.clear()

    def _listen(self) -> bool:
        try:
            pooled = self._engine.raw_connection()
            self._connection = pooled.driver_connection
            pooled.detach()
            self._connection.autocommit = True
            with self._connection.cursor() as cursor:
                cursor.execute(f"LISTEN {self._channel}")
        except (SQLAlchemyError, psycopg2.Error) as error:
            log.warning("not_listening", kind=type(error).__name__)
            self._hang_up()
            return False
        return True

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
