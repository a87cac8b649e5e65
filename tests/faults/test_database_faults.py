"""A database that dies, drops its sessions, or whose answers are lost."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psycopg2
import pytest

from deploy.local.postgres import Postgres
from tests.fakes.proxy import Plan, running
from tests.faults.conftest import Check
from tests.faults.history import Client
from tests.nursery import Nursery
from tests.parts import GatewayServer, serve

CONTENT = b"id,note\n1,one\n"
MOST_COMMITS = 3


@pytest.fixture
def behind(
    nursery: Nursery, environment: dict[str, str], postgres_server: Postgres, tmp_path: Path
) -> Iterator[Callable[..., GatewayServer]]:
    """Return a function that starts a gateway which reaches Postgres by a proxy with plans."""
    with ExitStack() as opened:

        def started(*plans: Plan) -> GatewayServer:
            proxy = opened.enter_context(running([postgres_server.port], *plans))
            url = environment["GATEWAY_DATABASE_URL"]
            beside = {
                "GATEWAY_DATABASE_URL": url.replace(f":{postgres_server.port}/", f":{proxy.port}/"),
                "GATEWAY_DATABASE_POOL_SIZE": "4",
            }
            return serve(nursery, {**environment, **beside}, tmp_path)

        yield started


def test_a_commit_whose_answer_is_lost_is_asked_about_by_trying_again(
    acme: Client, behind: Callable[..., GatewayServer], check: Check
) -> None:
    statuses = []
    for skipped in range(MOST_COMMITS):
        lost = Plan("drop_answer", marker=b"COMMIT", skipped=skipped)
        server = behind(lost, lost, lost, lost)
        client = acme.at(server.url)
        batch = acme.batch(f"lost-{skipped}")
        statuses.append(client.put(batch, "a.csv", CONTENT).status_code)
        place = acme.create_upload(batch, "b.csv", CONTENT)
        statuses.append(client.patch(place, 0, CONTENT).status_code)
        statuses.append(client.seal(batch).status_code)
        acme.store(batch, "a.csv", CONTENT)
        acme.resume(place, batch, "b.csv", CONTENT)
        acme.seal(batch).raise_for_status()
        server.kill()
    assert 503 in statuses
    assert set(statuses) <= {200, 201, 202, 204, 409, 503}
    assert check() == []


def test_sessions_that_are_ended_under_load_cost_a_retry(
    acme: Client, environment: dict[str, str], postgres_server: Postgres, check: Check
) -> None:
    batch = acme.batch("ended")
    name = environment["GATEWAY_DATABASE_URL"].rsplit("/", 1)[1]
    connection = psycopg2.connect(postgres_server.superuser_url.replace("+psycopg2", ""))
    connection.autocommit = True
    is_over = threading.Event()

    def end_sessions() -> None:
        one = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND state <> 'idle' LIMIT 1"
        )
        while not is_over.is_set():
            with connection.cursor() as cursor:
                cursor.execute(one, [name])
            time.sleep(0.05)

    def store(number: int) -> None:
        deliver_persistently(acme, batch, f"{number}.csv")

    with ThreadPoolExecutor(5) as crowd:
        ending = crowd.submit(end_sessions)
        try:
            list(crowd.map(store, range(20)))
        finally:
            is_over.set()
        ending.result()
    connection.close()
    acme.seal(batch).raise_for_status()
    assert check() == []


def deliver_persistently(client: Client, batch: str, name: str, seconds: float = 60) -> None:
    content = os.urandom(1000)
    deadline = time.monotonic() + seconds
    while True:
        answer = client.put(batch, name, content)
        if answer.is_success:
            return
        assert answer.json()["retryable"], answer.text
        assert time.monotonic() < deadline
        time.sleep(0.1)
