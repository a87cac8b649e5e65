"""A gateway in a process of its own, and what an Airflow of a client has of it: a connection."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
_FOLDER = tempfile.TemporaryDirectory(prefix="gw-prov-", ignore_cleanup_errors=True)
HOME = Path(_FOLDER.name)

# Airflow reads its settings when it is first imported.
ENVIRONMENT = {
    "AIRFLOW_HOME": str(HOME / "airflow"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(HOME / "dags"),
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg2://nobody@127.0.0.1:9/none",
    "XDG_STATE_HOME": str(HOME / "state"),
}
os.environ.update(ENVIRONMENT)


def pytest_configure(config: pytest.Config) -> None:
    """Let Airflow's own parts warn: it is not for these tests to mend them."""
    for package in ("airflow", "fastapi", "pathspec", "pydantic", "sqlalchemy", "starlette"):
        config.addinivalue_line("filterwarnings", f"default:::{package}.*")


@dataclass
class Gateway:
    """A running gateway, whose jobs end when told to."""

    url: str
    passwords: dict[str, str]
    process: subprocess.Popen[str]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def end(self, job: str, **how: Any) -> str:
        """End a job: with rows ``rejected``, or ``failed``."""
        with self.lock:
            assert self.process.stdin
            assert self.process.stdout
            self.process.stdin.write(json.dumps({"job": job, **how}) + "\n")
            self.process.stdin.flush()
            state: str = json.loads(self.process.stdout.readline())["state"]
            return state

    def connection(self, user: str = "acme-uploader", **fields: Any) -> str:
        """Return a connection as Airflow reads it from a variable."""
        given = {
            "conn_type": "ingestion_gateway",
            "host": self.url,
            "login": user,
            "password": self.passwords[user],
            **fields,
        }
        return json.dumps(given)


@pytest.fixture(scope="session")
def gateway() -> Iterator[Gateway]:
    """Start it, on a database and a directory of its own."""
    python = os.environ.get("TEST_GATEWAY_PYTHON", str(ROOT / ".run/gateway-env/bin/python"))
    folder = HOME / "gateway"
    folder.mkdir()
    with subprocess.Popen(
        [python, "-m", "tests.provider.gateway_process", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdin
        said = json.loads(process.stdout.readline())
        yield Gateway(said["url"], said["passwords"], process)
        process.stdin.close()


@pytest.fixture
def connected(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """The gateway, as the default connection's."""
    variable = "AIRFLOW_CONN_INGESTION_GATEWAY_DEFAULT"
    monkeypatch.setenv(variable, gateway.connection())
    return gateway
