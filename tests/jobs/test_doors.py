from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from gateway.jobs.model import Job
from tests import factories
from tests.jobs import making

Headers = dict[str, str]
NOWHERE = "job_" + "0" * 26
GOLDEN = Path(__file__).parents[2] / "airflow" / "contract" / "progress.json"
NEWS = GOLDEN.with_name("run_news.json")
KEYS = "id batch attempt cause state waiting_reason steps rows created_at finished_at error"
ADDED = ["starts_from", "contract_sha256", "changes", "plan"]


@pytest.fixture(autouse=True)
def two_clients(sessions: sessionmaker[Session]) -> None:
    factories.onboard_two(sessions)


@pytest.fixture
def job(sessions: sessionmaker[Session]) -> Job:
    return making.queued(sessions)


@pytest.fixture
def acme(bearer: Callable[[str], Headers]) -> Headers:
    return bearer("acme-uploader")


@pytest.fixture
def operator(bearer: Callable[[str], Headers]) -> Headers:
    return bearer("acme-operator")


@pytest.fixture
def platform(bearer: Callable[[str], Headers]) -> Headers:
    return bearer("svc-airflow")


def slug(answer: Any) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    kind: str = answer.json()["type"]
    return kind.removeprefix("/problems/")


def put_into(sessions: sessionmaker[Session], job: Job, state: str) -> None:
    with sessions.begin() as session:
        session.execute(update(Job).where(Job.id == job.id).values(state=state))


DOORS = [
    ("GET", "/v1/jobs"),
    ("GET", "/v1/jobs/{id}"),
    ("GET", "/v1/jobs/{id}/rejects"),
    ("POST", "/v1/jobs/{id}/cancel"),
    ("POST", "/v1/jobs/{id}/progress"),
    ("POST", "/v1/jobs/{id}/run"),
]
OF_A_CLIENT = DOORS[1:-2]


@pytest.mark.parametrize(("method", "path"), DOORS)
def test_nobody_enters_without_a_token(client: TestClient, method: str, path: str) -> None:
    answer = client.request(method, path.format(id=NOWHERE), content=b"{")
    assert (answer.status_code, slug(answer)) == (401, "not-authenticated")


@pytest.mark.parametrize("user", ["acme-operator", "acme-uploader", "admin"])
def test_only_the_platform_reports_progress(
    client: TestClient, bearer: Callable[[str], Headers], job: Job, user: str
) -> None:
    path = f"/v1/jobs/{job.id}/progress"
    answer = client.post(path, json=making.said(job), headers=bearer(user))
    assert (answer.status_code, slug(answer)) == (403, "forbidden")


@pytest.mark.parametrize("user", ["acme-operator", "acme-uploader", "admin"])
def test_only_the_platform_tells_of_runs(
    client: TestClient, bearer: Callable[[str], Headers], job: Job, user: str
) -> None:
    said = json.loads(NEWS.read_text()) | {"run_id": f"gw.{job.id}"}
    answer = client.post(f"/v1/jobs/{job.id}/run", json=said, headers=bearer(user))
    assert (answer.status_code, slug(answer)) == (403, "forbidden")


def test_the_agreed_news_of_a_run_is_heard_and_believed_by_nobody(
    client: TestClient, acme: Headers, platform: Headers, job: Job
) -> None:
    said = json.loads(NEWS.read_text()) | {"run_id": f"gw.{job.id}"}
    path = f"/v1/jobs/{job.id}/run"
    assert client.post(path, json=said, headers=platform).status_code == 202
    assert client.get(f"/v1/jobs/{job.id}", headers=acme).json()["state"] == "queued"
    foreign = {**said, "dag_id": "globex__weather"}
    assert slug(client.post(path, json=foreign, headers=platform)) == "invalid-request"
    unknown = f"/v1/jobs/{NOWHERE}/run"
    assert client.post(unknown, json=said, headers=platform).status_code == 404


@pytest.mark.parametrize("user", ["acme-viewer", "acme-uploader", "svc-airflow"])
def test_only_an_operator_cancels(
    client: TestClient, bearer: Callable[[str], Headers], job: Job, user: str
) -> None:
    answer = client.post(f"/v1/jobs/{job.id}/cancel", headers=bearer(user))
    assert (answer.status_code, slug(answer)) == (403, "forbidden")


@pytest.mark.parametrize(("method", "path"), OF_A_CLIENT)
def test_another_clients_job_answers_exactly_as_none(
    client: TestClient, bearer: Callable[[str], Headers], job: Job, method: str, path: str
) -> None:
    headers = bearer("globex-operator")
    answers = [
        client.request(method, path.format(id=each), headers=headers)
        for each in (job.id, NOWHERE, "job_x")
    ]
    bodies = [{**each.json(), "request_id": ""} for each in answers]
    assert [each.status_code for each in answers] == [404, 404, 404]
    assert bodies[0] == bodies[1] == bodies[2]


def test_a_job_has_the_documented_shape(client: TestClient, acme: Headers, job: Job) -> None:
    answer = client.get(f"/v1/jobs/{job.id}", headers=acme)
    found = answer.json()
    assert answer.status_code == 200
    assert answer.headers["retry-after"] == "2"
    assert list(found) == [*KEYS.split(), *ADDED]
    assert (found["batch"], found["attempt"], found["state"]) == (job.batch_id, 1, "queued")
    assert found["rows"] == {"read": 0, "loaded": 0, "rejected": 0}


def test_a_job_that_has_not_changed_is_not_sent_again(
    client: TestClient, acme: Headers, sessions: sessionmaker[Session], job: Job
) -> None:
    path = f"/v1/jobs/{job.id}"
    tag = client.get(path, headers=acme).headers["etag"]
    known = {**acme, "If-None-Match": tag}
    assert client.get(path, headers=known).status_code == 304
    making.report(sessions, job, step="plan", rows=making.rows(read=1))
    changed = client.get(path, headers=known)
    assert (changed.status_code, changed.json()["rows"]["read"]) == (200, 1)
    put_into(sessions, job, "failed")
    assert "retry-after" not in client.get(path, headers=known).headers


def test_jobs_are_listed_filtered_and_in_pages(
    client: TestClient, acme: Headers, sessions: sessionmaker[Session]
) -> None:
    made = [making.queued(sessions) for _ in range(3)]
    making.queued(sessions, client="globex")
    put_into(sessions, made[0], "failed")

    def found(**query: str) -> Any:
        answer = client.get("/v1/jobs", params=query, headers=acme)
        assert answer.status_code == 200, answer.text
        return answer.json()

    first = found(limit="2")
    second = found(limit="2", cursor=first["next"])
    ids = [each["id"] for each in first["items"] + second["items"]]
    assert ids == [each.id for each in made[::-1]]
    assert second["next"] is None
    assert [each["id"] for each in found(state="failed")["items"]] == [made[0].id]
    assert found(project="weather")["items"] == []


@pytest.mark.parametrize("query", ["limit=0", "state=odd", "cursor=%21", "project=%00"])
def test_a_query_that_makes_no_sense_is_refused(
    client: TestClient, acme: Headers, query: str
) -> None:
    answer = client.get(f"/v1/jobs?{query}", headers=acme)
    assert (answer.status_code, slug(answer)) == (422, "invalid-request")


def test_the_agreed_reports_are_taken_and_shown(
    client: TestClient,
    acme: Headers,
    platform: Headers,
    bearer: Callable[[str], Headers],
    job: Job,
) -> None:
    golden = json.loads(GOLDEN.read_text())
    for kind in ("planned", "request", "failed"):
        report = {**golden[kind], "run_id": f"gw.{job.id}", "batch_id": job.batch_id}
        for _ in range(2):
            path = f"/v1/jobs/{job.id}/progress"
            answer = client.post(path, json=report, headers=platform)
            assert (answer.status_code, answer.content) == (204, b"")
    found = client.get(f"/v1/jobs/{job.id}", headers=acme).json()
    assert found["state"] == "running"
    assert [(each["name"], each["state"]) for each in found["steps"]] == [
        ("plan", "succeeded"),
        ("process", "running"),
        ("publish", "failed"),
    ]
    assert found["rows"] == {"read": 27004, "loaded": 0, "rejected": 1}
    assert found["plan"] == golden["planned"]["plan"]
    theirs = client.get(f"/v1/admin/jobs/{job.id}", headers=bearer("admin")).json()
    assert theirs["plan"] == found["plan"], "whoever looks after it sees as much"
    (listed,) = client.get("/v1/jobs", headers=acme).json()["items"]
    assert listed["plan"] is None, "a list is not for the length of a thousand plans"


def test_a_report_of_another_run_or_an_ended_job_is_refused(
    client: TestClient, platform: Headers, sessions: sessionmaker[Session], job: Job
) -> None:
    path = f"/v1/jobs/{job.id}/progress"
    foreign = making.said(job, dag_id="globex__weather")
    answer = client.post(path, json=foreign, headers=platform)
    assert (answer.status_code, slug(answer)) == (422, "invalid-request")
    put_into(sessions, job, "canceled")
    answer = client.post(path, json=making.said(job), headers=platform)
    assert (answer.status_code, slug(answer)) == (409, "job-finished")
    unknown = f"/v1/jobs/{NOWHERE}/progress"
    assert client.post(unknown, json=making.said(job), headers=platform).status_code == 404


def test_a_thousand_rejects_with_long_values_are_taken(
    client: TestClient, platform: Headers, job: Job
) -> None:
    body = making.said(job, rejects=making.rejects(1000, value="ü" * 1000))
    answer = client.post(f"/v1/jobs/{job.id}/progress", json=body, headers=platform)
    assert answer.status_code == 204, answer.text


@pytest.mark.parametrize(
    ("content", "media", "status"),
    [
        (b"{}", "application/json", 422),
        (b"{", "application/json", 422),
        (b"{}", "text/plain", 415),
        (b" " * (8 * 1024**2 + 1), "application/json", 413),
    ],
)
def test_a_report_that_cannot_be_read_is_refused(
    client: TestClient, platform: Headers, job: Job, content: bytes, media: str, status: int
) -> None:
    headers = {**platform, "Content-Type": media}
    answer = client.post(f"/v1/jobs/{job.id}/progress", content=content, headers=headers)
    assert answer.status_code == status


def test_rejects_come_as_ndjson_or_csv(
    client: TestClient, acme: Headers, sessions: sessionmaker[Session], job: Job
) -> None:
    making.report(sessions, job, rejects=making.rejects(2, value="=cmd()"))
    path = f"/v1/jobs/{job.id}/rejects"
    lines = client.get(path, headers=acme)
    assert lines.headers["content-type"].startswith("application/x-ndjson")
    found = [json.loads(line) for line in lines.text.splitlines()]
    wanted = {"file": "a.csv", "line": 1, "column": "id", "rule": "type", "value": "=cmd()"}
    assert found == [wanted, {**wanted, "line": 2}]
    table = client.get(path, headers={**acme, "Accept": "text/csv"})
    assert table.headers["content-type"].startswith("text/csv")
    assert [row[4] for row in csv.reader(io.StringIO(table.text))] == ["value", *["'=cmd()"] * 2]


def test_a_job_without_rejects_gives_an_empty_list(
    client: TestClient, acme: Headers, job: Job
) -> None:
    answer = client.get(f"/v1/jobs/{job.id}/rejects", headers=acme)
    assert (answer.status_code, answer.text) == (200, "")


def test_an_operator_cancels_and_again_is_no_error(
    client: TestClient, operator: Headers, sessions: sessionmaker[Session], job: Job
) -> None:
    for _ in range(2):
        answer = client.post(f"/v1/jobs/{job.id}/cancel", headers=operator)
        assert (answer.status_code, answer.json()["state"]) == (202, "canceled")
    other = making.queued(sessions)
    put_into(sessions, other, "succeeded")
    answer = client.post(f"/v1/jobs/{other.id}/cancel", headers=operator)
    assert (answer.status_code, slug(answer)) == (409, "job-finished")
