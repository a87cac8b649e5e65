"""Leases of a real Postgres: whose they are, what they cannot do, and how they end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
from psycopg2 import errors

from deploy.local.postgres import Postgres as PostgresServer
from gateway.leases.resources.driver import Connection, Purpose, ResourceUnavailableError
from gateway.leases.resources.postgres import Postgres, place_of
from tests.leases.asking import asked, connected, purpose
from tests.parts import free_port


@pytest.fixture
def acme() -> Purpose:
    return purpose("acme")


@pytest.fixture
def lease(postgres: Postgres, acme: Purpose) -> Iterator[Connection]:
    yield postgres.issue(acme, 60)
    postgres.revoke(postgres.handle(acme))


def as_superuser(server: PostgresServer, statement: str) -> object:
    connection = psycopg2.connect(server.superuser_url.replace("+psycopg2", ""))
    connection.autocommit = True
    try:
        return asked(connection, statement)
    finally:
        connection.close()


def test_what_a_task_makes_is_its_clients_and_outlives_the_lease(
    postgres: Postgres, lease: Connection, acme: Purpose
) -> None:
    task = connected(lease)
    asked(task, "DROP SCHEMA IF EXISTS staging CASCADE")
    asked(task, "CREATE SCHEMA staging")
    asked(task, "CREATE TABLE staging.flights AS SELECT 1 AS flight")
    # As itself it can make things too, and they stay all the same.
    asked(task, "SET ROLE NONE; CREATE TABLE public.mine_" + acme.lease[-6:] + " (n int)")
    task.close()
    postgres.revoke(postgres.handle(acme))
    second = purpose("acme")
    later = connected(postgres.issue(second, 60))
    assert asked(later, "SELECT flight FROM staging.flights") == [(1,)]
    asked(later, "DROP TABLE public.mine_" + acme.lease[-6:])
    later.close()
    postgres.revoke(postgres.handle(second))


def test_a_lease_does_not_come_into_another_clients_database(
    postgres: Postgres, lease: Connection
) -> None:
    other = purpose("globex")
    theirs = postgres.issue(other, 60)
    connected(theirs).close()
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        connected(lease, dbname=theirs.schema)
    for database in ("postgres", "template1", "client_template"):
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            connected(lease, dbname=database)
    task = connected(lease)
    for name in (theirs.login, place_of("globex"), "gateway_lessor", "postgres"):
        with pytest.raises(errors.InsufficientPrivilege):
            asked(task, f"SET ROLE {name}")
    asked(task, f"SET ROLE {place_of('acme')}")
    task.close()
    postgres.revoke(postgres.handle(other))


def test_a_lease_does_not_see_who_else_is_there(postgres: Postgres, lease: Connection) -> None:
    task = connected(lease)
    assert asked(task, "SELECT current_database()") == [(place_of("acme"),)]
    for catalogue in ("pg_roles", "pg_user", "pg_database", "pg_stat_activity", "pg_group"):
        with pytest.raises(errors.InsufficientPrivilege):
            asked(task, f"SELECT * FROM {catalogue}")
    assert asked(task, "SELECT nspname FROM pg_namespace WHERE nspname LIKE '%globex%'") == []
    assert "globex" not in place_of("globex")
    task.close()


@pytest.mark.parametrize(
    "wish", ["VALID UNTIL 'infinity'", "CONNECTION LIMIT 100", "CREATEROLE", "SUPERUSER"]
)
def test_a_lease_cannot_extend_itself(
    postgres: Postgres, lease: Connection, acme: Purpose, wish: str
) -> None:
    task = connected(lease)
    for role in ("", "SET ROLE NONE; "):
        with pytest.raises(errors.InsufficientPrivilege):
            asked(task, f"{role}ALTER ROLE {lease.login} {wish}")
    task.close()
    postgres.renew(postgres.handle(acme), 90)


def test_after_its_time_nobody_signs_in_and_revoking_ends_who_is_there(
    postgres: Postgres, postgres_server: PostgresServer
) -> None:
    short = purpose("acme")
    lease = postgres.issue(short, 1)
    task = connected(lease)
    asked(task, "BEGIN; CREATE TABLE never (n int)")
    time.sleep(1.1)
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        connected(lease)
    assert asked(task, "SELECT 1") == [(1,)], "expiry alone ends no session"
    postgres.revoke(postgres.handle(short))
    with pytest.raises(psycopg2.Error):
        asked(task, "SELECT 1")
    roles = "SELECT rolname FROM pg_roles WHERE rolname = '{}'"
    assert as_superuser(postgres_server, roles.format(short.lease)) == []
    postgres.revoke(postgres.handle(short))


def test_a_renewed_lease_takes_sign_ins_for_longer(postgres: Postgres) -> None:
    short = purpose("acme")
    lease = postgres.issue(short, 1)
    postgres.renew(postgres.handle(short), 60)
    time.sleep(1.1)
    connected(lease).close()
    postgres.revoke(postgres.handle(short))
    with pytest.raises(ResourceUnavailableError):
        postgres.renew(postgres.handle(short), 60)


def test_a_new_clients_database_is_made_once_by_many_at_once_and_after_a_crash(
    postgres: Postgres, postgres_server: PostgresServer
) -> None:
    place = place_of("fresh")
    as_superuser(postgres_server, f"CREATE ROLE {place}")
    as_superuser(postgres_server, f"GRANT {place} TO gateway_lessor WITH ADMIN TRUE")
    wanted = [purpose("fresh") for _ in range(6)]
    with ThreadPoolExecutor(6) as crowd:
        leases = list(crowd.map(lambda each: postgres.issue(each, 60), wanted))
    for lease in leases:
        connected(lease).close()
    assert {each.lease for each in wanted} <= set(postgres.held())
    for each in wanted:
        postgres.revoke(postgres.handle(each))
    assert not {each.lease for each in wanted} & set(postgres.held())


def test_a_lease_has_so_many_connections_and_no_more(lease: Connection) -> None:
    held = [connected(lease) for _ in range(5)]
    with pytest.raises(psycopg2.OperationalError, match="too many connections for role"):
        connected(lease)
    for each in held:
        each.close()


def test_the_password_is_not_in_what_the_server_is_told(
    postgres: Postgres, postgres_server: PostgresServer, lease: Connection
) -> None:
    shown = as_superuser(
        postgres_server, f"SELECT rolpassword FROM pg_authid WHERE rolname = '{lease.login}'"
    )
    assert str(shown).count("SCRAM-SHA-256$") == 1
    assert str(lease.password) not in repr(lease)


def test_a_server_that_is_away_is_unavailable_soon() -> None:
    away = Postgres(f"postgresql://lessor:x@127.0.0.1:{free_port()}/postgres", "client_template")
    began = time.monotonic()
    with pytest.raises(ResourceUnavailableError, match="not available") as caught:
        away.issue(purpose("acme"), 60)
    assert time.monotonic() - began < 6
    assert caught.value.kind.startswith("OperationalError")
