from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import KeySet
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from gateway.batches import ledger
from gateway.batches.model import Batch
from gateway.bootstrap import Services
from gateway.jobs.model import Job
from tests import factories
from tests.batches import making

Headers = dict[str, str]
NOWHERE = "bat_" + "0" * 26
WANTED = {"project": "flights", "reference": "2013", "metadata": {"b": 1, "aa": 2}}


@pytest.fixture(autouse=True)
def two_clients(sessions: sessionmaker[Session]) -> None:
    factories.onboard_two(sessions)


@pytest.fixture
def acme(bearer: Callable[[str], Headers]) -> Headers:
    return bearer("acme-uploader")


@pytest.fixture
def globex(bearer: Callable[[str], Headers]) -> Headers:
    return bearer("globex-uploader")


@pytest.fixture
def operator(bearer: Callable[[str], Headers]) -> Headers:
    return bearer("acme-operator")


@pytest.fixture
def opened(client: TestClient, acme: Headers) -> str:
    answer = client.post("/v1/batches", json=WANTED, headers=acme)
    assert answer.status_code == 201, answer.text
    identity: str = answer.json()["id"]
    return identity


@pytest.fixture
def filled(services: Services, opened: str) -> str:
    with services.sessions.begin() as session:
        batch = session.get_one(Batch, opened)
    making.landed(services, batch)
    return opened


@pytest.fixture
def sealed(client: TestClient, acme: Headers, filled: str) -> str:
    assert client.post(f"/v1/batches/{filled}/seal", headers=acme).status_code == 202
    return filled


def end_job(services: Services, batch: str) -> None:
    with services.sessions.begin() as session:
        session.query(Job).filter_by(batch_id=batch).one().state = "failed"


def slug(answer: Any) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    kind: str = answer.json()["type"]
    return kind.removeprefix("/problems/")


# --- who is let in ----------------------------------------------------------------------------

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


# --- capabilities and projects ----------------------------------------------------------------


def test_anybody_may_ask_what_the_gateway_can_do(client: TestClient) -> None:
    found = client.get("/v1").json()
    assert found["uploads"] == ["put", "multipart"]
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


# --- opening ----------------------------------------------------------------------------------


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


# --- listing and showing ----------------------------------------------------------------------


def test_pages_join_without_gap_or_repetition(client: TestClient, acme: Headers) -> None:
    made = []
    for number in range(5):
        body = {**WANTED, "reference": str(number)}
        made.append(client.post("/v1/batches", json=body, headers=acme).json()["id"])
    seen: list[str] = []
    query: dict[str, str] = {"limit": "2"}
    while True:
        page = client.get("/v1/batches", params=query, headers=acme).json()
        seen += [each["id"] for each in page["items"]]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
    assert seen == made[::-1]


def test_lists_are_filtered(client: TestClient, acme: Headers, opened: str) -> None:
    def found(**query: str) -> list[str]:
        answer = client.get("/v1/batches", params=query, headers=acme)
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()["items"]]

    assert found(project="flights", state="open", reference="2013") == [opened]
    assert found(reference="2014") == found(state="sealed") == found(project="weather") == []


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "state=odd", "cursor=%21", "reference=%00", "limit=x"]
)
def test_a_query_that_makes_no_sense_is_refused(
    client: TestClient, acme: Headers, query: str
) -> None:
    answer = client.get(f"/v1/batches?{query}", headers=acme)
    assert (answer.status_code, slug(answer)) == (422, "invalid-request")


def test_a_forged_cursor_shows_nothing_of_others(
    client: TestClient, acme: Headers, globex: Headers, opened: str
) -> None:
    other = client.post("/v1/batches", json={**WANTED, "reference": "2"}, headers=acme).json()
    cursor = client.get("/v1/batches?limit=1", headers=acme).json()["next"]
    found = client.get("/v1/batches", params={"cursor": cursor}, headers=globex).json()
    assert found["items"] == []
    assert other["id"] > opened


def test_what_has_not_changed_is_not_sent_again(
    client: TestClient, acme: Headers, services: Services, filled: str
) -> None:
    path = f"/v1/batches/{filled}"
    first = client.get(path, headers=acme)
    assert "retry-after" not in first.headers
    tag = first.headers["etag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        again = client.get(path, headers={**acme, "If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    client.post(f"{path}/seal", headers=acme)
    changed = client.get(path, headers={**acme, "If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag
    assert changed.headers["retry-after"] == "2"
    end_job(services, filled)
    assert "retry-after" not in client.get(path, headers=acme).headers


def test_a_batch_is_shown_with_its_files_and_jobs(
    client: TestClient, acme: Headers, sealed: str
) -> None:
    found = client.get(f"/v1/batches/{sealed}", headers=acme).json()
    [file], [job] = found["files"], found["jobs"]
    assert (file["name"], file["state"], file["size_bytes"]) == ("a.csv", "complete", 5)
    assert (job["batch"], job["state"], job["cause"]) == (sealed, "queued", "seal")
    jobs = client.get(f"/v1/batches/{sealed}/jobs", headers=acme).json()
    assert jobs["items"] == [job]


# --- canceling --------------------------------------------------------------------------------


def test_a_canceled_batch_loses_its_files_and_again_is_no_error(
    client: TestClient, acme: Headers, config: Any, filled: str
) -> None:
    place = config.landing.root / "acme" / "flights" / filled
    assert (place / "files" / "a.csv").exists()
    for _ in range(2):
        answer = client.delete(f"/v1/batches/{filled}", headers=acme)
        assert (answer.status_code, answer.content) == (204, b"")
    assert not place.exists()
    found = client.get(f"/v1/batches/{filled}", headers=acme).json()
    assert (found["state"], found["files"], found["file_count"]) == ("canceled", [], 0)


def test_a_sealed_batch_cannot_be_canceled(
    client: TestClient, acme: Headers, config: Any, sealed: str
) -> None:
    answer = client.delete(f"/v1/batches/{sealed}", headers=acme)
    assert (answer.status_code, slug(answer)) == (409, "batch-sealed")
    assert (config.landing.root / "acme" / "flights" / sealed / "files" / "a.csv").exists()


def test_files_that_a_crash_left_after_a_cancel_are_found_again(
    client: TestClient, acme: Headers, services: Services, filled: str
) -> None:
    with services.sessions.begin() as session:
        ledger.cancel(session, making.ACME, filled)
    with services.sessions.begin() as session:
        assert [each.id for each in ledger.uncleared(session, 10)] == [filled]
    client.delete(f"/v1/batches/{filled}", headers=acme)
    with services.sessions.begin() as session:
        assert ledger.uncleared(session, 10) == []


# --- sealing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"{}", b'{"files": null}'])
def test_a_seal_needs_no_list(client: TestClient, acme: Headers, filled: str, body: bytes) -> None:
    headers = {**acme, "Content-Type": "application/json"} if body else acme
    answer = client.post(f"/v1/batches/{filled}/seal", content=body, headers=headers)
    assert answer.status_code == 202, answer.text
    found = answer.json()
    assert found["batch"]["id"] == filled
    assert answer.headers["location"] == f"/v1/jobs/{found['job']['id']}"


def test_sealing_again_gives_the_same_bytes_even_when_the_job_has_moved_on(
    client: TestClient, acme: Headers, services: Services, filled: str
) -> None:
    path = f"/v1/batches/{filled}/seal"
    first = client.post(path, json={"files": [{"name": "a.csv"}]}, headers=acme)
    end_job(services, filled)
    for again in (
        client.post(path, json={"files": [{"name": "other"}]}, headers=acme),
        client.post(path, headers=acme),
    ):
        assert (again.status_code, again.content) == (202, first.content)
        assert again.headers["location"] == first.headers["location"]


def test_a_seal_of_something_else_names_each_file(
    client: TestClient, acme: Headers, filled: str
) -> None:
    listed = [{"name": "a.csv", "size_bytes": 4}, {"name": "b.csv"}]
    answer = client.post(f"/v1/batches/{filled}/seal", json={"files": listed}, headers=acme)
    assert (answer.status_code, slug(answer)) == (409, "batch-incomplete")
    found = {each["pointer"]: each["code"] for each in answer.json()["errors"]}
    assert found == {"files/a.csv": "different", "files/b.csv": "missing"}


def test_an_empty_batch_is_not_sealed(client: TestClient, acme: Headers, opened: str) -> None:
    answer = client.post(f"/v1/batches/{opened}/seal", headers=acme)
    assert (answer.status_code, slug(answer)) == (409, "batch-incomplete")
    assert client.get(f"/v1/batches/{opened}", headers=acme).json()["state"] == "open"


def test_a_canceled_batch_is_not_sealed(client: TestClient, acme: Headers, filled: str) -> None:
    client.delete(f"/v1/batches/{filled}", headers=acme)
    answer = client.post(f"/v1/batches/{filled}/seal", headers=acme)
    assert (answer.status_code, slug(answer)) == (409, "batch-closed")


def test_a_list_of_ten_thousand_files_is_read(
    client: TestClient, acme: Headers, filled: str
) -> None:
    listed = [{"name": f"{'x' * 100}-{number}", "sha256": "0" * 64} for number in range(10_000)]
    answer = client.post(f"/v1/batches/{filled}/seal", json={"files": listed}, headers=acme)
    assert answer.status_code == 409
    assert len(answer.json()["errors"]) == 10_001


@pytest.mark.parametrize(
    ("content", "media", "status"),
    [
        (b"files", "text/plain", 415),
        (b"[]", "application/json", 422),
        (b'{"files": [{"name": "a", "x": 1}]}', "application/json", 422),
        (b" " * (4 * 1024**2 + 1), "application/json", 413),
    ],
)
def test_a_list_that_cannot_be_read_seals_nothing(
    client: TestClient, acme: Headers, filled: str, content: bytes, media: str, status: int
) -> None:
    headers = {**acme, "Content-Type": media}
    answer = client.post(f"/v1/batches/{filled}/seal", content=content, headers=headers)
    assert answer.status_code == status
    assert client.get(f"/v1/batches/{filled}", headers=acme).json()["state"] == "open"


# --- proving ----------------------------------------------------------------------------------


def test_manifest_and_receipt_prove_each_other(
    client: TestClient, acme: Headers, sealed: str
) -> None:
    document = client.get(f"/v1/batches/{sealed}/manifest", headers=acme)
    receipt = client.get(f"/v1/batches/{sealed}/receipt", headers=acme)
    assert document.headers["content-type"] == "application/json"
    assert receipt.headers["content-type"] == "application/jose"
    keys = KeySet.import_key_set(client.get("/.well-known/jwks.json").json())
    registry = jws.JWSRegistry(algorithms=["ES256"])
    verified = jws.deserialize_compact(receipt.text, keys, registry=registry)
    assert verified.payload == document.content
    assert json.loads(document.content)["batch"] == sealed
    again = {**acme, "If-None-Match": document.headers["etag"]}
    assert client.get(f"/v1/batches/{sealed}/manifest", headers=again).status_code == 304


@pytest.mark.parametrize("proof", ["manifest", "receipt"])
def test_an_open_batch_proves_nothing(
    client: TestClient, acme: Headers, filled: str, proof: str
) -> None:
    answer = client.get(f"/v1/batches/{filled}/{proof}", headers=acme)
    assert (answer.status_code, slug(answer)) == (404, "not-found")


# --- processing again -------------------------------------------------------------------------


def test_a_replay_is_a_new_job(
    client: TestClient, operator: Headers, services: Services, sealed: str
) -> None:
    path, body = f"/v1/batches/{sealed}/replays", {"reason": "the contract was mended"}
    active = client.post(path, json=body, headers=operator)
    assert (active.status_code, slug(active)) == (409, "job-active")
    end_job(services, sealed)
    answer = client.post(path, json=body, headers=operator)
    found = answer.json()
    assert answer.status_code == 202, answer.text
    assert (found["attempt"], found["cause"], found["state"]) == (2, "replay", "queued")
    assert answer.headers["location"] == f"/v1/jobs/{found['id']}"


def test_an_open_batch_is_not_processed_again(
    client: TestClient, operator: Headers, filled: str
) -> None:
    body = {"reason": "why not"}
    answer = client.post(f"/v1/batches/{filled}/replays", json=body, headers=operator)
    assert (answer.status_code, slug(answer)) == (409, "batch-incomplete")


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": "a\nb"}, {"reason": "x" * 501}])
def test_a_replay_says_why(
    client: TestClient, operator: Headers, sealed: str, body: dict[str, str]
) -> None:
    answer = client.post(f"/v1/batches/{sealed}/replays", json=body, headers=operator)
    assert (answer.status_code, slug(answer)) == (422, "invalid-request")
