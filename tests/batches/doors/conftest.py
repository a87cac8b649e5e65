"""Two clients, their headers, and a batch in each state."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from gateway.batches.model import Batch
from gateway.bootstrap import Services
from tests import factories
from tests.batches import making
from tests.batches.doors.asking import WANTED, Headers


@pytest.fixture(autouse=True)
def two_clients(sessions: sessionmaker[Session]) -> None:
    factories.onboard_two(sessions)


@pytest.fixture
def acme(bearer: Callable[[str], Headers]) -> Headers:
    return bearer("acme-uploader")


@pytest.fixture
def globex(bearer: Callable[[str], Headers]) -> Headers:
    return bearer("globex-uploader")


@pytest.fixture
def operator(bearer: Callable[[str], Headers]) -> Headers:
    return bearer("acme-operator")


@pytest.fixture
def opened(client: TestClient, acme: Headers) -> str:
    answer = client.post("/v1/batches", json=WANTED, headers=acme)
    assert answer.status_code == 201, answer.text
    identity: str = answer.json()["id"]
    return identity


@pytest.fixture
def filled(services: Services, opened: str) -> str:
    with services.sessions.begin() as session:
        batch = session.get_one(Batch, opened)
    making.landed(services, batch)
    return opened


@pytest.fixture
def sealed(client: TestClient, acme: Headers, filled: str) -> str:
    assert client.post(f"/v1/batches/{filled}/seal", headers=acme).status_code == 202
    return filled
