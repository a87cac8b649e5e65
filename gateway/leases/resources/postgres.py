"""Postgres: a role for each lease, in a database that its client has alone.

``lea_…`` may log in until its time is up, and acts as ``client_…``, the group role that owns what
the client's tasks make. Names are digests: roles and databases are known to a whole server, and who
else is a client must not be told by them (decision 15).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
from psycopg2 import errors, extensions, sql
from sqlalchemy import make_url

from gateway.leases.resources.driver import Connection, Gate, Purpose, ResourceUnavailableError

CONNECTIONS_PER_LEASE = 5
CONNECT_SECONDS = 5
STATEMENT_MILLISECONDS = 10_000
TERMINATE_MILLISECONDS = 3_000
# A new database copies its template: seconds, on a slow disk.
CREATE_MILLISECONDS = 30_000
PORT = 5432
PROVIDE_LOCK = 0x6761746577617902
SELF_GRANT_VERSION = 160_000

Cursor = extensions.cursor


class Postgres:
    """Leases on one server, administered by an account with CREATEROLE and CREATEDB."""

    name = "postgres"

    def __init__(self, url: str, template: str) -> None:
        address = make_url(url)
        self._template = template
        self._database = address.database or "postgres"
        self._host, self._port = address.host or "", address.port or PORT
        # What concerns TLS holds for tasks as it does for us.
        self._extra = {name: str(value) for name, value in address.query.items()}
        self._options: dict[str, Any] = {
            "user": address.username,
            "password": address.password,
            "connect_timeout": CONNECT_SECONDS,
            "application_name": "gateway-leases",
            "options": f"-c statement_timeout={STATEMENT_MILLISECONDS}",
            **self._extra,
        }
        self._gate = Gate(self.name, _state)

    def handle(self, purpose: Purpose) -> dict[str, Any]:
        """Return the role, and the client's place."""
        return {"role": purpose.lease, "place": place_of(purpose.client)}

    def issue(self, purpose: Purpose, seconds: float) -> Connection:
        """Make a role that may log in for so long, and the client's database before its first."""
        role, place = purpose.lease, place_of(purpose.client)
        password = secrets.token_urlsafe(32)
        with self._gate(), self._cursor() as cursor:
            if not _is_provided(cursor, place):
                self._provide(cursor, place)
            _create_role(cursor, role, place, password, seconds)
        return Connection(
            "postgres",
            host=self._host,
            port=self._port,
            schema=place,
            login=role,
            password=password,
            extra=dict(self._extra),
        )

    def renew(self, handle: dict[str, Any], seconds: float) -> None:
        """Move the end of the role's time."""
        with self._gate(), self._cursor() as cursor:
            until = _until(cursor, seconds)
            _run(cursor, "ALTER ROLE {} VALID UNTIL {}", handle["role"], until=until)

    def revoke(self, handle: dict[str, Any]) -> None:
        """End the role: no login, then no session, then no property, then nothing."""
        role, place = handle["role"], handle["place"]
        with self._gate(), self._cursor() as cursor:
            if not _is_role(cursor, role):
                return
            _run(cursor, "ALTER ROLE {} NOLOGIN", role)
            _end_sessions(cursor, role)
            self._disown(cursor, role, place)
            _run(cursor, "DROP ROLE IF EXISTS {}", role)

    def held(self) -> list[str]:
        """Return the ids of the leases that have a role."""
        with self._gate(), self._cursor() as cursor:
            cursor.execute(r"SELECT rolname FROM pg_roles WHERE rolname LIKE 'lea\_%'")
            return [row[0] for row in cursor.fetchall()]

    def _disown(self, cursor: Cursor, role: str, place: str) -> None:
        """Give what a task made as itself to its client, and take every right from the role."""
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [place])
        if cursor.fetchone() is not None:
            with self._cursor(place) as inside:
                _run(inside, "REASSIGN OWNED BY {} TO {}", role, place)
                _run(inside, "DROP OWNED BY {}", role)

    def _provide(self, cursor: Cursor, place: str) -> None:
        """Make a client's group role and database. Again goes on where a crash ended it."""
        cursor.execute("SELECT pg_advisory_lock(%s)", [PROVIDE_LOCK])
        if not _is_role(cursor, place):
            _run(cursor, "CREATE ROLE {} NOLOGIN", place)
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [place])
        if cursor.fetchone() is None:
            cursor.execute("SET statement_timeout = %s", [CREATE_MILLISECONDS])
            # Nobody comes in before the doors are set: every role may connect to a new database.
            create = "CREATE DATABASE {} TEMPLATE {} ALLOW_CONNECTIONS false"
            _run(cursor, create, place, self._template)
        _run(cursor, "REVOKE ALL ON DATABASE {} FROM PUBLIC", place)
        _run(cursor, "ALTER DATABASE {} ALLOW_CONNECTIONS true", place)
        with self._cursor(place) as inside:
            _run(inside, "GRANT USAGE, CREATE ON SCHEMA public TO {}", place)
        # Last: it is what says that all is there.
        _run(cursor, "GRANT CONNECT, TEMPORARY, CREATE ON DATABASE {} TO {}", place, place)

    @contextmanager
    def _cursor(self, database: str | None = None) -> Iterator[Cursor]:
        """Connect as the administering account; each statement is a transaction of its own."""
        place: dict[str, Any] = {"host": self._host, "port": self._port}
        place["dbname"] = database or self._database
        with closing(psycopg2.connect(**place, **self._options)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                if connection.server_version >= SELF_GRANT_VERSION:
                    # Else it could make roles and not end what they hold.
                    cursor.execute("SET createrole_self_grant = 'set, inherit'")
                yield cursor


def place_of(client: str) -> str:
    """Return the name of a client's group role and database."""
    return "client_" + hashlib.sha256(client.encode()).hexdigest()[:16]


def _is_provided(cursor: Cursor, place: str) -> bool:
    cursor.execute(
        "SELECT has_database_privilege(rolname, datname, 'CREATE') FROM pg_roles, pg_database"
        " WHERE rolname = %s AND datname = %s",
        [place, place],
    )
    return cursor.fetchone() == (True,)


def _is_role(cursor: Cursor, name: str) -> bool:
    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name])
    return cursor.fetchone() is not None


def _create_role(cursor: Cursor, role: str, place: str, password: str, seconds: float) -> None:
    # The server is sent what it stores: a statement may be logged.
    verifier = extensions.encrypt_password(
        password, role, scope=cursor.connection, algorithm="scram-sha-256"
    )
    statement = sql.SQL(
        "CREATE ROLE {} LOGIN PASSWORD {} VALID UNTIL {} CONNECTION LIMIT {} IN ROLE {}"
    ).format(
        sql.Identifier(role),
        sql.Literal(verifier),
        sql.Literal(_until(cursor, seconds)),
        sql.Literal(CONNECTIONS_PER_LEASE),
        sql.Identifier(place),
    )
    cursor.execute(statement)
    # What a task makes belongs to its client, and outlives the lease.
    _run(cursor, "ALTER ROLE {} SET role TO {}", role, place)


def _until(cursor: Cursor, seconds: float) -> str:
    cursor.execute("SELECT (now() + make_interval(secs => %s))::text", [seconds])
    (found,) = cursor.fetchone() or ("",)
    return str(found)


def _end_sessions(cursor: Cursor, role: str) -> None:
    cursor.execute(
        "SELECT bool_and(pg_terminate_backend(pid, %s)) FROM pg_stat_activity WHERE usename = %s",
        [TERMINATE_MILLISECONDS, role],
    )
    if cursor.fetchone() == (False,):
        cursor.execute("SELECT 1 FROM pg_stat_activity WHERE usename = %s", [role])
        if cursor.fetchone() is not None:
            raise ResourceUnavailableError("sessions remain")


def _run(cursor: Cursor, statement: str, *names: str, until: str | None = None) -> None:
    values: list[sql.Composable] = [sql.Identifier(name) for name in names]
    if until is not None:
        values.append(sql.Literal(until))
    cursor.execute(sql.SQL(statement).format(*values))


def _state(error: Exception) -> str:
    return str(error.pgcode or "") if isinstance(error, errors.Error) else ""
