from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from deploy.local.postgres import Postgres
from gateway import web
from gateway.errors import GatewayError


def test_an_unknown_address_is_a_problem(client: TestClient) -> None:
    answer = client.get("/nowhere")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == "/problems/not-found"
    assert body["retryable"] is False
    assert body["request_id"] == answer.headers["x-request-id"]


def test_another_method_is_a_problem(client: TestClient) -> None:
    answer = client.patch("/v1/token")
    assert answer.status_code == 405
    assert answer.json()["type"] == "/problems/method-not-allowed"
    assert answer.headers["allow"] == "POST"


def test_every_problem_has_its_page(client: TestClient) -> None:
    for kind in web.kinds():
        answer = client.get(f"/problems/{kind.slug}")
        assert answer.status_code == 200, kind
        assert kind.slug in answer.text
    assert client.get("/problems/none-such").status_code == 404


def test_slugs_are_told_apart_by_status() -> None:
    by_slug: dict[str, set[int]] = {}
    problems = (each for each in web.kinds(GatewayError) if each.slug != "token-refused")
    for kind in problems:  # a token is refused in RFC 6749's form, which has codes of its own
        by_slug.setdefault(kind.slug, set()).add(kind.status)
    # tus has a status of its own for it.
    assert by_slug.pop("digest-mismatch") == {422, 460}
    assert {slug: found for slug, found in by_slug.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("X-Big", "x" * 33_000)], 431),
        ([(f"X-{n}", "1") for n in range(120)], 431),
        ([("Host", "a"), ("Host", "b")], 422),
        ([("Authorization", "Bearer a"), ("Authorization", "Bearer b")], 422),
    ],
)
def test_headers_have_bounds(
    client: TestClient, headers: list[tuple[str, str]], status: int
) -> None:
    answer = client.get("/healthz", headers=headers)
    assert answer.status_code == status
    assert answer.json()["status"] == status


def test_a_database_that_is_away_is_503_with_a_time_to_come_back(
    client: TestClient, bearer: Callable[[str], dict[str, str]], postgres_server: Postgres
) -> None:
    headers = bearer("auditor")
    engine = client.app.state.engine  # type: ignore[attr-defined]
    engine.dispose()
    bad = engine.url.set(port=9)
    client.app.state.sessions.configure(bind=_engine(bad))  # type: ignore[attr-defined]
    answer = client.get("/v1/admin/audit", headers=headers)
    assert answer.status_code == 503, answer.text
    assert answer.json()["type"] == "/problems/unavailable"
    assert answer.json()["retryable"] is True
    assert int(answer.headers["retry-after"]) >= 1


def _engine(url: object) -> object:
    from sqlalchemy import create_engine

    return create_engine(url, connect_args={"connect_timeout": 2})  # type: ignore[call-overload]
