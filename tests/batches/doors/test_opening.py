"""What may be asked beforehand, and opening a batch."""

from __future__ import annotations

from datetime import datetime

import pytest
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from tests import factories
from tests.batches.doors.asking import WANTED, Headers, slug


def test_anybody_may_ask_what_the_gateway_can_do(client: TestClient) -> None:
    found = client.get("/v1").json()
    assert found["uploads"] == ["put", "multipart", "tus"]
    assert found["digests"] == ["sha-256"]
    assert datetime.fromisoformat(found["time"]).tzinfo is not None
    assert found["limits"]["json_body_bytes"] == 1024**2


def test_a_caller_sees_the_projects_of_its_own_client(
    client: TestClient, acme: Headers, globex: Headers
) -> None:
    [flights] = client.get("/v1/projects", headers=acme).json()["items"]
    assert flights["name"] == "flights"
    assert flights["contract"]["kind"] == "DataContract"
    assert flights["limits"]["open_batches"] == 20
    [weather] = client.get("/v1/projects", headers=globex).json()["items"]
    assert weather["name"] == "weather"


def test_a_new_batch_has_its_address(client: TestClient, acme: Headers) -> None:
    answer = client.post("/v1/batches", json=WANTED, headers=acme)
    found = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/batches/{found['id']}"
    assert (found["state"], found["files"], found["jobs"]) == ("open", [], [])
    shown = client.get(answer.headers["location"], headers=acme).json()
    assert shown == found


def test_a_second_live_batch_answers_with_the_address_of_the_first(
    client: TestClient, acme: Headers, opened: str
) -> None:
    answer = client.post("/v1/batches", json=WANTED, headers=acme)
    assert (answer.status_code, slug(answer)) == (409, "batch-exists")
    assert answer.headers["location"] == f"/v1/batches/{opened}"


def test_a_repeated_request_with_its_key_gets_the_same_bytes(
    client: TestClient, acme: Headers
) -> None:
    headers = {**acme, "Idempotency-Key": "k-1"}
    first, second = (client.post("/v1/batches", json=WANTED, headers=headers) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.content == second.content
    assert first.headers["location"] == second.headers["location"]


def test_a_key_with_another_body_is_refused(client: TestClient, acme: Headers) -> None:
    headers = {**acme, "Idempotency-Key": "k-1"}
    client.post("/v1/batches", json=WANTED, headers=headers)
    answer = client.post("/v1/batches", json={**WANTED, "mode": "validate"}, headers=headers)
    assert (answer.status_code, slug(answer)) == (422, "idempotency-key-reused")


def test_another_accounts_key_is_not_ones_own(
    client: TestClient, acme: Headers, globex: Headers
) -> None:
    client.post("/v1/batches", json=WANTED, headers={**acme, "Idempotency-Key": "k-1"})
    body = {"project": "weather", "reference": "2013"}
    answer = client.post("/v1/batches", json=body, headers={**globex, "Idempotency-Key": "k-1"})
    assert answer.status_code == 201


def test_one_key_too_many_open_batches_is_a_quota(
    client: TestClient, sessions: sessionmaker[Session], acme: Headers, opened: str
) -> None:
    factories.onboard(sessions, "acme", ("flights",), open_batches=1)
    answer = client.post("/v1/batches", json={**WANTED, "reference": "2"}, headers=acme)
    assert (answer.status_code, slug(answer)) == (429, "quota-exceeded")
    assert "retry-after" in answer.headers


def test_a_project_may_have_a_quota_of_open_batches_of_its_own(
    client: TestClient, sessions: sessionmaker[Session], acme: Headers, opened: str
) -> None:
    factories.onboard(sessions, "acme", ("flights", "crews"), {"open_batches": 1})
    second = {**WANTED, "reference": "2"}
    answer = client.post("/v1/batches", json=second, headers=acme)
    assert (answer.status_code, slug(answer)) == (429, "quota-exceeded")
    assert "of this project" in answer.json()["detail"]
    other = client.post("/v1/batches", json={**second, "project": "crews"}, headers=acme)
    assert other.status_code == 201, "what one project has is not another's"
    assert client.delete(f"/v1/batches/{opened}", headers=acme).status_code == 204
    assert client.post("/v1/batches", json=second, headers=acme).status_code == 201


def test_projects_show_the_limits_in_force(
    client: TestClient, sessions: sessionmaker[Session], acme: Headers
) -> None:
    limits = {"bytes_per_day": 1000, "file_bytes": 500, "requests_per_second": 50}
    factories.onboard(sessions, "acme", ("flights",), {"bytes_per_day": 700}, **limits)
    (shown,) = client.get("/v1/projects", headers=acme).json()["items"]
    assert shown["limits"] == {
        "file_bytes": 500,
        "batch_bytes": 500 * 1024**3,
        "files_per_batch": 10_000,
        "open_batches": 20,
        "uploads_in_flight": 16,
        "requests_per_second": 50,
        "bytes_per_day": 700,
    }


@pytest.mark.parametrize(
    ("content", "media", "status"),
    [
        (b"{", "application/json", 422),
        (b'{"project":"flights","reference":"x","x":1}', "application/json", 422),
        (b'{"project":"flights","reference":"a","reference":"b"}', "application/json", 422),
        (b'{"project":"flights","reference":"a\\u0000"}', "application/json", 422),
        (b'{"project":"flights","reference":"a\\ud800"}', "application/json", 422),
        (b'{"project":"flights","reference":"a","metadata":{"x":NaN}}', "application/json", 422),
        (b'{"project":"flights","reference":"a","metadata":{"x":1e999}}', "application/json", 422),
        (b'{"project":"nowhere","reference":"a"}', "application/json", 422),
        (b"[]", "application/json", 422),
        (b"", "application/json", 422),
        (b"project=flights", "application/x-www-form-urlencoded", 415),
        (b" " * (1024**2 + 1), "application/json", 413),
    ],
)
def test_a_body_of_another_shape_is_refused_and_opens_nothing(
    client: TestClient, acme: Headers, content: bytes, media: str, status: int
) -> None:
    headers = {**acme, "Content-Type": media}
    answer = client.post("/v1/batches", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    slug(answer)
    assert client.get("/v1/batches", headers=acme).json() == {"items": [], "next": None}
