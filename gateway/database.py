"""Postgres: the engine, the base of every table, ids.

Domain functions take a ``Session`` first and never commit; doors, worker steps
and commands own exactly one ``begin()`` each.
"""

from __future__ import annotations

import random
import select
import time
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

import psycopg2
from psycopg2 import extensions
from sqlalchemy import DateTime, Engine, MetaData, Text, create_engine, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from gateway import settings

CONNECT_SECONDS = 5.0
# How much later than its own time limit a server may be before it is given up.
GRACE_SECONDS = 3.0
# How many time limits a transaction may rest between two statements.
IDLE_FACTOR = 2


class Base(DeclarativeBase):
    """Base of every table; names of constraints follow from what they constrain."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[dict[str, Any]]: JSONB,
        str: Text,
    }


def connect(config: settings.Database, *, statement_seconds: float | None = None) -> Engine:
    """Build the engine: a bounded pool, UTC, and time limits on every statement.

    The server keeps the limits while it is well. For a server that is there and says nothing (its
    host's kernel acknowledges all it is sent), this side stops waiting too: from then on for every
    psycopg2 connection of the process, the driver knows no narrower way.

    Parameters
    ----------
    statement_seconds
        The time limit, where it is not the configured one.
    """
    limit = statement_seconds or config.statement_timeout_seconds
    extensions.set_wait_callback(partial(_wait, seconds=limit + GRACE_SECONDS))
    milliseconds = int(limit * 1000)
    options = (
        f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds} -c timezone=UTC"
        # A process that was stopped amid a transaction keeps its locks: not for ever.
        f" -c idle_in_transaction_session_timeout={IDLE_FACTOR * milliseconds}"
    )
    return create_engine(
        config.url.get_secret_value(),
        pool_size=config.pool_size,
        max_overflow=0,
        pool_timeout=config.pool_timeout_seconds,
        pool_pre_ping=True,
        connect_args={
            "options": options,
            "application_name": "gateway",
            "keepalives_idle": 30,
            "tcp_user_timeout": 20_000,
        },
    )


def _wait(connection: Any, seconds: float) -> None:
    """Wait for the server's answer. An error makes psycopg2 close the connection."""
    is_new = connection.status not in _CONNECTED
    deadline = time.monotonic() + (CONNECT_SECONDS if is_new else seconds)
    while (state := connection.poll()) != extensions.POLL_OK:
        ready = select.poll()
        ready.register(connection, _AWAITED.get(state, 0))
        if not ready.poll(max(0.0, deadline - time.monotonic()) * 1000):
            message = "the database does not answer"
            raise psycopg2.OperationalError(message)


_AWAITED = {extensions.POLL_READ: select.POLLIN, extensions.POLL_WRITE: select.POLLOUT}
_CONNECTED = {extensions.STATUS_READY, extensions.STATUS_BEGIN, extensions.STATUS_PREPARED}


def sessions(engine: Engine) -> sessionmaker[Session]:
    """Build the factory of sessions; what a session loaded stays readable after its commit."""
    return sessionmaker(engine, expire_on_commit=False)


def new_id(prefix: str) -> str:
    """Return an opaque id such as ``bat_01k…``: a ULID, sortable by time, URL-safe, lower case.

    Nothing rests on its being hard to guess; the ULID library takes ten times as long.
    """
    number = (time.time_ns() // 1_000_000) << 80 | random.getrandbits(80)
    return f"{prefix}_" + "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(high + low for high in _DIGITS for low in _DIGITS)
_SHIFTS = range(120, -1, -10)


def now(session: Session) -> datetime:
    """Return the database's clock: the one time that queues, leases and limits go by."""
    found: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return found


def take_time(session: Session) -> None:
    """Let this transaction rest as long as it likes between statements: it holds no lock."""
    session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))


def violated(error: IntegrityError) -> str:
    """Return the name of the constraint that an insert or update ran into."""
    diagnostics = getattr(error.orig, "diag", None)
    return getattr(diagnostics, "constraint_name", None) or ""
