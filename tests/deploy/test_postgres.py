from __future__ import annotations

import os
from pathlib import Path

import psycopg2
import pytest

from deploy.local import postgres
from deploy.local.postgres import Postgres
from deploy.local.programs import StackError
from tests.parts import free_port


def connect(url: str) -> psycopg2.extensions.connection:
    return psycopg2.connect(url.replace("+psycopg2", ""))


def test_database_belongs_to_its_owner_alone(postgres_server: Postgres) -> None:
    ours = postgres_server.create_database("deploy_ours", "deploy_us", "p@ss/word")
    postgres_server.create_database("deploy_theirs", "deploy_them", "secret")
    connect(ours).close()
    theirs = postgres.url("deploy_us", "p@ss/word", postgres_server.port, "deploy_theirs")
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        connect(theirs)


def test_creating_a_database_again_sets_the_password(postgres_server: Postgres) -> None:
    old = postgres_server.create_database("deploy_again", "deploy_again", "old")
    new = postgres_server.create_database("deploy_again", "deploy_again", "new")
    connect(new).close()
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        connect(old)


def test_database_begins_as_a_copy_of_its_template_and_can_be_dropped(
    postgres_server: Postgres,
) -> None:
    source = connect(postgres_server.create_database("deploy_first", "deploy_first", "secret"))
    source.cursor().execute("CREATE TABLE kept AS SELECT 42 AS number")
    source.commit()
    source.close()
    for _ in range(2):
        url = postgres_server.create_database(
            "deploy_copy", "deploy_first", "secret", template="deploy_first"
        )
        copy = connect(url)
        copy.cursor().execute("DROP TABLE kept")
        copy.commit()
        copy.close()
        postgres_server.drop_database("deploy_copy")
    with pytest.raises(psycopg2.OperationalError, match="does not exist"):
        connect(url)


def test_wrong_password_of_the_superuser_is_refused(postgres_server: Postgres) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        connect(postgres.url("postgres", "guess", postgres_server.port, "postgres"))


def test_killed_server_comes_back_with_what_was_committed(tmp_path: Path) -> None:
    first = postgres.start(tmp_path, free_port())
    connection = connect(first.superuser_url)
    connection.cursor().execute("CREATE TABLE kept AS SELECT 42 AS number")
    connection.commit()
    first.kill()
    connection.close()
    with postgres.start(tmp_path, free_port()) as second:
        again = connect(second.superuser_url)
        cursor = again.cursor()
        cursor.execute("SELECT number FROM kept")
        assert cursor.fetchone() == (42,)
        again.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts it as another user")
def test_root_runs_the_server_as_a_user_of_its_own(postgres_server: Postgres) -> None:
    assert Path(f"/proc/{postgres_server.process.pid}").stat().st_uid != 0


def test_taken_port_is_named(postgres_server: Postgres, tmp_path: Path) -> None:
    with pytest.raises(StackError, match=f"port {postgres_server.port} is taken"):
        postgres.start(tmp_path, postgres_server.port)
