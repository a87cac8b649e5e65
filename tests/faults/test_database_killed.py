"""A Postgres that is killed while it commits, and comes back."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from deploy.local import postgres as local_postgres
from deploy.local.postgres import Postgres
from tests.faults.conftest import Check
from tests.faults.history import Client
from tests.parts import REPOSITORY, free_port

KILLS = 3


@dataclass
class Mortal:
    """A server with fsync, which may die and be brought back."""

    home: Path
    server: Postgres

    def die(self, number: signal.Signals) -> None:
        """End at once: SIGKILL is a crash, SIGQUIT what Postgres calls an immediate shutdown."""
        self.server.process.send_signal(number)
        self.server.kill()

    def come_back(self) -> None:
        self.server = local_postgres.start(self.home, self.server.port)


@pytest.fixture
def mortal(run_dir: Path) -> Iterator[Mortal]:
    home = run_dir / "mortal"
    found = Mortal(home, local_postgres.start(home, free_port()))
    yield found
    found.server.stop()


@pytest.fixture
def database_url(mortal: Mortal) -> str:
    """The database of this test's gateway lies on the server that dies."""
    url = mortal.server.create_database("mortal", "gateway", "gateway")
    engine = create_engine(url)
    config = Config(REPOSITORY / "alembic.ini")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()
    return url


def test_what_was_acknowledged_outlives_a_database_killed_while_it_commits(
    mortal: Mortal, acme: Client, check: Check
) -> None:
    batch = acme.batch("killed")
    is_over = threading.Event()
    refused = []

    def keep_storing(sender: int) -> None:
        number = 0
        while not is_over.is_set():
            content, name = os.urandom(500), f"{sender}-{number}.bin"
            while not is_stored(name, content):
                time.sleep(0.1)
            number += 1

    def is_stored(name: str, content: bytes) -> bool:
        answer: httpx.Response = acme.put(batch, name, content)
        if not answer.is_success:
            assert answer.json()["retryable"], answer.text
            refused.append(answer.status_code)
        return answer.is_success

    with ThreadPoolExecutor(4) as crowd:
        storing = [crowd.submit(keep_storing, sender) for sender in range(4)]
        try:
            for number in (signal.SIGKILL, signal.SIGQUIT, signal.SIGKILL)[:KILLS]:
                time.sleep(0.5)
                mortal.die(number)
                time.sleep(0.5)
                mortal.come_back()
        finally:
            is_over.set()
        for each in storing:
            each.result()
    assert set(refused) <= {503, 409}
    acme.seal(batch).raise_for_status()
    assert check() == []
