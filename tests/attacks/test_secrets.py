"""A mark in whatever a caller sends, and every real secret: neither in the log nor at rest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from deploy.local.directory import Directory as DirectoryServer
from tests import factories
from tests.attacks import state
from tests.nursery import Nursery
from tests.parts import GatewayServer, serve

MARK = "CANARYx7q"


@pytest.fixture
def talkative(
    nursery: Nursery, environment: dict[str, str], tmp_path: Path
) -> Iterator[GatewayServer]:
    """A real server that logs all it ever logs."""
    started = serve(nursery, {**environment, "GATEWAY_LOG_LEVEL": "debug"}, tmp_path)
    yield started
    started.stop()


def knock(speaker: httpx.Client) -> None:
    """Fail to sign in, in every way."""
    for form in (
        {"grant_type": "password", "username": f"{MARK}U", "password": f"{MARK}P"},
        {"grant_type": "password", "username": "acme-operator", "password": f"{MARK}P2"},
        {"grant_type": "client_credentials", "client_id": f"{MARK}I", "client_secret": f"{MARK}S"},
        {"grant_type": "refresh_token", "refresh_token": f"{MARK}R"},
        {"grant_type": f"{MARK}G"},
    ):
        answer = speaker.post("/v1/token", data=form)
        assert answer.status_code in {400, 401}
        assert MARK not in answer.text
    speaker.post("/v1/token", content=f"{MARK}RAW")
    speaker.post("/v1/token", data={"grant_type": "client_credentials"}, auth=(f"{MARK}A", "x"))
    speaker.post("/v1/token/revoke", data={"token": f"{MARK}V"})
    for scheme in ("Bearer", "Basic", "Other"):
        answer = speaker.get("/v1/me", headers={"Authorization": f"{scheme} {MARK}T"})
        assert answer.status_code == 401
        assert MARK not in answer.text


def deliver(speaker: httpx.Client, headers: dict[str, str]) -> None:
    """Send marks where a caller may put text that is not kept, and one file full of them."""
    body: dict[str, Any] = {"project": "flights", "reference": "r"}
    batch = speaker.post("/v1/batches", json=body, headers=headers).json()["id"]
    files = f"/v1/batches/{batch}/files"
    stored = speaker.put(f"{files}/a.csv", content=f"id\n{MARK}C\n", headers=headers)
    assert stored.status_code == 201
    wrong = {**headers, "Repr-Digest": "sha-256=:" + "A" * 43 + "=:"}
    speaker.put(f"{files}/b.csv", content=f"id\n{MARK}C2\n", headers=wrong)
    speaker.put(f"{files}/{MARK}N.", content=b"x", headers=headers)
    speaker.post("/v1/batches", json={**body, f"{MARK}K": f"{MARK}W"}, headers=headers)
    speaker.post("/v1/batches", content=f"{{{MARK}J", headers=headers)
    speaker.get(f"/v1/batches?project={MARK}Q&x={MARK}X", headers=headers)
    speaker.get(f"/v1/{MARK}Z", headers=headers)
    speaker.get("/v1/me", headers={**headers, "Cookie": f"{MARK}O", "X-Api-Key": f"{MARK}Y"})
    part = {"file": (f"{MARK}F.", f"{MARK}D")}
    speaker.post("/v1/submissions", data={f"{MARK}E": f"{MARK}H"}, files=part, headers=headers)
    assert speaker.post(f"/v1/batches/{batch}/seal", headers=headers).status_code == 202


def test_no_secret_and_no_content_is_logged_or_kept(
    talkative: GatewayServer,
    directory_server: DirectoryServer,
    sessions: sessionmaker[Session],
    environment: dict[str, str],
) -> None:
    factories.onboard_two(sessions)
    passwords = directory_server.passwords
    with httpx.Client(base_url=talkative.url, timeout=30, verify=False) as speaker:
        service = ("acme-uploader", passwords["acme-uploader"])
        form = {"grant_type": "client_credentials"}
        issued = [speaker.post("/v1/token", data=form, auth=service).json()]
        person = {"username": "acme-operator", "password": passwords["acme-operator"]}
        issued.append(speaker.post("/v1/token", data={"grant_type": "password", **person}).json())
        again = {"grant_type": "refresh_token", "refresh_token": issued[1]["refresh_token"]}
        issued.append(speaker.post("/v1/token", data=again).json())
        knock(speaker)
        deliver(speaker, {"Authorization": f"Bearer {issued[0]['access_token']}"})
        speaker.post("/v1/token/revoke", data={"token": issued[2]["access_token"]})
    log = talkative.log.read_text()
    kept = "\n".join(line for table in state.rows(sessions).values() for line in table)
    assert log.count('"event": "request"') > 20
    assert "acme-uploader" in kept
    secrets = [passwords[user] for user in ("acme-uploader", "acme-operator")]
    secrets += [environment["GATEWAY_LDAP_BIND_PASSWORD"]]
    for each in issued:
        # The signature alone would do for a token whose other parts are guessed.
        secrets += [each["access_token"].split(".")[-1], each.get("refresh_token") or MARK]
    for place in (log, kept):
        assert re.findall(MARK + r"\w*", place) == []
        assert not [secret for secret in secrets if secret in place]
