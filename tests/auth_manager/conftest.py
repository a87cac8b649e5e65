"""Environment, gateway fake, and one Airflow API server on a real database for the session."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
_FOLDER = tempfile.TemporaryDirectory(prefix="auth-manager-", ignore_cleanup_errors=True)
HOME = Path(_FOLDER.name)
PASSWORD = secrets.token_hex(12)
DATABASE_URL = os.environ.get("TEST_AIRFLOW_DATABASE_URL", "")
ISSUER = "https://gateway.example"
REGISTRY = HOME / "registry.json"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


PORT = _free_port()


# Airflow reads its settings when it is first imported.
ENVIRONMENT = {
    "AIRFLOW_HOME": str(HOME / "airflow-home"),
    "AIRFLOW__CORE__AUTH_MANAGER": "ingest.auth_manager.GatewayAuthManager",
    "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent / "dags"),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "airflow/plugins"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__CORE__FERNET_KEY": "",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": DATABASE_URL
    or f"postgresql+psycopg2://postgres:{PASSWORD}@127.0.0.1:{PORT}/postgres",
    # So that the configuration can be asked for, and refused to clients by us, not by Airflow.
    "AIRFLOW__API__EXPOSE_CONFIG": "True",
    "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
    "AIRFLOW__API__BASE_URL": "http://testserver",
    "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(HOME / "logs"),
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
    "AIRFLOW__SECRETS__BACKEND": "ingest.secrets_backend.ClientConnections",
    "INGEST_GATEWAY_ISSUER": ISSUER,
    "INGEST_REGISTRY_PATH": str(REGISTRY),
    "INGEST_SIGNON_SECRET_FILE": str(HOME / "signon.secret"),
}
os.environ.update(ENVIRONMENT)
sys.path.insert(0, str(ROOT / "airflow/plugins"))

from tests import lone_postgres
from tests.auth_manager import gateway_fake, signing

if TYPE_CHECKING:
    from tests.auth_manager.world import World


def pytest_configure(config: pytest.Config) -> None:
    """Let Airflow's own parts warn: it is not for these tests to mend them."""
    for package in ("airflow", "fastapi", "pathspec", "pydantic", "sqlalchemy", "starlette"):
        config.addinivalue_line("filterwarnings", f"default:::{package}.*")


@pytest.fixture
def gateway() -> Iterator[gateway_fake.Gateway]:
    """A gateway of the test's own."""
    with gateway_fake.Gateway() as running:
        yield running


@pytest.fixture(scope="session")
def metadata_database() -> Iterator[None]:
    """Airflow's database: the one named by the environment, or a private Postgres."""
    if DATABASE_URL:
        yield
        return
    with lone_postgres.running(HOME / "postgres", PORT, PASSWORD):
        yield


@pytest.fixture(scope="session")
def world(metadata_database: None) -> Iterator[World]:
    """Airflow's API server with two clients' DAGs, runs and secrets in its database."""
    from tests.auth_manager import world as worlds

    write_registry()
    (HOME / "signon.secret").write_text(gateway_fake.APPLICATION[1] + "\n")
    with gateway_fake.Gateway() as running:
        os.environ["INGEST_GATEWAY_URL"] = running.url
        with worlds.running(running, HOME) as world:
            yield world


@pytest.fixture
def accounts(world: World) -> Iterator[gateway_fake.Gateway]:
    """People in the directory, and a browser that has never been here."""
    signing.fresh(world)
    password = signing.PASSWORD
    world.gateway.accounts = {
        "acme-operator": gateway_fake.Account(password, {"sub": "acme-operator"}),
        "consultant": gateway_fake.Account(password, {"sub": "consultant"}, ("acme", "globex")),
        "admin": gateway_fake.Account(password, {"sub": "admin", "scope": "admin", "client": None}),
        "sender": gateway_fake.Account(password, {"sub": "sender", "scope": "batches:write"}),
    }
    yield world.gateway
    signing.fresh(world)


def write_registry() -> None:
    """Write the registry as onboarding does: one entry for each project."""
    projects = [
        _project("acme", "flights"),
        _project("acme", "hotels"),
        _project("globex", "orders"),
    ]
    fresh = REGISTRY.with_suffix(".new")
    fresh.write_text(json.dumps({"version": 1, "projects": projects}))
    fresh.replace(REGISTRY)


def _project(client: str, project: str) -> dict[str, object]:
    golden = json.loads((ROOT / "airflow/contract/registry.json").read_text())["projects"][0]
    names = {"client": client, "project": project, "client_name": client.title()}
    return {**golden, **names, "dag_id": f"{client}__{project}", "pool": f"client-{client}"}
