"""Whatever stands in an address, a query, a header or a body: a problem of 4xx, and no trace."""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from tests import factories
from tests.attacks import state

Bearer = Callable[[str], dict[str, str]]

# As they stand in an address, percent-encoded.
VALUES = [
    "%00",
    "a%00b",
    "%ff",
    "%ED%A0%80",
    "%F0%9F%98%80",
    "%e2%80%ae",
    "%0d%0aX:%20y",
    "x" * 3000,
    "%D9%A1",
    "-1",
    "1e400",
    "NaN",
    "infinity",
    "99999999999999999999999999",
    "%27%20or%201=1--",
    "*)(uid=*",
    "0001-01-01T00:00:00%2B23:59",
    "9999-12-31T23:59:59-23:59",
    "2026-01-01T00:00:00%2B23:59",
    "",
]
CURSORS = ["1:", "1:" + "9" * 64, "1:" + "_" * 64, "1:bat_" + "z" * 26, "1:\x00", "2:1", "\xff"]
PLACES = [
    "%00",
    "a%00",
    "%0a",
    "%2e%2e",
    "..%2f..%2fetc",
    "%252e%252e",
    "%5c",
    "%ff",
    "%ED%A0%80",
    "x" * 5000,
    "bat_%D9%A1" + "0" * 25,
    "%20",
]
# Reading the trail is itself written to it, and when what was never asked may be missing.
READ = ("audit_event", "audit_head")


def cursors() -> list[str]:
    return [base64.urlsafe_b64encode(each.encode()).decode().rstrip("=") for each in CURSORS]


def users(path: str) -> list[str]:
    return ["admin", "auditor"] if "/admin/" in path else ["acme-operator"]


def filled(path: str, batch: str, job: str) -> str:
    path = path.replace("{batch_id}", batch).replace("{name}", "a.csv").replace("{client}", "acme")
    path = path.replace("{lease_id}", job.replace("job", "lea"))
    return path.replace("{job_id}", job).replace("{id}", job)


def queries(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for path, operations in document["paths"].items():
        for each in operations.get("get", {}).get("parameters", []):
            if each["in"] == "query":
                yield path, each["name"]


def places(document: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for path, operations in document["paths"].items():
        # Which protocol is spoken is the same at every address.
        for method in operations.keys() - {"options"}:
            for name in re.findall(r"{\w+}", path):
                yield method.upper(), path, name


@pytest.fixture(autouse=True)
def onboarded(sessions: sessionmaker[Session]) -> None:
    factories.onboard_two(sessions)


@pytest.fixture
def ids(client: TestClient, bearer: Bearer) -> tuple[str, str]:
    """A sealed batch of one file, and its job."""
    headers = bearer("acme-operator")
    body = {"project": "flights", "reference": "r"}
    batch = client.post("/v1/batches", json=body, headers=headers).json()["id"]
    client.put(f"/v1/batches/{batch}/files/a.csv", content=b"id\n1\n", headers=headers)
    sealed = client.post(f"/v1/batches/{batch}/seal", headers=headers)
    return batch, sealed.json()["job"]["id"]


def check(answer: Any, tried: object) -> None:
    assert answer.status_code < 500, (tried, answer.text)
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json", tried
        is_told = answer.request.method != "HEAD"
        assert not is_told or answer.json()["status"] == answer.status_code
    else:
        assert answer.status_code == 200, (tried, answer.status_code)


def test_no_query_is_a_fault_of_ours(
    client: TestClient, bearer: Bearer, ids: tuple[str, str], sessions: sessionmaker[Session]
) -> None:
    given = {user: bearer(user) for user in ("admin", "auditor", "acme-operator")}
    before = state.rows(sessions, without=READ)
    found = list(queries(client.get("/openapi.json").json()))
    assert len(found) > 20
    needed = {"user": "acme-operator", "action": "admin"}
    for path, name in found:
        others = needed if path.endswith("/explain") else {}
        rest = "".join(f"&{key}={value}" for key, value in others.items() if key != name)
        for user in users(path):
            for value in VALUES + (cursors() if name == "cursor" else []):
                address = f"{filled(path, *ids)}?{name}={value}{rest}"
                check(client.get(address, headers=given[user]), (address, user))
    assert state.rows(sessions, without=READ) == before


@pytest.mark.parametrize("name", ["actor", "action", "client", "subject"])
def test_the_trail_is_not_searched_for_what_no_text_has(
    client: TestClient, bearer: Bearer, name: str
) -> None:
    answer = client.get(f"/v1/admin/audit?{name}=a%00b", headers=bearer("auditor"))
    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/invalid-request"


@pytest.mark.parametrize(
    ("query", "status", "shown"),
    [
        ("since=0001-01-01T00:00:00%2B00:01", 422, False),
        ("until=9999-12-31T23:59:59-00:01", 422, False),
        ("since=0001-01-01T00:00:00Z", 200, True),
        ("until=9999-12-31T23:59:59Z", 200, True),
        # An offset that the database would not take, and a moment without any.
        ("until=2000-01-01T00:00:00%2B23:59", 200, False),
        ("since=2000-01-01T00:00:00", 200, True),
    ],
)
def test_the_trail_is_searched_by_every_moment_there_is(
    client: TestClient, bearer: Bearer, query: str, status: int, *, shown: bool
) -> None:
    answer = client.get(f"/v1/admin/audit?{query}", headers=bearer("auditor"))
    assert answer.status_code == status, answer.text
    assert bool(answer.json().get("items")) is shown


def test_no_place_in_an_address_is_a_fault_of_ours(
    client: TestClient,
    bearer: Bearer,
    ids: tuple[str, str],
    sessions: sessionmaker[Session],
    environment: dict[str, str],
) -> None:
    given = {user: bearer(user) for user in ("admin", "auditor", "acme-operator")}
    before = state.rows(sessions), state.on_disk(environment)
    for method, path, name in places(client.get("/openapi.json").json()):
        for user in users(path):
            for value in PLACES:
                address = filled(path.replace(name, value), *ids)
                answer = client.request(
                    method, address, headers=given[user], follow_redirects=False
                )
                tried = (method, address, user)
                check(answer, tried)
                assert answer.status_code >= 400, tried
    assert (state.rows(sessions), state.on_disk(environment)) == before


@pytest.mark.parametrize(
    "path",
    ["/v1/batches/", "/v1/me/", "/healthz/", "/.well-known/jwks.json/", "/v1/batches/a%2f", "//v1"],
)
def test_no_address_leads_to_the_host_that_a_request_names(
    client: TestClient, bearer: Bearer, path: str
) -> None:
    headers = {**bearer("acme-uploader"), "Host": "elsewhere.example"}
    answer = client.get(path, headers=headers, follow_redirects=False)
    assert answer.status_code == 404
    assert answer.json()["type"] == "/problems/not-found"
    assert "location" not in answer.headers
    assert "elsewhere" not in answer.text + str(answer.headers)


FRAGMENTS = {
    "NaN": '"metadata": {"a": NaN}',
    "infinity": '"metadata": {"a": 1e400}',
    "long integer": '"metadata": {"a": %s}' % ("9" * 5000),
    "unsafe integer": '"metadata": {"a": 9007199254740993}',
    "duplicate key": '"mode": "load", "mode": "load"',
    "escaped duplicate key": '"mode": "load", "\\u006dode": "load"',
    "NUL": '"metadata": {"a": "\\u0000"}',
    "NUL in a key": '"metadata": {"\\u0000": 1}',
    "lone surrogate": '"metadata": {"a": "\\ud800"}',
    "deep object": '"metadata": ' + '{"a":' * 20_000 + "1" + "}" * 20_000,
    "deep array": '"metadata": {"a": %s}' % ("[" * 100_000),
    "another client": '"client": "globex"',
    "leap second": '"period": {"start": "2024-06-30T23:59:60Z", "end": "2024-07-01T00:00:00Z"}',
    "year 0": '"period": {"start": "0000-01-01", "end": "2024-01-01"}',
    "other digits": '"period": {"start": "\u0662\u0660\u0662\u0664-01-01", "end": "2024-01-01"}',
    "absurd offset": '"period": {"start": "2024-01-01T00:00:00+99:99", "end": "2024-01-01"}',
    "newline after an id": '"supersedes": "bat_%s\\n"' % ("0" * 26),
}


@pytest.mark.parametrize("kind", FRAGMENTS)
def test_a_hostile_body_opens_nothing(
    client: TestClient, bearer: Bearer, sessions: sessionmaker[Session], kind: str
) -> None:
    headers = {**bearer("acme-uploader"), "Content-Type": "application/json"}
    before = state.rows(sessions)
    body = '{"project": "flights", "reference": "r", ' + FRAGMENTS[kind] + "}"
    answer = client.post("/v1/batches", content=body.encode(), headers=headers)
    assert answer.status_code == 422, answer.text
    assert answer.json()["type"] == "/problems/invalid-request"
    assert state.rows(sessions) == before


def contract(**column: Any) -> dict[str, Any]:
    document = copy.deepcopy(factories.CONTRACT)
    document["schema"][0]["properties"][0] = {"name": "id", **column}
    return {"projects": {"flights": {"contract": document}}}


SPECS: dict[str, dict[str, Any]] = {
    "a pattern that repeats too much": contract(
        logicalType="string", logicalTypeOptions={"pattern": "a{99999999999999}"}
    ),
    "a pattern that nests too much": contract(
        logicalType="string", logicalTypeOptions={"pattern": "(" * 5000 + ")" * 5000}
    ),
    "no pattern": contract(logicalType="string", logicalTypeOptions={"pattern": "("}),
    "a huge integer": contract(logicalType="integer", logicalTypeOptions={"minimum": 10**400}),
    "an unsafe integer": contract(logicalType="string", logicalTypeOptions={"maxLength": 2**53}),
    "a huge tolerance": {
        "projects": {"flights": {"contract": factories.CONTRACT, "on_reject": {"max_rows": 10**40}}}
    },
    "a size in other digits": {"limits": {"file_bytes": "\u0661GiB"}},
    "a size beyond all": {"limits": {"file_bytes": 2**63}},
    "a retention beyond all": {
        "projects": {
            "flights": {"contract": factories.CONTRACT, "retention": {"landing": "999999d"}}
        }
    },
}


@pytest.mark.parametrize("kind", SPECS)
def test_an_impossible_client_changes_nothing(
    client: TestClient, bearer: Bearer, sessions: sessionmaker[Session], kind: str
) -> None:
    headers = bearer("admin")
    document = {
        "client": "acme",
        "name": "Other",
        "projects": {"flights": {"contract": factories.CONTRACT}},
        **SPECS[kind],
    }
    before = state.rows(sessions)
    answer = client.put("/v1/admin/clients/acme", json=document, headers=headers)
    assert answer.status_code == 422, answer.text
    body = answer.json()
    assert body["type"] == "/problems/invalid-request"
    assert all({"pointer", "detail"} <= each.keys() for each in body["errors"])
    assert state.rows(sessions) == before


@pytest.mark.parametrize("body", [[], None, "x", 1])
def test_a_client_that_is_no_object_is_refused_in_the_documented_form(
    client: TestClient, bearer: Bearer, body: Any
) -> None:
    headers = {**bearer("admin"), "Content-Type": "application/json"}
    answer = client.put("/v1/admin/clients/acme", content=json.dumps(body), headers=headers)
    assert answer.status_code == 422
    assert all({"pointer", "detail"} <= each.keys() for each in answer.json()["errors"])
