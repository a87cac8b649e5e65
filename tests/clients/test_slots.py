"""N in parallel with k slots, at real servers: exactly k get one."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from deploy.local.directory import Directory as DirectoryServer
from gateway.batches import ledger
from tests import factories
from tests.nursery import Nursery
from tests.parts import GatewayServer, serve
from tests.uploads.sending import Line, signed_in, slug

CROWD = 40


@pytest.fixture(params=[1, 2])
def serving(
    request: pytest.FixtureRequest,
    nursery: Nursery,
    environment: dict[str, str],
    tmp_path: Path,
) -> Iterator[GatewayServer]:
    """A real server of one process, or of two behind one port."""
    workers = {"GATEWAY_SERVER_WORKERS": str(request.param)}
    started = serve(nursery, {**environment, **workers}, tmp_path)
    yield started
    started.stop()


Ask = Callable[..., list[tuple[int, dict[str, Any], Any]]]


@pytest.fixture
def ask(serving: GatewayServer, directory_server: DirectoryServer) -> Ask:
    """Return a function that has client A ask many things at once, each on its own connection."""

    def asked(
        method: str, path: str, bodies: list[dict[str, Any] | None]
    ) -> list[tuple[int, dict[str, Any], Any]]:
        password = directory_server.passwords["acme-uploader"]
        headers = signed_in(serving, "acme-uploader", password)
        gate = Barrier(len(bodies))

        def one(body: dict[str, Any] | None) -> tuple[int, dict[str, Any], Any]:
            line = Line(serving.port, {})
            line.connection.connect()
            content = None if body is None else json.dumps(body)
            gate.wait()
            line.connection.request(
                method, path, content, {**headers, "Content-Type": "application/json"}
            )
            status, found, answer = line.answer()
            return status, answer, found

        with ThreadPoolExecutor(len(bodies)) as crowd:
            return list(crowd.map(one, bodies))

    return asked


def tally(answers: list[tuple[int, dict[str, Any], Any]]) -> Counter[str]:
    return Counter(
        str(status) if status < 400 else body["type"].removeprefix("/problems/")
        for status, body, _ in answers
    )


@pytest.mark.parametrize("limit", [5, 30])
def test_parallel_requests_get_exactly_the_rate(
    sessions: sessionmaker[Session], ask: Ask, limit: int
) -> None:
    factories.onboard(sessions, "acme", ("flights",))
    ask("GET", "/v1/me", [None] * 8)  # the directory is asked, connections are made
    factories.onboard(sessions, "acme", ("flights",), requests_per_second=limit)
    for _ in range(10):
        time.sleep(1.1)
        begun = time.monotonic()
        answers = ask("GET", "/v1/me", [None] * CROWD)
        found = tally(answers)
        if time.monotonic() - begun < 1:
            break
        assert found["200"] >= limit
    else:
        pytest.fail("this machine is too slow today")
    assert found == {"200": limit, "rate-limited": CROWD - limit}
    for status, body, headers in answers:
        if status == 429:
            assert body["retryable"] is True
            assert headers["Retry-After"] == "1"


def test_parallel_openings_get_exactly_the_clients_slots(
    sessions: sessionmaker[Session], ask: Ask
) -> None:
    projects = ("flights", "crews")
    factories.onboard(sessions, "acme", projects, open_batches=7)
    wanted = [{"project": projects[n % 2], "reference": f"r{n}"} for n in range(20)]
    assert tally(ask("POST", "/v1/batches", wanted)) == {"201": 7, "quota-exceeded": 13}
    with sessions.begin() as session:
        assert len(ledger.page(session, "acme", state="open")[0]) == 7


def test_parallel_openings_get_exactly_the_projects_slots(
    sessions: sessionmaker[Session], ask: Ask
) -> None:
    projects = ("flights", "crews")
    factories.onboard(sessions, "acme", projects, {"open_batches": 3}, open_batches=7)
    wanted = [{"project": projects[n % 2], "reference": f"r{n}"} for n in range(20)]
    assert tally(ask("POST", "/v1/batches", wanted)) == {"201": 6, "quota-exceeded": 14}
    with sessions.begin() as session:
        for project in projects:
            found, _ = ledger.page(session, "acme", project=project, state="open")
            assert len(found) == 3


def test_a_refused_upload_is_not_read(
    sessions: sessionmaker[Session], server: GatewayServer, directory_server: DirectoryServer
) -> None:
    factories.onboard(sessions, "acme", ("flights",), requests_per_second=1)
    headers = signed_in(server, "acme-uploader", directory_server.passwords["acme-uploader"])
    path = "/v1/batches/bat_00000000000000000000000000/files/a"
    for _ in range(10):
        httpx.get(f"{server.url}/v1/me", headers=headers, verify=False)
        upload = Line(server.port, headers).begin("PUT", path, Content_Length="1000000")
        status, found, problem = upload.answer()
        if status == 429:
            break
    assert problem["type"] == "/problems/rate-limited"
    assert found["connection"] == "close"


def test_accounts_without_a_client_are_not_counted(
    client: TestClient, sessions: sessionmaker[Session], bearer: Callable[[str], dict[str, str]]
) -> None:
    factories.onboard(sessions, "acme", ("flights",), requests_per_second=1)
    admin, acme = bearer("admin"), bearer("acme-uploader")
    assert {client.get("/v1/me", headers=admin).status_code for _ in range(5)} == {200}
    answers = [client.get("/v1/me", headers=acme) for _ in range(20)]
    refused = [each for each in answers if each.status_code == 429]
    assert slug(refused[0]) == "rate-limited"
    assert client.get("/v1/me", headers=admin).status_code == 200


def test_signing_in_is_not_counted(
    client: TestClient, sessions: sessionmaker[Session], token: Callable[[str], str]
) -> None:
    factories.onboard(sessions, "acme", ("flights",), requests_per_second=1)
    assert len({token("acme-uploader") for _ in range(5)}) == 5


def test_every_door_that_wants_a_token_documents_the_refusal(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    closed = [
        (operation, f"{method} {path}")
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if operation.get("security")
    ]
    assert len(closed) > 20
    silent = [
        name
        for operation, name in closed
        if "rate-limited" not in operation["responses"].get("429", {}).get("description", "")
    ]
    assert silent == []
