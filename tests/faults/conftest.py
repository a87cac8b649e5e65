from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from deploy.local.directory import Directory as DirectoryServer
from gateway.bootstrap import Services
from gateway.uploads import sweep
from tests import factories
from tests.faults.history import Client, History
from tests.nursery import Nursery
from tests.parts import GatewayServer, serve

Findings = list[dict[str, Any]]
Check = Callable[..., Findings]


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    opened = History(tmp_path / "history.ndjson")
    yield opened
    opened.close()


@pytest.fixture
def steady(
    nursery: Nursery,
    environment: dict[str, str],
    sessions: sessionmaker[Session],
    tmp_path: Path,
) -> GatewayServer:
    """A server that nobody harms."""
    factories.onboard(sessions, "acme", ("flights",), open_batches=1000, uploads_in_flight=500)
    factories.onboard(sessions, "globex", ("weather",))
    return serve(nursery, environment, tmp_path)


@pytest.fixture
def acme(steady: GatewayServer, directory_server: DirectoryServer, history: History) -> Client:
    """Client A's own system, at the steady server."""
    password = directory_server.passwords["acme-uploader"]
    form = {"grant_type": "client_credentials"}
    answer = httpx.post(
        f"{steady.url}/v1/token", data=form, auth=("acme-uploader", password), verify=False
    )
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    return Client(steady.url, headers, history)


@pytest.fixture
def check(
    nursery: Nursery, environment: dict[str, str], history: History, services: Services
) -> Check:
    """Return a function that sweeps what was abandoned and asks the independent checker."""

    def run(*more: str) -> Findings:
        sweep.run(services.sessions, services.zone, max_age_seconds=0)
        root = Path(environment["GATEWAY_LANDING_ROOT"])
        return checked(nursery, history.path, root, environment["GATEWAY_DATABASE_URL"], *more)

    return run


def checked(nursery: Nursery, history: Path, landing: Path, database: str, *more: str) -> Findings:
    """Run the checker as the program that it is."""
    argv = ["--history", str(history), "--landing", str(landing), "--database", database, *more]
    done = nursery.run(argv, {}, program="tests.faults.checker")
    assert done.returncode in {0, 1}, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert bool(found) == (done.returncode == 1), done.stderr
    return found


def watching_token() -> str:
    """Return a token that the Airflow fake takes for one that may look at runs."""
    claims = {"aud": "airflow", "exp": time.time() + 600, "scope": "dags:watch"}
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
    return f"x.{payload}.x"
