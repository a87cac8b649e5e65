"""A loopback Airflow for each test, two clients' DAGs in it, and the gateway's parts before it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.bootstrap import Services
from tests import factories
from tests.dispatch.dispatching import Desk
from tests.fakes import airflow_server
from tests.fakes.airflow_server import AirflowServer, Dag


@pytest.fixture
def airflow() -> Iterator[AirflowServer]:
    """A loopback Airflow that knows the two clients' DAGs."""
    with airflow_server.running() as server:
        server.dags |= {"acme__flights": Dag(), "globex__weather": Dag()}
        yield server


@pytest.fixture
def environment(environment: dict[str, str], airflow: AirflowServer) -> dict[str, str]:
    """The test's environment with that Airflow in it, and little patience."""
    return environment | {
        "GATEWAY_AIRFLOW_URL": airflow.url,
        "GATEWAY_AIRFLOW_TIMEOUT_SECONDS": "0.5",
        "GATEWAY_WORKER_MAX_ATTEMPTS": "3",
        "GATEWAY_LOG_LEVEL": "error",
    }


@pytest.fixture
def desk(services: Services, airflow: AirflowServer) -> Desk:
    """The messenger at work for two clients."""
    factories.onboard_two(services.sessions)
    return Desk(services, airflow)
