"""Postgres: the engine, the base of every table, ids.

Domain functions take a ``Session`` first and never commit; doors, worker steps
and commands own exactly one ``begin()`` each.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import select
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

import psycopg2
from psycopg2 import extensions
from sqlalchemy import Connection, DateTime, Engine, MetaData, Text, create_engine, event, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError, IntegrityError, OperationalError
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
    engine = create_engine(
        config.url.get_secret_value(),
        pool_size=config.pool_size,
        max_overflow=0,
        pool_timeout=config.pool_timeout_seconds,
        connect_args={
            "options": options,
            "application_name": "gateway",
            "keepalives_idle": 30,
            "tcp_user_timeout": 20_000,
        },
    )
    event.listen(engine, "checkout", _require_open)
    event.listen(engine, "reset", _reset)
    event.listen(engine, "before_cursor_execute", _with_what_waits, retval=True)
    event.listen(engine, "commit", _send_what_waits)
    event.listen(engine, "rollback", _forget_what_waits)
    event.listen(engine, "handle_error", _forget_names)
    return engine


def _require_open(raw: Any, _record: Any, _proxy: Any) -> None:
    """Refuse a kept connection that its server has closed; the pool then opens another.

    That it is gone, or what it said last, waits to be read. To ask each one a question instead
    would cost every transaction a round trip.
    """
    watch = select.poll()
    watch.register(raw, select.POLLIN)
    if not watch.poll(0):
        return
    try:
        with raw.cursor() as cursor:
            cursor.execute("SELECT 1")
        raw.rollback()
    except psycopg2.Error as error:
        raise DisconnectionError from error


def _reset(raw: Any, record: Any, _state: Any) -> None:
    record.info.pop(_WAITING, None)
    if raw.closed:
        return
    # After a commit that failed before it was sent, the pool takes the transaction for ended.
    if raw.info.transaction_status != extensions.TRANSACTION_STATUS_IDLE:
        raw.rollback()
    raw.autocommit = False


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


def alone(session: Session) -> Connection:
    """Return the connection for one statement that needs no transaction around it.

    It commits by itself: two round trips fewer than a transaction of its own.
    """
    connection = session.connection()
    raw = connection.connection.driver_connection
    if raw is not None:
        with _as_of_a_statement():
            raw.autocommit = True
    return connection


def reader(sessions: sessionmaker[Session]) -> Session:
    """Open a session that only reads: its statements need no transaction, and ending it no trip.

    Each sees what is committed when it begins, as in a transaction of Postgres' default isolation.
    """
    return sessions(info={_READS: True})


def require_writer(session: Session) -> None:
    """See to it that what is written in a session will be committed.

    Raises
    ------
    TypeError
        It only reads.
    """
    if _READS in session.info:
        message = "this session only reads"
        raise TypeError(message)


_READS = "only_reads"


@event.listens_for(Session, "after_begin")
def _commit_each(session: Session, _: Any, connection: Connection) -> None:
    raw = connection.connection.driver_connection
    if _READS in session.info and raw is not None:
        with _as_of_a_statement():
            raw.autocommit = True


@event.listens_for(Session, "before_flush")
def _flush_nothing(session: Session, *_: Any) -> None:
    require_writer(session)


@contextmanager
def _as_of_a_statement() -> Iterator[None]:
    """Have a connection that is lost show as it does everywhere: SQLAlchemy wraps no hook's errors."""
    try:
        yield
    except psycopg2.Error as error:
        raise OperationalError("the connection", {}, error) from error


def prepared(*statements: str, **types: str) -> str:
    """Have Postgres plan statements once for each connection, not each time they are sent.

    Parameters
    ----------
    statements
        With ``%(name)s`` for each value.
    types
        The Postgres type of each value.

    Returns
    -------
    str
        To be given to ``exec_driver_sql``, or ``later``.
    """
    known = ";".join(statements)
    _PREPARED[known] = [_Prepared.of(each, types) for each in statements]
    return known


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A statement with numbered values, and how they are filled in."""

    head: str
    body: str
    values: str

    @classmethod
    def of(cls, statement: str, types: Mapping[str, str]) -> _Prepared:
        names = [name for name in types if f"%({name})s" in statement]
        for number, name in enumerate(names, 1):
            statement = statement.replace(f"%({name})s", f"${number}")
        listed = ", ".join(types[name] for name in names)
        values = ", ".join(f"%({name})s" for name in names)
        return cls(f"({listed})" if names else "", statement, f"({values})" if names else "")


_PREPARED: dict[str, list[_Prepared]] = {}


def _text(connection: Connection, cursor: Any, statement: str, values: Any) -> str:
    """Return what is sent for a statement."""
    with _as_of_a_statement():
        return _filled(connection, cursor, statement, values)


def _filled(connection: Connection, cursor: Any, statement: str, values: Any) -> str:
    known = _PREPARED.get(statement)
    if known is None:
        sent: bytes = cursor.mogrify(statement, values or None)
        return sent.decode()
    names = connection.info.setdefault(_NAMES, {})
    parts = []
    for each in known:
        if each.body not in names:
            names[each.body] = f"gateway_{next(_numbers)}"
            parts.append(f"PREPARE {names[each.body]}{each.head} AS {each.body}")
    for each in known:
        filled = cursor.mogrify(each.values, values).decode() if each.values else ""
        parts.append(f"EXECUTE {names[each.body]}{filled}")
    return ";".join(parts)


_NAMES = "prepared_names"
_numbers = itertools.count(1)


def _forget_names(context: ExceptionContext) -> None:
    # Whether what was prepared along with a statement that failed is there is not known.
    if context.connection is not None and not context.is_disconnect:
        context.connection.info.pop(_NAMES, None)


def later(session: Session, statement: str, values: Mapping[str, Any]) -> None:
    """Have a statement sent along with the next one of its transaction, or before the commit.

    For what returns nothing: several such statements cost one round trip. An error of theirs is
    raised where they are sent.
    """
    connection = session.connection()
    with _as_of_a_statement(), contextlib.closing(connection.connection.cursor()) as cursor:
        sent = _text(connection, cursor, statement, values)
    connection.info.setdefault(_WAITING, []).append(sent)


_WAITING = "waiting_statements"


def _with_what_waits(
    connection: Connection, cursor: Any, statement: str, values: Any, *given: Any
) -> tuple[str, Any]:
    waiting = connection.info.pop(_WAITING, [])
    if not waiting and statement not in _PREPARED:
        return statement, values
    if given[-1]:  # many sets of values
        with _as_of_a_statement():
            cursor.execute(";".join(waiting))
        return statement, values
    return ";".join([*waiting, _text(connection, cursor, statement, values)]), None


def _send_what_waits(connection: Connection) -> None:
    if waiting := connection.info.pop(_WAITING, None):
        connection.exec_driver_sql(";".join(waiting), execution_options={"no_parameters": True})


def _forget_what_waits(connection: Connection) -> None:
    # What a lost connection held went with it.
    if not connection.invalidated:
        connection.info.pop(_WAITING, None)


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
