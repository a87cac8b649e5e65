"""A gateway that lends what the session's Postgres and directory have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session, sessionmaker

from deploy.local.directory import Directory as DirectoryServer
from deploy.local.postgres import Postgres as PostgresServer
from gateway.bootstrap import Services
from gateway.leases.lending import Lending
from gateway.leases.resources.postgres import Postgres
from tests import factories
from tests.leases.asking import Desk


@pytest.fixture(scope="session")
def lessor_url(postgres_server: PostgresServer) -> str:
    """The session's Postgres, as the account that makes leases."""
    return postgres_server.provide_lessor("lessor")


@pytest.fixture
def environment(
    environment: dict[str, str], lessor_url: str, directory_server: DirectoryServer
) -> dict[str, str]:
    return environment | {
        "GATEWAY_LEASES_POSTGRES_URL": lessor_url,
        "GATEWAY_LEASES_DIRECTORY_BIND_DN": directory_server.lessor_dn,
        "GATEWAY_LEASES_DIRECTORY_BIND_PASSWORD": directory_server.lessor_password,
        "GATEWAY_LEASES_PER_TASK": "3",
        "GATEWAY_LEASES_PER_CLIENT": "6",
        "GATEWAY_LEASES_ATTEMPTS": "2",
    }


@pytest.fixture
def postgres(lessor_url: str) -> Postgres:
    return Postgres(lessor_url, "client_template")


@pytest.fixture
def desk(sessions: sessionmaker[Session], services: Services) -> Iterator[Desk]:
    """Two clients with a running job each, and what lends to their tasks."""
    factories.onboard_two(sessions)
    lending = Lending(services.settings.leases, sessions, services.resources)
    found = Desk(sessions, lending)
    yield found
    found.clear()
