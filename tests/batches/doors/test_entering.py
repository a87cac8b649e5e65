"""Who is let in at the doors of batches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from tests.batches.doors.asking import NOWHERE, WANTED, Headers, slug

DOORS = [
    ("GET", "/v1/projects"),
    ("POST", "/v1/batches"),
    ("GET", "/v1/batches"),
    ("GET", "/v1/batches/{id}"),
    ("DELETE", "/v1/batches/{id}"),
    ("POST", "/v1/batches/{id}/seal"),
    ("GET", "/v1/batches/{id}/manifest"),
    ("GET", "/v1/batches/{id}/receipt"),
    ("GET", "/v1/batches/{id}/jobs"),
    ("POST", "/v1/batches/{id}/replays"),
]
OF_ONE = [(method, path) for method, path in DOORS if "{id}" in path]
WRITES = [(method, path) for method, path in DOORS if method != "GET"]
BODIES = {"/v1/batches": WANTED, "/v1/batches/{id}/replays": {"reason": "again"}}


@pytest.mark.parametrize(("method", "path"), DOORS)
def test_nobody_enters_without_a_token(client: TestClient, method: str, path: str) -> None:
    answer = client.request(method, path.format(id=NOWHERE), content=b"{")
    assert (answer.status_code, slug(answer)) == (401, "not-authenticated")


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_viewer_changes_nothing(
    client: TestClient, bearer: Callable[[str], Headers], filled: str, method: str, path: str
) -> None:
    headers = bearer("acme-viewer")
    answer = client.request(method, path.format(id=filled), json=BODIES.get(path), headers=headers)
    assert (answer.status_code, slug(answer)) == (403, "forbidden")
    assert client.get(f"/v1/batches/{filled}", headers=headers).json()["state"] == "open"


@pytest.mark.parametrize(("method", "path"), DOORS)
def test_the_platforms_people_have_no_batches(
    client: TestClient, bearer: Callable[[str], Headers], method: str, path: str
) -> None:
    headers = bearer("admin")
    answer = client.request(method, path.format(id=NOWHERE), json=BODIES.get(path), headers=headers)
    assert (answer.status_code, slug(answer)) == (403, "forbidden")


@pytest.mark.parametrize(("method", "path"), OF_ONE)
def test_another_clients_batch_answers_exactly_as_none(
    client: TestClient,
    bearer: Callable[[str], Headers],
    sealed: str,
    method: str,
    path: str,
) -> None:
    headers = bearer("globex-operator")
    answers = [
        client.request(method, path.format(id=each), json=BODIES.get(path), headers=headers)
        for each in (sealed, NOWHERE, "bat_x")
    ]
    bodies = [{**each.json(), "request_id": ""} for each in answers]
    assert [each.status_code for each in answers] == [404, 404, 404]
    assert bodies[0] == bodies[1] == bodies[2]
    names = [{name for name, _ in each.headers.items()} for each in answers]
    assert names[0] == names[1] == names[2]
