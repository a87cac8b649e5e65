"""A batch is canceled, or sealed, proven and processed again."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import httpx
import pytest
from joserfc import jws
from joserfc.jwk import KeySet
from starlette.testclient import TestClient

from gateway.batches import ledger, seal
from gateway.bootstrap import Services
from gateway.errors import NotFoundError
from gateway.identity.access import Principal
from gateway.jobs import reading, states
from gateway.jobs.model import Job
from tests.batches import making
from tests.batches.doors.asking import Headers, end_job, slug
from tests.jobs.making import rejects, report, rows


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


@pytest.mark.parametrize("body", [b"", b"{}", b'{"files": null}'])
def test_a_seal_needs_no_list(client: TestClient, acme: Headers, filled: str, body: bytes) -> None:
    headers = {**acme, "Content-Type": "application/json"} if body else acme
    answer = client.post(f"/v1/batches/{filled}/seal", content=body, headers=headers)
    assert answer.status_code == 202, answer.text
    found = answer.json()
    assert found["batch"]["id"] == filled
    assert answer.headers["location"] == f"/v1/jobs/{found['job']['id']}"


def test_many_seals_of_one_client_hold_up_nobody_elses(
    client: TestClient,
    acme: Headers,
    globex: Headers,
    filled: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both, gate, begun = threading.Event(), threading.Event(), list[str]()

    def held(_: Any, who: Principal, *given: Any) -> Any:
        begun.append(str(who.client))
        if len(begun) == 2:
            both.set()
        if who.client == "acme":
            assert gate.wait(20)
        raise NotFoundError

    async def sent() -> list[int]:
        path = f"/v1/batches/{filled}/seal"
        served = httpx.ASGITransport(app=client.app)
        async with (
            httpx.AsyncClient(transport=served, base_url=str(client.base_url)) as many,
            asyncio.timeout(20),
        ):
            first = [asyncio.create_task(many.post(path, headers=acme)) for _ in range(5)]
            assert await asyncio.to_thread(both.wait, 20)
            assert (await many.post(path, headers=globex)).status_code == 404
            assert begun == ["acme", "acme", "globex"]
            gate.set()
            return [(await each).status_code for each in first]

    monkeypatch.setattr(seal, "carry_out", held)
    assert asyncio.run(sent()) == [404] * 5
    assert begun.count("acme") == 5


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


def test_a_replay_says_where_it_starts_under_which_contract_and_how_it_came_out(
    client: TestClient, operator: Headers, services: Services, sealed: str
) -> None:
    with services.sessions.begin() as session:
        first = reading.first_of_batch(session, "acme", sealed)
    report(services.sessions, first, rejects=rejects(2), rows=rows(read=5, rejected=2))
    end_job(services, sealed)
    wanted = {"reason": "again", "from": "staged", "contract": "pinned"}
    answer = client.post(f"/v1/batches/{sealed}/replays", json=wanted, headers=operator)
    found = answer.json()
    assert answer.status_code == 202, answer.text
    assert (found["starts_from"], found["contract_sha256"]) == ("staged", first.contract_sha256)
    with services.sessions.begin() as session:
        again = session.get_one(Job, found["id"])
    report(services.sessions, again, rejects=rejects(1), rows=rows(read=5, rejected=1))
    shown = client.get(f"/v1/jobs/{again.id}", headers=operator).json()
    assert (shown["state"], shown["changes"]) == ("running", None)
    with services.sessions.begin() as session:
        states.finish(session, again.id, "success")
    told = client.get(f"/v1/jobs/{again.id}", headers=operator).json()["changes"]
    assert told["earlier_job"] == first.id
    assert told["contract_changed"] is False
    assert told["rows_before"] == {"read": 5, "loaded": 0, "rejected": 2}
    assert told["rejects"] == {"new": 0, "gone": 1, "is_complete": True}


@pytest.mark.parametrize(("name", "value"), [("from", "curated"), ("contract", "1.0.0")])
def test_a_replay_that_nobody_can_carry_out_is_not_taken(
    client: TestClient, operator: Headers, services: Services, sealed: str, name: str, value: str
) -> None:
    end_job(services, sealed)
    body = {"reason": "again", name: value}
    answer = client.post(f"/v1/batches/{sealed}/replays", json=body, headers=operator)
    assert (answer.status_code, slug(answer)) == (422, "invalid-request")
    assert [each["pointer"] for each in answer.json()["errors"]] == [name]


def test_where_nothing_is_staged_a_replay_from_staged_is_refused(
    client: TestClient, operator: Headers, services: Services, sealed: str
) -> None:
    end_job(services, sealed)
    body = {"reason": "again", "from": "staged"}
    answer = client.post(f"/v1/batches/{sealed}/replays", json=body, headers=operator)
    assert (answer.status_code, slug(answer)) == (409, "nothing-staged")


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
