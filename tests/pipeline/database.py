"""A client's own database, with the account that a lease gives a task, on a server of the session's."""

from __future__ import annotations

import secrets
import socket
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl
import psycopg2
from psycopg2 import sql

from pipeline.postgres_session import Place
from tests import lone_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEMA = "flights"


@dataclass(frozen=True)
class Server:
    """A running server, and its superuser's password."""

    port: int
    password: str

    def ask(self, database: str, statement: sql.Composable | str) -> list[tuple[Any, ...]]:
        place = Place("127.0.0.1", self.port, database, "postgres", self.password)
        return asked(place, statement)

    def until(self, condition: str, count: int) -> None:
        """Wait until so many sessions are in a state."""
        asked = f"SELECT count(*) FROM pg_stat_activity WHERE {condition}"
        deadline = time.monotonic() + 60
        while self.ask("postgres", asked) != [(count,)]:
            assert time.monotonic() < deadline, f"never {count} with {condition}"
            time.sleep(0.01)

    def client(self) -> Database:
        """Make a database of a client that no other test has."""
        name = f"client_{secrets.token_hex(8)}"
        role, place = sql.Identifier(f"lea_{secrets.token_hex(8)}"), sql.Identifier(name)
        for statement in (
            "CREATE ROLE {1} NOLOGIN",
            "CREATE ROLE {0} LOGIN PASSWORD 'lent' IN ROLE {1}",
            "ALTER ROLE {0} SET role TO {1}",
            "CREATE DATABASE {1} TEMPLATE client_template",
            "GRANT CONNECT, TEMPORARY, CREATE ON DATABASE {1} TO {1}",
        ):
            self.ask("postgres", sql.SQL(statement).format(role, place))
        return Database(self, Place("127.0.0.1", self.port, name, role.strings[0], "lent"))


@dataclass(frozen=True)
class Database:
    """One client's database."""

    server: Server
    place: Place

    @property
    def away(self) -> Place:
        """The same where nobody listens."""
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            return replace(self.place, port=probe.getsockname()[1])

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask as the client's own tasks do."""
        return asked(self.place, statement)

    def rows(self, table: str = "flights") -> pl.DataFrame:
        """Give a table's rows as the curated table has them."""
        with session(self.place) as connection, connection.cursor() as cursor:
            cursor.execute("SET timezone = 'UTC'")
            cursor.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(SCHEMA, table)))
            names = [each.name for each in cursor.description or ()]
            found = pl.DataFrame(cursor.fetchall(), schema=names, orient="row")
        return found.sort("_batch_id", "_file", "_line")

    def markers(self) -> dict[str, tuple[int, str | None, dict[str, int], str | None]]:
        statement = f"SELECT batch_id, attempt, job_id, rows, retired_by FROM {SCHEMA}._batches"
        return {each[0]: each[1:] for each in self.ask(statement)}

    def on_rows(self, body: str, *, when: str = "AFTER") -> None:
        """Have the server do something at flights that arrive; ``when`` may be ``COMMIT``."""
        kind, each = ("", "STATEMENT")
        if when == "COMMIT":
            kind, each = ("CONSTRAINT", "ROW")
        table = f"{SCHEMA}.flights {'DEFERRABLE INITIALLY DEFERRED' if kind else ''}"
        self.server.ask(
            self.place.database,
            f"CREATE FUNCTION {SCHEMA}.happens() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER"
            f" AS $$ BEGIN {body}; RETURN NULL; END $$;"
            f" CREATE {kind} TRIGGER happens AFTER INSERT ON {table}"
            f" FOR EACH {each} EXECUTE FUNCTION {SCHEMA}.happens()",
        )

    def calm(self) -> None:
        """Take back what `on_rows` said."""
        self.server.ask(self.place.database, f"DROP FUNCTION {SCHEMA}.happens() CASCADE")


@contextmanager
def session(place: Place) -> Iterator[psycopg2.extensions.connection]:
    """Have a session in which each statement is a transaction of its own."""
    with closing(
        psycopg2.connect(
            host=place.host,
            port=place.port,
            dbname=place.database,
            user=place.user,
            password=place.password,
        )
    ) as connection:
        connection.autocommit = True
        yield connection


def asked(place: Place, statement: sql.Composable | str) -> list[tuple[Any, ...]]:
    with session(place) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def running(run_dir: Path) -> Iterator[Server]:
    """Start a server that has the template of clients' databases; it ends with the block."""
    server = Server(_free_port(), secrets.token_hex(12))
    with lone_postgres.running(run_dir, server.port, server.password, is_lending=True):
        yield server


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
