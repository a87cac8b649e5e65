"""Client B at every door of the OpenAPI document, with client A's ids: as if there were nothing."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from tests import factories
from tests.parts import GatewayServer

OURS = "flights_2013_01.csv"


@dataclass
class Delivered:
    """What client A has: a sealed batch with a job, an open one with a file and an upload."""

    sealed: str
    job: str
    open: str
    upload: str

    def words(self) -> list[str]:
        named = [self.sealed, self.job, self.open, self.upload]
        return [*named, OURS, "reference-of-a", "flights", "acme"]


@pytest.fixture
def delivered(
    client: TestClient,
    sessions: sessionmaker[Session],
    bearer: Callable[[str], dict[str, str]],
) -> Delivered:
    factories.onboard_two(sessions)
    headers = bearer("acme-uploader")

    def batch(reference: str) -> str:
        body = {"project": "flights", "reference": reference}
        created = client.post("/v1/batches", json=body, headers=headers)
        assert created.status_code == 201, created.text
        identity: str = created.json()["id"]
        put = client.put(
            f"/v1/batches/{identity}/files/{OURS}", content=b"id\n1\n", headers=headers
        )
        assert put.status_code == 201, put.text
        return identity

    sealed = batch("reference-of-a-1")
    answer = client.post(f"/v1/batches/{sealed}/seal", headers=headers)
    assert answer.status_code == 202, answer.text
    opened = batch("reference-of-a-2")
    begun = client.post(f"/v1/batches/{opened}/uploads", headers={**headers, **TUS})
    assert begun.status_code == 201, begun.text
    upload = begun.headers["location"].rpartition("/")[2]
    return Delivered(sealed, answer.json()["job"]["id"], opened, upload)


# All that the doors of resumable uploads want; the name is YS5jc3Y=, a.csv.
TUS = {
    "Tus-Resumable": "1.0.0",
    "Upload-Length": "5",
    "Upload-Offset": "0",
    "Upload-Metadata": "filename YS5jc3Y=",
    "Content-Type": "application/offset+octet-stream",
}


def doors(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield method.upper(), path, operation


def fill(path: str, batch: str, job: str, upload: str = "") -> str:
    values = {"name": OURS, "client": "acme", "slug": "not-found"}
    # Of one name's uploads there is one at a time: it is named by the batch's own digits.
    named = {"batch_id": batch, "job_id": job, "upload_id": upload or batch.replace("bat", "upl")}
    named["lease_id"] = batch.replace("bat", "lea")

    def value(found: re.Match[str]) -> str:
        key = found[1]
        if key == "id":
            return job if path.startswith(("/v1/jobs", "/v1/admin/jobs")) else batch
        return {**values, **named}[key]

    return re.sub(r"\{(\w+)\}", value, path)


def strip(body: str) -> str:
    return re.sub(r'"request_id":\s*"[^"]*"', "", body)


def ask(client: TestClient, method: str, path: str, headers: dict[str, str]) -> Any:
    body: dict[str, Any] = {}
    if path.endswith("/replays"):
        body = {"json": {"reason": "x"}}
    elif path.endswith("/files"):
        body = {"json": {"files": [{"name": OURS, "size_bytes": 5, "sha256": "0" * 64}]}}
    elif method == "PUT" or (method == "PATCH" and "/uploads" in path):
        body = {"content": b"id\n2\n"}
    if "/uploads" in path:
        headers = {**headers, **TUS}
    return client.request(method, path, headers=headers, **body)


def test_another_clients_objects_answer_as_absent_ones_at_every_door(
    client: TestClient, delivered: Delivered, bearer: Callable[[str], dict[str, str]]
) -> None:
    strangers = [bearer("globex-uploader"), bearer("globex-operator")]
    absent = ("bat_" + "0" * 26, "job_" + "0" * 26)
    tried = 0
    for method, path, _ in doors(client.get("/openapi.json").json()):
        if "{" not in path or method == "OPTIONS":
            continue  # which protocol is spoken is the same everywhere
        for headers in strangers:
            foreign = [
                fill(path, each, delivered.job, delivered.upload)
                for each in (delivered.sealed, delivered.open)
            ]
            nobody = ask(client, method, fill(path, *absent), headers)
            for address in foreign:
                theirs = ask(client, method, address, headers)
                assert theirs.status_code == nobody.status_code, (method, path, theirs.text)
                assert strip(theirs.text) == strip(nobody.text), (method, path)
                assert theirs.status_code in {403, 404, 405}, (method, path, theirs.status_code)
                tried += 1
    assert tried > 40, "the document lists fewer doors than there are"


def test_lists_show_nothing_of_another_client(
    client: TestClient, delivered: Delivered, bearer: Callable[[str], dict[str, str]]
) -> None:
    headers = bearer("globex-operator")
    queries = ["", "?client=acme", "?project=flights", "?reference=reference-of-a-1"]
    for method, path, _ in doors(client.get("/openapi.json").json()):
        if method != "GET" or "{" in path or not path.startswith("/v1/"):
            continue
        for query in queries:
            answer = client.get(path + query, headers=headers)
            shown = [word for word in delivered.words() if word in answer.text]
            assert not shown, (path + query, shown)


def test_a_reference_of_another_client_is_free(
    client: TestClient, delivered: Delivered, bearer: Callable[[str], dict[str, str]]
) -> None:
    body = {"project": "weather", "reference": "reference-of-a-1"}
    assert (
        client.post("/v1/batches", json=body, headers=bearer("globex-uploader")).status_code == 201
    )


@pytest.mark.parametrize("project", ["flights", "none-such"])
def test_another_clients_project_answers_as_an_unknown_one(
    client: TestClient,
    delivered: Delivered,
    bearer: Callable[[str], dict[str, str]],
    project: str,
) -> None:
    body = {"project": project, "reference": "r"}
    answer = client.post("/v1/batches", json=body, headers=bearer("globex-uploader"))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["code"] == "unknown-project"
    assert project not in strip(answer.text)


def test_a_client_named_in_the_body_is_refused(
    client: TestClient, delivered: Delivered, bearer: Callable[[str], dict[str, str]]
) -> None:
    body = {"project": "weather", "reference": "r", "client": "acme"}
    answer = client.post("/v1/batches", json=body, headers=bearer("globex-uploader"))
    assert answer.status_code == 422


PUBLIC = {
    ("POST", "/v1/token"),
    ("POST", "/v1/token/revoke"),
    ("POST", "/v1/token/introspect"),
    ("GET", "/.well-known/jwks.json"),
    ("GET", "/.well-known/oauth-authorization-server"),
    ("GET", "/v1"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("OPTIONS", "/v1/batches/{batch_id}/uploads"),
    ("OPTIONS", "/v1/uploads/{upload_id}"),
}


def test_every_door_but_the_public_ones_refuses_strangers_before_the_first_body_byte(
    server: GatewayServer,
) -> None:
    document = httpx.get(f"{server.url}/openapi.json", verify=False).json()
    found = {(method, path) for method, path, _ in doors(document)}
    assert found >= PUBLIC
    for method, path in sorted(found - PUBLIC):
        address = fill(path, "bat_" + "0" * 26, "job_" + "0" * 26)
        for credentials in ("", "Authorization: Bearer none\r\n", "Authorization: Basic eDp5\r\n"):
            # The body that is announced never comes: whoever waits for it times out.
            announced = "Content-Length: 1000\r\n" if method in {"POST", "PUT", "PATCH"} else ""
            head = f"{method} {address} HTTP/1.1\r\nHost: gateway\r\n{credentials}{announced}\r\n"
            answer = _spoken(server.port, head)
            status, headers = answer.split("\r\n", 1)
            assert " 401 " in status, (method, path, answer)
            assert "www-authenticate: bearer" in headers.lower()
            assert not announced or "connection: close" in headers.lower()


def _spoken(port: int, head: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(head.encode())
        return connection.recv(65_536).decode()
