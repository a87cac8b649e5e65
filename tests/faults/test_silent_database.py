"""A Postgres that is there and says nothing: its host acknowledges every byte, nobody answers."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import create_engine, text

from deploy.local.postgres import Postgres
from gateway import database, settings
from tests.nursery import Nursery
from tests.parts import GatewayServer, serve

LIMIT_SECONDS = 1.0


@contextmanager
def silent(server: Postgres) -> Iterator[None]:
    """Stop every process of a server, for as long as the block lasts."""
    postmaster = psutil.Process(server.process.pid)
    family = [postmaster, *postmaster.children(recursive=True)]
    for each in family:
        each.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for each in family:
            each.send_signal(signal.SIGCONT)


@pytest.fixture
def hasty(nursery: Nursery, environment: dict[str, str], tmp_path: Path) -> GatewayServer:
    """A gateway whose statements may take a second."""
    limit = {"GATEWAY_DATABASE_STATEMENT_TIMEOUT_SECONDS": str(LIMIT_SECONDS)}
    return serve(nursery, environment | limit, tmp_path)


def test_no_request_hangs_while_the_database_is_silent_and_all_is_well_after_it(
    hasty: GatewayServer, bearer: Callable[[str], dict[str, str]], postgres_server: Postgres
) -> None:
    patience = LIMIT_SECONDS + database.GRACE_SECONDS + database.CONNECT_SECONDS + 5

    def look(_: int) -> tuple[httpx.Response, float]:
        began = time.monotonic()
        answer = httpx.get(f"{hasty.url}/v1/admin/audit", headers=headers, timeout=60, verify=False)
        return answer, time.monotonic() - began

    headers = bearer("auditor")
    assert look(0)[0].status_code == 200
    with ThreadPoolExecutor(15) as crowd:
        with silent(postgres_server):
            for answer, seconds in crowd.map(look, range(15)):
                assert seconds < patience
                assert answer.status_code == 503, answer.text
                assert answer.json()["type"] == "/problems/unavailable"
                assert int(answer.headers["retry-after"]) >= 1
        assert {answer.status_code for answer, _ in crowd.map(look, range(15))} == {200}


def test_a_statement_may_take_as_long_as_it_was_given(config: settings.Settings) -> None:
    hasty = config.database.model_copy(update={"statement_timeout_seconds": LIMIT_SECONDS})
    engine = database.connect(hasty, statement_seconds=60)
    with engine.connect() as connection:
        longer = LIMIT_SECONDS + database.GRACE_SECONDS + 0.5
        connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": longer})
    engine.dispose()


def test_a_server_that_takes_connections_and_says_nothing_is_not_waited_for(
    config: settings.Settings, postgres_server: Postgres
) -> None:
    engine = database.connect(config.database)
    bare = create_engine(engine.url)
    began = time.monotonic()
    with silent(postgres_server), pytest.raises(Exception, match="does not answer"):
        bare.connect()
    assert time.monotonic() - began < database.CONNECT_SECONDS + 1
    engine.dispose()


def test_a_transaction_that_rests_for_too_long_gives_its_locks_back(
    config: settings.Settings,
) -> None:
    hasty = config.database.model_copy(update={"statement_timeout_seconds": 0.5})
    engine = database.connect(hasty)
    resting, other = engine.connect(), engine.connect()
    resting.execute(text("SELECT FROM audit_head FOR UPDATE"))
    time.sleep(database.IDLE_FACTOR * 0.5 + 0.5)
    other.execute(text("SELECT FROM audit_head FOR UPDATE"))
    other.close()
    resting.invalidate()
    resting.close()
    engine.dispose()
