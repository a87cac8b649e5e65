"""Leases of the landing zone: a path beside the gateway, a pass to one batch elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from gateway import bootstrap, settings
from gateway.bootstrap import Services
from gateway.errors import GatewayError
from gateway.jobs import states
from gateway.leases import reaper, resources
from gateway.settings import SettingsError
from tests.leases.asking import Desk

Headers = dict[str, str]
Bearer = Callable[[str], Headers]


@pytest.fixture
def delivered(client: TestClient, desk: Desk, bearer: Bearer) -> Callable[..., tuple[str, Any]]:
    """Return a function that delivers a batch and has its job run."""

    def deliver(who: str = "acme-uploader", project: str = "flights") -> tuple[str, Any]:
        headers = bearer(who)
        body = {"project": project, "reference": f"{who}-{project}-{len(made)}"}
        batch = client.post("/v1/batches", json=body, headers=headers).json()["id"]
        client.put(f"/v1/batches/{batch}/files/a.csv", content=b"id\n1\n", headers=headers)
        sealed = client.post(f"/v1/batches/{batch}/seal", headers=headers).json()["job"]["id"]
        made.append(batch)
        with desk.sessions.begin() as session:
            job = states.move(session, sealed, "running")
        return batch, job

    made: list[str] = []
    return deliver


def opens(client: TestClient, batch: str, headers: Headers, method: str = "GET") -> int:
    path = f"/v1/batches/{batch}/files/a.csv/content"
    status: int = client.request(method, path, headers=headers).status_code
    return status


def test_a_pass_opens_the_files_of_its_batch_and_of_no_other(
    client: TestClient, desk: Desk, delivered: Callable[..., tuple[str, Any]], bearer: Bearer
) -> None:
    batch, job = delivered()
    sibling, _ = delivered()
    foreign, _ = delivered("globex-uploader", "weather")
    lease, found = desk.ask(job, "landing")
    assert found.extra["batch_url"] == f"http://gateway.test/v1/batches/{batch}"
    headers = {"Authorization": f"Bearer {found.password}"}
    content = client.get(f"/v1/batches/{batch}/files/a.csv/content", headers=headers)
    assert (content.status_code, content.content) == (200, b"id\n1\n")
    names = client.get(f"/v1/batches/{batch}/manifest", headers=headers).json()["files"]
    assert [each["name"] for each in names] == ["a.csv"]
    assert client.get(f"/v1/batches/{batch}/files/a.csv", headers=headers).status_code == 200
    assert opens(client, sibling, headers) == 404
    assert opens(client, foreign, headers) == 404
    assert opens(client, sibling, bearer("acme-uploader")) == 200
    desk.lending.revoke(lease.id, reason="asked", actor="test")
    assert opens(client, batch, headers) == 401


OTHER_DOORS = (
    ("GET", "/v1/me"),
    ("GET", "/v1/batches"),
    ("GET", "/v1/batches/{batch}"),
    ("GET", "/v1/batches/{batch}/receipt"),
    ("GET", "/v1/jobs"),
    ("GET", "/v1/events"),
    ("GET", "/v1/projects"),
    ("PUT", "/v1/batches/{batch}/files/b.csv"),
    ("DELETE", "/v1/batches/{batch}/files/a.csv"),
    ("DELETE", "/v1/batches/{batch}"),
    ("POST", "/v1/batches/{batch}/seal"),
    ("POST", "/v1/leases"),
    ("GET", "/v1/admin/leases"),
)


def test_a_pass_opens_no_other_door(
    client: TestClient, desk: Desk, delivered: Callable[..., tuple[str, Any]]
) -> None:
    batch, job = delivered()
    _, found = desk.ask(job, "landing")
    headers = {"Authorization": f"Bearer {found.password}"}
    for method, path in OTHER_DOORS:
        answer = client.request(method, path.format(batch=batch), headers=headers)
        told = (answer.status_code, answer.json()["type"])
        assert told == (401, "/problems/invalid-token"), (method, path)


def test_a_pass_lives_as_long_as_its_lease(
    client: TestClient, desk: Desk, delivered: Callable[..., tuple[str, Any]]
) -> None:
    batch, job = delivered()
    lease, found = desk.ask(job, "landing")
    headers = {"Authorization": f"Bearer {found.password}"}
    driver = desk.lending.resources.offered["landing"]
    driver.renew(lease.handle, -1)
    assert opens(client, batch, headers) == 401, "its time is over"
    desk.lending.renew(lease.id, actor="test")
    assert opens(client, batch, headers) == 200
    desk.move(job, "failed")
    assert reaper.turn(desk.lending).revoked == 1
    assert opens(client, batch, headers) == 401
    driver.revoke(lease.handle)
    with pytest.raises(GatewayError):
        driver.renew(lease.handle, 60)


def test_a_made_up_pass_opens_nothing(client: TestClient, desk: Desk) -> None:
    for token in ("gwp_", "gwp_x", "gwp_" + "a" * 43, "gwp_" + "a" * 5000):
        assert opens(client, "bat_" + "0" * 26, {"Authorization": f"Bearer {token}"}) == 401


def test_a_task_beside_the_gateway_is_told_where_its_batch_lies(
    environment: dict[str, str], services: Services, desk: Desk
) -> None:
    config = settings.load(environment | {"GATEWAY_LEASES_LANDING": "path"})
    found = resources.build(config, services.sessions)
    lending = type(desk.lending)(config.leases, services.sessions, found)
    job = desk.running()
    beside = type(desk)(desk.sessions, lending)
    lease, connection = beside.ask(job, "landing")
    root = Path(environment["GATEWAY_LANDING_ROOT"])
    wanted = root / "acme" / "flights" / job.batch_id
    assert connection.extra == {"path": str(wanted)}
    assert connection.password is None
    assert lending.revoke(lease.id, reason="asked", actor="test").state == "revoked"


WEAK: tuple[tuple[dict[str, str], str], ...] = (
    ({"POSTGRES_URL": "postgresql://localhost/x"}, "GATEWAY_LEASES_POSTGRES_URL: must be"),
    ({"DIRECTORY_BIND_PASSWORD": ""}, "GATEWAY_LEASES_DIRECTORY_BIND_DN: needs"),
    ({"S3_BUCKET": "clients"}, "GATEWAY_LEASES_S3_ENDPOINT: must be set"),
    (
        {
            "S3_BUCKET": "clients",
            "S3_ENDPOINT": "http://s3.example.com",
            "S3_ACCESS_KEY_ID": "x",
            "S3_SECRET_ACCESS_KEY": "y",
        },
        "GATEWAY_LEASES_S3_ENDPOINT: use https://",
    ),
)


def test_weak_settings_are_refused_with_a_line_each(environment: dict[str, str]) -> None:
    for changed, line in WEAK:
        given = environment | {f"GATEWAY_LEASES_{name}": value for name, value in changed.items()}
        with pytest.raises(SettingsError, match=line):
            bootstrap.build(settings.load(given))
