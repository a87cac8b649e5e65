"""The doors of leases: who may ask, for what, how much; and what is written down of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient

from gateway.audit import trail
from gateway.audit.model import AuditEvent
from gateway.clients.registry import Client
from gateway.jobs.model import Job
from gateway.leases.model import Lease
from tests.leases.asking import Desk, asked, connected, wanted

Bearer = Callable[[str], dict[str, str]]
GOLDEN = json.loads(
    (Path(__file__).parents[2] / "airflow/contract/lease.json").read_text(encoding="utf-8")
)


@pytest.fixture
def airflow(bearer: Bearer) -> dict[str, str]:
    return bearer("svc-airflow-api")


def count(desk: Desk) -> int:
    with desk.sessions.begin() as session:
        return len(session.scalars(select(Lease.id)).all())


def test_a_running_task_gets_a_connection_of_its_client(
    client: TestClient, desk: Desk, airflow: dict[str, str]
) -> None:
    job = desk.running()
    answer = client.post("/v1/leases", json=wanted(job), headers=airflow)
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert found.keys() == GOLDEN["postgres"].keys()
    assert answer.headers["location"] == f"/v1/leases/{found['lease_id']}"
    assert answer.headers["cache-control"] == "no-store"
    with psycopg2.connect(
        host=found["host"],
        port=found["port"],
        dbname=found["schema"],
        user=found["login"],
        password=found["password"],
    ) as task:
        assert asked(task, "SELECT session_user::text") == [(found["lease_id"],)]
    row = desk.lease(found["lease_id"])
    assert (row.client, row.project, row.job) == ("acme", "flights", job.id)
    assert 890 < (row.expires_at - row.created_at).total_seconds() <= 901
    assert found["password"] not in str({**row.__dict__})

    renewed = client.put(f"/v1/leases/{row.id}/renew", headers=airflow)
    assert renewed.json()["expires_at"] > found["expires_at"].replace("Z", "")
    for _ in range(2):
        assert client.delete(f"/v1/leases/{row.id}", headers=airflow).status_code == 204
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(
            host=found["host"],
            port=found["port"],
            dbname=found["schema"],
            user=found["login"],
            password=found["password"],
        )
    assert client.put(f"/v1/leases/{row.id}/renew", headers=airflow).status_code == 409
    assert desk.actions(row.id) == [
        "lease.requested",
        "lease.issued",
        "lease.renewed",
        "lease.ended",
        "lease.revoked",
    ]
    with desk.sessions.begin() as session:
        assert trail.verify(session).broken_at is None
        told = str([each.details for each in session.scalars(select(AuditEvent))])
    assert found["password"] not in told


def test_what_is_answered_has_the_agreed_keys(
    client: TestClient, desk: Desk, airflow: dict[str, str]
) -> None:
    job = desk.running()
    for resource in ("postgres", "landing", "directory"):
        answer = client.post("/v1/leases", json=wanted(job, resource), headers=airflow).json()
        agreed = GOLDEN[resource]
        assert answer.keys() == agreed.keys()
        assert answer["extra"].keys() == agreed["extra"].keys()
        nothing = {key for key, value in answer.items() if value is None}
        assert nothing == {key for key, value in agreed.items() if value is None}
        assert answer["conn_type"] == agreed["conn_type"]


def test_the_agreed_request_is_understood(
    client: TestClient, desk: Desk, airflow: dict[str, str]
) -> None:
    answer = client.post("/v1/leases", json=GOLDEN["request"], headers=airflow)
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")


def test_nobody_but_airflows_api_server_gets_a_lease(
    client: TestClient, desk: Desk, bearer: Bearer
) -> None:
    job = desk.running()
    lease, _ = desk.ask(job, "landing")
    before = count(desk)
    path = f"/v1/leases/{lease.id}"
    for who in ("acme-uploader", "acme-operator", "svc-airflow", "admin", "auditor", None):
        headers = {} if who is None else bearer(who)
        refused = 401 if who is None else 403
        assert client.post("/v1/leases", json=wanted(job), headers=headers).status_code == refused
        assert client.put(f"{path}/renew", headers=headers).status_code == refused
        assert client.delete(path, headers=headers).status_code == refused
    assert count(desk) == before
    assert desk.lease(lease.id).state == "issued"


STRANGE: tuple[tuple[dict[str, Any], int, str], ...] = (
    ({"dag_id": "globex__weather"}, 404, "not-found"),
    ({"dag_id": "acme__flights2"}, 404, "not-found"),
    ({"dag_id": "acme__flights__x"}, 404, "not-found"),
    ({"run_id": "manual__2026"}, 404, "not-found"),
    ({"run_id": "gw.job_" + "0" * 26}, 404, "not-found"),
    ({"run_id": "gw.job_\u0000"}, 422, "invalid-request"),
    ({"resource": "hdfs"}, 422, "invalid-request"),
    ({"resource": "../postgres"}, 422, "invalid-request"),
    ({"map_index": -2}, 422, "invalid-request"),
    ({"client": "globex"}, 422, "invalid-request"),
    ({"try_number": "1"}, 422, "invalid-request"),
)


def test_a_task_that_is_no_running_jobs_gets_nothing(
    client: TestClient, desk: Desk, airflow: dict[str, str]
) -> None:
    job = desk.running()
    for changed, status, slug in STRANGE:
        answer = client.post("/v1/leases", json=wanted(job) | changed, headers=airflow)
        told = (answer.status_code, answer.json()["type"])
        assert told == (status, f"/problems/{slug}"), changed
    assert count(desk) == 0


def test_another_clients_run_does_not_help_a_dag_to_its_lease(
    client: TestClient, desk: Desk, airflow: dict[str, str]
) -> None:
    ours, theirs = desk.running(), desk.running("globex", "weather")
    mixed = wanted(ours) | {"run_id": f"gw.{theirs.id}"}
    assert client.post("/v1/leases", json=mixed, headers=airflow).status_code == 404
    assert count(desk) == 0


def test_a_job_that_does_not_run_gets_no_lease(
    client: TestClient, desk: Desk, airflow: dict[str, str]
) -> None:
    job = desk.running()
    for state, slug in (
        ("queued", "job-not-started"),
        ("blocked", "job-not-started"),
        ("succeeded", "job-finished"),
        ("canceled", "job-finished"),
    ):
        with desk.sessions.begin() as session:
            session.execute(update(Job).where(Job.id == job.id).values(state=state))
        answer = client.post("/v1/leases", json=wanted(job), headers=airflow)
        assert (answer.status_code, answer.json()["type"]) == (409, f"/problems/{slug}")
        assert answer.json()["retryable"] == (slug == "job-not-started")


def test_a_job_that_is_being_canceled_and_a_client_that_left_get_no_lease(
    client: TestClient, desk: Desk, airflow: dict[str, str]
) -> None:
    job = desk.running()
    lease, _ = desk.ask(job, "landing")
    with desk.sessions.begin() as session:
        now = select(Job.created_at).where(Job.id == job.id).scalar_subquery()
        session.execute(update(Job).where(Job.id == job.id).values(cancel_requested_at=now))
    assert client.post("/v1/leases", json=wanted(job), headers=airflow).status_code == 409
    assert client.put(f"/v1/leases/{lease.id}/renew", headers=airflow).status_code == 409
    other = desk.running("globex", "weather")
    with desk.sessions.begin() as session:
        session.execute(update(Client).where(Client.name == "globex").values(state="gone"))
    assert client.post("/v1/leases", json=wanted(other), headers=airflow).status_code == 404


def test_a_task_and_a_client_hold_so_many_leases_and_no_more(
    client: TestClient, desk: Desk, airflow: dict[str, str]
) -> None:
    job = desk.running()

    def ask(map_index: int) -> int:
        body = wanted(job, "landing", map_index=map_index)
        return client.post("/v1/leases", json=body, headers=airflow).status_code

    with ThreadPoolExecutor(8) as crowd:
        of_one_task = list(crowd.map(ask, [0] * 8))
        of_the_client = list(crowd.map(ask, range(1, 9)))
    assert sorted(of_one_task) == [201] * 3 + [429] * 5
    assert sorted(of_the_client) == [201] * 3 + [429] * 5
    other = wanted(desk.running("globex", "weather"), "landing")
    assert client.post("/v1/leases", json=other, headers=airflow).status_code == 201


def test_a_new_try_ends_the_leases_of_the_earlier(desk: Desk) -> None:
    job = desk.running()
    first, _ = desk.ask(job, "landing")
    mapped, _ = desk.ask(job, "landing", map_index=2)
    again, _ = desk.ask(job, "landing")
    second, _ = desk.ask(job, "landing", try_number=2)
    states = [desk.lease(each.id).state for each in (first, mapped, again, second)]
    assert states == ["revoking", "issued", "revoking", "issued"]
    assert desk.lease(first.id).reason == "superseded"


def test_administrators_list_leases_and_revoke_them(
    client: TestClient, desk: Desk, bearer: Bearer
) -> None:
    admin = bearer("admin")
    lease, found = desk.ask(desk.running())
    desk.ask(desk.running("globex", "weather"), "landing")
    listed = client.get("/v1/admin/leases?client=acme&state=issued", headers=admin).json()
    assert [each["id"] for each in listed["items"]] == [lease.id]
    assert str(found.password) not in str(listed)
    assert "handle" not in listed["items"][0]
    whole = client.get("/v1/admin/leases?limit=1", headers=admin).json()
    rest = client.get(f"/v1/admin/leases?cursor={whole['next']}", headers=admin).json()
    assert len(whole["items"] + rest["items"]) == 2
    revoked = client.post(f"/v1/admin/leases/{lease.id}/revoke", headers=admin).json()
    assert (revoked["state"], revoked["reason"]) == ("revoked", "revoked-by-admin")
    with pytest.raises(psycopg2.OperationalError):
        connected(found)
    for who in ("acme-operator", "auditor", "svc-airflow-api"):
        headers = bearer(who)
        assert client.get("/v1/admin/leases", headers=headers).status_code == 403
        path = f"/v1/admin/leases/{lease.id}/revoke"
        assert client.post(path, headers=headers).status_code == 403
    unknown = "/v1/admin/leases/lea_" + "0" * 26 + "/revoke"
    assert client.post(unknown, headers=admin).status_code == 404
    assert client.get("/v1/admin/leases").status_code == 401
