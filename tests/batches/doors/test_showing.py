"""Batches listed, and one shown."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from gateway.bootstrap import Services
from tests.batches.doors.asking import WANTED, Headers, end_job, slug


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
