from __future__ import annotations

from collections.abc import Iterator

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect

from deploy.local.postgres import Postgres
from tests.parts import REPOSITORY


@pytest.fixture
def empty(postgres_server: Postgres) -> Iterator[Connection]:
    url = postgres_server.create_database("migrations", "gateway", "gateway")
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
        connection.commit()
        yield connection
    engine.dispose()


def alembic(connection: Connection) -> Config:
    config = Config(REPOSITORY / "alembic.ini")
    config.attributes["connection"] = connection
    return config


def test_every_step_goes_up_down_and_up_again(empty: Connection) -> None:
    config = alembic(empty)
    revisions = [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()]
    for revision in reversed(revisions):
        command.upgrade(config, revision)
        command.downgrade(config, "-1")
        command.upgrade(config, revision)
    command.downgrade(config, "base")
    assert inspect(empty).get_table_names() == ["alembic_version"]
    command.upgrade(config, "head")


def test_the_tables_are_those_of_the_models(empty: Connection) -> None:
    config = alembic(empty)
    command.upgrade(config, "head")
    command.check(config)


def test_contracts_that_are_in_force_are_kept(empty: Connection) -> None:
    config = alembic(empty)
    command.upgrade(config, "0009")
    empty.exec_driver_sql(
        "INSERT INTO client (name, title, state, limits, spec) VALUES ('a', 'A', 'active', '{}', '{}')"
    )
    for name in ("one", "two"):
        empty.exec_driver_sql(
            "INSERT INTO project (client, name, state, contract, contract_sha256, on_reject, "
            "retention, engine, load) VALUES "
            "('a', %(name)s, 'active', '{\"id\": 1}', 'd1', '{}', '{}', 'local', '{}')",
            {"name": name},
        )
    empty.commit()
    command.upgrade(config, "0010")
    kept = empty.exec_driver_sql("SELECT sha256, document FROM contract_version").all()
    assert [tuple(each) for each in kept] == [("d1", {"id": 1})]
