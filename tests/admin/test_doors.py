from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from deploy.local.directory import Directory as DirectoryServer
from gateway import database
from gateway.clients import usage
from gateway.jobs.model import Job
from gateway.settings import Settings
from tests import factories

Bearer = Callable[[str], dict[str, str]]
SPEC: dict[str, Any] = {
    "client": "acme",
    "name": "Acme Air",
    "projects": {"flights": {"contract": factories.CONTRACT}},
}
DOORS = [
    ("GET", "/v1/admin/audit"),
    ("GET", "/v1/admin/audit/verify"),
    ("GET", "/v1/admin/clients"),
    ("GET", "/v1/admin/clients/acme"),
    ("PUT", "/v1/admin/clients/acme"),
    ("POST", "/v1/admin/clients/acme/suspend"),
    ("POST", "/v1/admin/clients/acme/resume"),
    ("GET", "/v1/admin/jobs"),
    ("GET", "/v1/admin/jobs/job_00000000000000000000000000"),
    ("POST", "/v1/admin/jobs/job_00000000000000000000000000/retry"),
    ("GET", "/v1/admin/access/explain?user=a&action=b"),
    ("POST", "/v1/admin/reconcile"),
]


@pytest.fixture(autouse=True)
def onboarded(sessions: sessionmaker[Session]) -> None:
    factories.onboard_two(sessions)


@pytest.mark.parametrize(("method", "path"), DOORS)
def test_a_door_of_the_platform_is_closed_to_strangers_and_to_clients(
    client: TestClient, bearer: Bearer, method: str, path: str
) -> None:
    assert client.request(method, path).status_code == 401
    for user in ("acme-operator", "globex-uploader", "svc-airflow"):
        refused = client.request(method, path, headers=bearer(user))
        assert refused.status_code == 403, (user, refused.text)
        assert refused.json()["type"] == "/problems/forbidden"


@pytest.mark.parametrize(("method", "path"), [each for each in DOORS if "/audit" not in each[1]])
def test_an_auditor_reads_the_trail_and_nothing_else(
    client: TestClient, bearer: Bearer, method: str, path: str
) -> None:
    assert client.request(method, path, headers=bearer("auditor")).status_code == 403


def test_the_trail_comes_as_json_ndjson_or_csv(client: TestClient, bearer: Bearer) -> None:
    headers = bearer("auditor")
    page = client.get("/v1/admin/audit?action=client.applied", headers=headers).json()
    assert [each["subject"] for each in page["items"]] == ["globex", "acme"]
    assert page["next"] is None
    lines = client.get(
        "/v1/admin/audit?client=acme", headers={**headers, "Accept": "application/x-ndjson"}
    )
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert {json.loads(line)["client"] for line in lines.text.splitlines()} == {"acme"}
    table = client.get("/v1/admin/audit?client=acme", headers={**headers, "Accept": "text/csv"})
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert {row["client"] for row in rows} == {"acme"}
    assert json.loads(rows[-1]["details"])["changes"] == [
        "create client acme",
        "create project flights",
    ]


def test_the_trail_is_paged_without_gaps(client: TestClient, bearer: Bearer) -> None:
    headers = bearer("auditor")
    seen: list[int] = []
    cursor = ""
    while True:
        page = client.get(f"/v1/admin/audit?limit=2{cursor}", headers=headers).json()
        seen += [each["number"] for each in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert sorted(seen, reverse=True) == seen
    assert seen == list(range(seen[0], 0, -1))


def test_reading_the_trail_is_itself_on_record(client: TestClient, bearer: Bearer) -> None:
    headers = bearer("auditor")
    client.get("/v1/admin/audit?client=acme", headers=headers)
    (read,) = client.get("/v1/admin/audit?action=audit.read", headers=headers).json()["items"]
    assert read["actor"] == "auditor"
    assert read["details"] == {"client": "acme"}


@pytest.mark.parametrize(
    "query", ["since=yesterday", "cursor=!!", "limit=0", "limit=201", "cursor=MTpiYXRfMQ"]
)
def test_a_senseless_question_is_422(client: TestClient, bearer: Bearer, query: str) -> None:
    answer = client.get(f"/v1/admin/audit?{query}", headers=bearer("auditor"))
    assert answer.status_code == 422, answer.text
    assert answer.json()["type"] == "/problems/invalid-request"


def test_the_chain_verifies(client: TestClient, bearer: Bearer) -> None:
    verdict = client.get("/v1/admin/audit/verify", headers=bearer("admin")).json()
    assert verdict["holds"]
    assert verdict["records"] >= 3


def test_a_client_is_applied_by_its_spec_shown_and_exported(
    client: TestClient, bearer: Bearer, config: Settings
) -> None:
    headers = bearer("admin")
    changed = copy.deepcopy(SPEC)
    changed["limits"] = {"open_batches": 7, "requests_per_second": 50}
    applied = client.put("/v1/admin/clients/acme", json=changed, headers=headers)
    assert applied.status_code == 200, applied.text
    assert applied.json()["changes"] == [
        "rename client acme to Acme Air",
        "set limit open_batches to 7",
        "set limit requests_per_second to 50",
    ]
    again = client.put("/v1/admin/clients/acme", json=changed, headers=headers)
    assert again.json()["changes"] == []
    shown = client.get("/v1/admin/clients/acme", headers=headers).json()
    assert shown["spec"]["limits"]["open_batches"] == 7
    assert shown["projects"] == ["flights"]
    assert shown["received_today"] == {}
    registry = json.loads(Path(config.airflow.registry_path).read_text())
    assert {each["dag_id"] for each in registry["projects"]} == {"acme__flights", "globex__weather"}
    listed = client.get("/v1/admin/clients", headers=headers).json()["items"]
    assert [each["client"] for each in listed] == ["acme", "globex"]
    assert client.get("/v1/admin/clients/nobody", headers=headers).status_code == 404


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"client": "globex"}, None),
        ({"limits": {"file_bytes": "lots"}}, "limits/file_bytes"),
        ({"projects": {"flights": {"contract": {}}}}, "projects/flights/contract/apiVersion"),
        (
            {"projects": {"flights": {"contract": factories.CONTRACT, "load": {"postgres": True}}}},
            "projects/flights/load/postgres",
        ),
    ],
)
def test_an_impossible_spec_changes_nothing(
    client: TestClient, bearer: Bearer, change: dict[str, Any], pointer: str | None
) -> None:
    headers = bearer("admin")
    before = client.get("/v1/admin/clients/acme", headers=headers).json()
    refused = client.put("/v1/admin/clients/acme", json={**SPEC, **change}, headers=headers)
    assert refused.status_code == 422
    if pointer is not None:
        assert pointer in [each["pointer"] for each in refused.json()["errors"]]
    assert client.get("/v1/admin/clients/acme", headers=headers).json() == before


def test_an_administrator_sees_what_a_client_received_today(
    client: TestClient, bearer: Bearer, sessions: sessionmaker[Session]
) -> None:
    with sessions.begin() as session:
        today = usage.day_of(database.now(session))
        usage.add(session, "acme", "flights", today, 5)
        usage.add(session, "acme", "flights", today - timedelta(days=1), 7)
        usage.add(session, "globex", "weather", today, 9)
    shown = client.get("/v1/admin/clients/acme", headers=bearer("admin")).json()
    assert shown["received_today"] == {"flights": 5}


def test_a_suspended_client_cannot_deliver_until_it_is_resumed(
    client: TestClient, bearer: Bearer
) -> None:
    admin, uploader = bearer("admin"), bearer("acme-uploader")
    body = {"project": "flights", "reference": "r"}
    suspended = client.post("/v1/admin/clients/acme/suspend", headers=admin).json()
    assert suspended["state"] == "suspended"
    assert client.post("/v1/batches", json=body, headers=uploader).status_code == 403
    assert client.post("/v1/admin/clients/acme/resume", headers=admin).json()["state"] == "active"
    assert client.post("/v1/batches", json=body, headers=uploader).status_code == 201


def test_jobs_of_all_clients_are_listed_and_can_be_tried_again(
    client: TestClient, bearer: Bearer
) -> None:
    made = []
    for user, project in (("acme-uploader", "flights"), ("globex-uploader", "weather")):
        headers = bearer(user)
        body = {"project": project, "reference": "r"}
        batch = client.post("/v1/batches", json=body, headers=headers).json()["id"]
        client.put(f"/v1/batches/{batch}/files/a.csv", content=b"id\n1\n", headers=headers)
        sealed = client.post(f"/v1/batches/{batch}/seal", headers=headers)
        made.append(sealed.json()["job"]["id"])
    admin = bearer("admin")
    listed = client.get("/v1/admin/jobs?state=queued", headers=admin).json()["items"]
    assert [each["id"] for each in listed] == made[::-1]
    whose = [(each["client"], each["project"]) for each in listed]
    assert whose == [("globex", "weather"), ("acme", "flights")]
    for each in listed:
        assert client.get(f"/v1/admin/jobs/{each['id']}", headers=admin).json() == each
    absent = client.get("/v1/admin/jobs/job_00000000000000000000000000", headers=admin)
    assert absent.status_code == 404
    assert client.get("/v1/admin/jobs?state=failed", headers=admin).json()["items"] == []
    retried = client.post(f"/v1/admin/jobs/{made[0]}/retry", headers=admin)
    assert retried.status_code == 200, retried.text
    assert retried.json()["state"] == "queued"
    trail = client.get("/v1/admin/audit?action=job.retried", headers=admin).json()["items"]
    assert [(each["subject"], each["actor"]) for each in trail] == [(made[0], "admin")]


@pytest.mark.parametrize(
    ("user", "action", "project", "allowed"),
    [
        ("acme-uploader", "batches:write", "acme/flights", True),
        ("acme-uploader", "batches:write", "globex/weather", False),
        ("acme-uploader", "jobs:write", "acme/flights", False),
        ("acme-operator", "jobs:write", None, True),
        ("admin", "admin", None, True),
        ("nobody", "admin", None, False),
    ],
)
def test_access_is_explained(
    client: TestClient,
    bearer: Bearer,
    user: str,
    action: str,
    project: str | None,
    allowed: bool,  # noqa: FBT001
) -> None:
    query = {"user": user, "action": action, **({"project": project} if project else {})}
    answer = client.get("/v1/admin/access/explain", params=query, headers=bearer("admin"))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["allowed"] is allowed
    assert found["known"] is (user != "nobody")


def test_probes_need_no_account_and_name_no_client(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert ready.status_code == 200
    needed = {"database": "ok", "directory": "ok", "landing": "ok"}
    assert ready.json()["checks"] == {**needed, "airflow": "ok", "leases": "ok"}
    metrics = client.get("/metrics")
    assert "gateway_outbox_messages" in metrics.text
    assert "acme" not in metrics.text


def test_an_airflow_that_is_away_is_reported_and_deliveries_go_on(
    client: TestClient, bearer: Bearer, sessions: sessionmaker[Session]
) -> None:
    headers = bearer("acme-uploader")
    body = {"project": "flights", "reference": "r"}
    batch = client.post("/v1/batches", json=body, headers=headers).json()["id"]
    client.put(f"/v1/batches/{batch}/files/a.csv", content=b"id\n1\n", headers=headers)
    job = client.post(f"/v1/batches/{batch}/seal", headers=headers).json()["job"]["id"]
    with sessions.begin() as session:
        session.get_one(Job, job).waiting_reason = "airflow-unavailable"
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["checks"]["airflow"] == "unavailable"


def test_readiness_names_what_is_away(
    client: TestClient, directory_server: DirectoryServer
) -> None:
    directory_server.pause()
    try:
        ready = client.get("/readyz")
    finally:
        directory_server.resume()
    assert ready.status_code == 503
    assert ready.json()["checks"]["directory"] == "unavailable"
    assert ready.json()["checks"]["database"] == "ok"
