"""A session in a client's own Postgres database, and its failures in words for the client."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2.extensions import ISOLATION_LEVEL_READ_COMMITTED

from pipeline.errors import DeliveryError, PlatformError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg2.extensions import connection as Connection  # noqa: N812

AWAY = "database-unavailable"
# Who holds a table for longer than this makes us come back later.
LOCK_SECONDS = 60
# A server that has gone without a word is noticed; one that works on a long statement is not one.
_CONNECTING = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    "application_name": "ingest-publish",
}
# What a database is set to for its own users' sake must not end a long load.
_SETTINGS = {
    "client_encoding": "UTF8",
    "lock_timeout": f"{LOCK_SECONDS}s",
    "statement_timeout": 0,
    "idle_in_transaction_session_timeout": 0,
}
# Classes of SQLSTATE by which a database says that it will not have it, now or later: features,
# data, constraints, rights and names, views, limits, what its own functions raise.
_REFUSALS = ("0A", "22", "23", "42", "44", "54", "P0")
_STATES = {
    "53100": "is full",
    "53": "has no room for another session",
    "25006": "cannot be written to",
    "55P03": "has a table that somebody else holds",
    "40": "has a table that somebody else holds",
}


@dataclass(frozen=True)
class Place:
    """A database, and the account that may use it for as long as this task runs.

    ``more`` is what libpq is to be told besides, for example ``sslmode``.
    """

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    more: Mapping[str, Any] = field(default_factory=dict, repr=False)


@contextmanager
def reached(place: Place) -> Iterator[Connection]:
    """Have a session for as long as the block lasts; what it has not committed is undone.

    Raises
    ------
    PlatformError
        ``database-unavailable``: it is away, full, or somebody holds what is needed.
    DeliveryError
        ``refused-by-database``: it will not take the rows as they are, however often it is asked.
    """
    try:
        with closing(_connected(place)) as connection:
            yield connection
    except psycopg2.Error as error:
        raise failure_of(error) from error


def _connected(place: Place) -> Connection:
    found: Connection = psycopg2.connect(
        **{**place.more, **_CONNECTING},
        host=place.host,
        port=place.port,
        dbname=place.database,
        user=place.user,
        password=place.password,
        options=" ".join(f"-c {name}={value}" for name, value in _SETTINGS.items()),
    )
    found.set_session(isolation_level=ISOLATION_LEVEL_READ_COMMITTED)
    return found


def failure_of(error: psycopg2.Error) -> DeliveryError | PlatformError:
    """Tell what a database's error means for the delivery.

    Notes
    -----
    What the database says of data and names is the client's own: roles, hosts and passwords are not
    in messages of these classes.
    """
    state = error.pgcode or ""
    if state.startswith(_REFUSALS):
        detail = f"the client's database refuses the rows: {error.diag.message_primary}"
        return DeliveryError("refused-by-database", detail)
    said = _STATES.get(state) or _STATES.get(state[:2], "cannot be reached")
    return PlatformError(AWAY, f"the client's database {said}; the delivery is kept")
