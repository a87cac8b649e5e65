"""What the gateway writes has exactly the shape that the Airflow side is tested against."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from pydantic import BaseModel
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from gateway.admin import views as admin
from gateway.batches import views as batches
from gateway.identity import requests, tokens
from gateway.identity.token_doors import TokenAnswer, TokenForm
from gateway.jobs import views as jobs
from gateway.leases import views as leases
from gateway.settings import Settings
from tests import factories

CONTRACT = Path(__file__).parents[2] / "airflow" / "contract"


def golden(name: str) -> Any:
    return json.loads((CONTRACT / name).read_text())


def opened(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    claims = jwt.decode(token, options={"verify_signature": False})
    return jwt.get_unverified_header(token), claims


def assert_shape(token: str, kind: str, config: Settings) -> None:
    header, claims = opened(token)
    wanted = golden("token_claims.json")[kind]
    assert header.keys() == {*wanted["header"], "kid"}
    assert {key: header[key] for key in wanted["header"]} == wanted["header"]
    assert claims.keys() == wanted["claims"].keys()
    assert claims["iss"] == config.tokens.issuer
    assert claims["exp"] - claims["iat"] <= wanted["max_life_seconds"]
    assert abs(claims["iat"] - time.time()) < 5
    for name in ("aud", "sub", "client", "dags"):
        assert claims.get(name) == wanted["claims"].get(name), name
    assert set(claims["scope"].split()) == set(wanted["claims"]["scope"].split())


@pytest.mark.parametrize("kind", ["trigger", "cancel", "watcher", "pools"])
def test_tokens_for_airflow_have_the_agreed_claims(
    kind: str, config: Settings, keys_dir: Path
) -> None:
    keys = tokens.KeyRing.load(keys_dir)
    minted = {
        "trigger": lambda: tokens.mint_trigger(
            keys, config.tokens, config.airflow.audience, "acme", "acme__flights"
        ),
        "cancel": lambda: tokens.mint_trigger(
            keys,
            config.tokens,
            config.airflow.audience,
            "acme",
            "acme__flights",
            scope="dags:cancel",
        ),
        "watcher": lambda: tokens.mint_watcher(keys, config.tokens, config.airflow.audience),
        "pools": lambda: tokens.mint_pools(keys, config.tokens, config.airflow.audience, "acme"),
    }[kind]()
    assert_shape(minted, kind, config)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("acme-viewer", "viewer"), ("acme-operator", "operator"), ("auditor", "auditor")],
)
def test_a_persons_token_for_airflow_has_the_agreed_claims(
    name: str,
    kind: str,
    sessions: sessionmaker[Session],
    token: Callable[..., str],
    config: Settings,
) -> None:
    factories.onboard_two(sessions)
    assert_shape(token(name, audience="airflow"), kind, config)


def test_an_administrators_token_for_airflow_has_the_agreed_claims(
    sessions: sessionmaker[Session], token: Callable[..., str], config: Settings
) -> None:
    wanted = golden("token_claims.json")["admin"]["claims"]
    _, claims = opened(token("admin", audience="airflow"))
    assert claims.keys() == wanted.keys()
    assert claims["scope"] == wanted["scope"]


def test_a_manifest_has_the_agreed_keys(
    client: TestClient,
    sessions: sessionmaker[Session],
    bearer: Callable[[str], dict[str, str]],
) -> None:
    factories.onboard_two(sessions)
    headers = bearer("acme-uploader")
    body = {
        "project": "flights",
        "reference": "2013",
        "period": {"start": "2013-01-01", "end": "2013-12-31"},
    }
    batch = client.post("/v1/batches", json=body, headers=headers).json()["id"]
    client.put(f"/v1/batches/{batch}/files/flights.zip", content=b"test", headers=headers)
    client.post(f"/v1/batches/{batch}/seal", headers=headers)
    found = client.get(f"/v1/batches/{batch}/manifest", headers=headers).json()
    wanted = golden("manifest.json")
    assert found.keys() == wanted.keys()
    assert [each.keys() for each in found["files"]] == [each.keys() for each in wanted["files"]]
    assert {**found, "batch": "", "sealed_at": "", "files": []} == {
        **wanted,
        "batch": "",
        "sealed_at": "",
        "files": [],
    }


@pytest.mark.parametrize("kind", ["request", "planned", "failed"])
def test_the_agreed_progress_report_is_taken(
    client: TestClient,
    sessions: sessionmaker[Session],
    bearer: Callable[[str], dict[str, str]],
    kind: str,
) -> None:
    factories.onboard_two(sessions)
    headers = bearer("acme-uploader")
    body = {"project": "flights", "reference": "2013"}
    batch = client.post("/v1/batches", json=body, headers=headers).json()["id"]
    client.put(f"/v1/batches/{batch}/files/a.csv", content=b"test", headers=headers)
    job = client.post(f"/v1/batches/{batch}/seal", headers=headers).json()["job"]["id"]
    report = {**golden("progress.json")[kind], "run_id": f"gw.{job}", "batch_id": batch}
    answer = client.post(f"/v1/jobs/{job}/progress", json=report, headers=bearer("svc-airflow"))
    assert answer.status_code in {204, 409}, answer.text
    assert answer.status_code == 204 or answer.json()["type"] != "/problems/invalid-request"


def test_what_views_are_shown_has_the_agreed_shape() -> None:
    shown = golden("views.json")
    shapes: dict[str, type[BaseModel]] = {
        "batch": batches.BatchView,
        "job": jobs.JobView,
        "reject": jobs.RejectView,
        "lease": leases.LeaseView,
        "client": admin.ClientView,
        "event": admin.AuditEventView,
    }
    for name, shape in shapes.items():
        view = shape.model_validate(shown[name])
        assert shape.model_fields.keys() == shown[name].keys(), name
        assert view.model_dump(mode="json", by_alias=True) == shown[name], name
    admin.ClientsJob.model_validate({**shown["job"], **shown["admin_job"]})
    whose = admin.ClientsJob.model_fields.keys() - jobs.JobView.model_fields.keys()
    assert whose == shown["admin_job"].keys()


def test_an_exchange_has_the_agreed_shape() -> None:
    exchange = golden("views.json")["exchange"]
    assert exchange["form"]["grant_type"] == requests.TOKEN_EXCHANGE
    assert exchange["form"]["subject_token_type"] == requests.SESSION_TOKEN
    assert exchange["form"].keys() <= TokenForm.model_fields.keys()
    answer = TokenAnswer.model_validate(exchange["answer"])
    assert answer.model_dump(exclude_none=True).keys() == exchange["answer"].keys()
    assert answer.issued_token_type == requests.ACCESS_TOKEN
