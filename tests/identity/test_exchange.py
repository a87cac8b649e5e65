"""Tokens that an application gets for the people who signed on to it (RFC 8693): to look."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from deploy.local.directory import Directory as DirectoryServer
from gateway.audit.model import AuditEvent
from gateway.identity import requests
from tests.identity.conftest import DirectoryAdmin, Start
from tests.identity.signon.signing_on import SECRETS, Attempt, answered, served


@pytest.fixture
def client(start: Start) -> TestClient:
    return served(start, LDAP_CACHE_SECONDS=0)


@pytest.fixture
def passwords(directory_server: DirectoryServer) -> dict[str, str]:
    return directory_server.passwords


def claims_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def session_of(access_token: str) -> str:
    return str(claims_of(access_token)["jti"].partition(".")[0])


def signed_on(client: TestClient, name: str, passwords: dict[str, str]) -> str:
    """Sign a person on to Airflow; return the session's id."""
    attempt = Attempt(client)
    code = answered(attempt.post(name, passwords[name]))["code"]
    return session_of(attempt.redeem(code).json()["access_token"])


def exchange(speaker: TestClient, session: str, /, **changed: str | None) -> Any:
    application = changed.pop("application", "airflow") or ""
    form = {
        "grant_type": requests.TOKEN_EXCHANGE,
        "subject_token": session,
        "subject_token_type": requests.SESSION_TOKEN,
        "scope": "batches:read",
        "client_id": application,
        "client_secret": SECRETS.get(application, ""),
        **changed,
    }
    sent = {name: value for name, value in form.items() if value is not None}
    return speaker.post("/v1/token", data=sent)


def door(client: TestClient, name: str, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return int(client.get(f"/doors/{name}", headers=headers).status_code)


def test_an_application_gets_a_short_token_of_the_person_for_looking_only(
    client: TestClient, passwords: dict[str, str]
) -> None:
    session = signed_on(client, "acme-operator", passwords)
    answer = exchange(client, session, audience="gateway")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body.keys() == {
        "access_token",
        "token_type",
        "expires_in",
        "scope",
        "issued_token_type",
    }
    assert body["issued_token_type"] == requests.ACCESS_TOKEN
    claims = claims_of(body["access_token"])
    assert (claims["sub"], claims["client"]) == ("acme-operator", "acme")
    assert (claims["aud"], claims["scope"]) == ("gateway", "batches:read")
    assert claims["exp"] - claims["iat"] == body["expires_in"] <= 60
    assert door(client, "reader", body["access_token"]) == 200
    for closed in ("writer", "operator", "auditor", "admin", "overseer"):
        assert door(client, closed, body["access_token"]) == 403


def test_an_administrators_token_sees_and_changes_nothing(
    client: TestClient, passwords: dict[str, str]
) -> None:
    session = signed_on(client, "admin", passwords)
    token = exchange(client, session, scope="admin:read").json()["access_token"]
    assert "client" not in claims_of(token)
    assert [door(client, name, token) for name in ("overseer", "auditor")] == [200, 200]
    assert [door(client, name, token) for name in ("admin", "reader", "platform")] == [403] * 3


def test_the_token_dies_with_the_sign_on(client: TestClient, passwords: dict[str, str]) -> None:
    session = signed_on(client, "acme-operator", passwords)
    token = exchange(client, session).json()["access_token"]
    assert door(client, "reader", token) == 200
    auth = ("airflow", SECRETS["airflow"])
    form = {"token": session, "token_type_hint": "session"}
    assert client.post("/v1/token/revoke", data=form, auth=auth).status_code == 200
    assert door(client, "reader", token) == 401
    assert exchange(client, session).json()["error"] == "invalid_request"


def test_rights_are_those_of_this_moment(
    client: TestClient, directory_admin: DirectoryAdmin
) -> None:
    dn = directory_admin.person("leaver")
    directory_admin.add_member("acme-viewers", dn)
    session = signed_on(client, "leaver", {"leaver": "right password"})
    token = exchange(client, session).json()["access_token"]
    directory_admin.remove_member("acme-viewers", dn)
    assert exchange(client, session).json()["error"] == "invalid_scope"
    assert door(client, "reader", token) == 403
    directory_admin.delete(dn)
    assert exchange(client, session).json()["error"] == "invalid_request"


REFUSED: list[tuple[dict[str, str | None], str, int]] = [
    ({"client_secret": "x" * 40}, "invalid_client", 401),
    ({"client_secret": None}, "invalid_client", 401),
    ({"application": "console"}, "invalid_request", 400),
    ({"subject_token": "fam_00000000000000000000000000"}, "invalid_request", 400),
    ({"subject_token": None}, "invalid_request", 400),
    ({"subject_token_type": requests.ACCESS_TOKEN}, "invalid_request", 400),
    (
        {"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
        "invalid_request",
        400,
    ),
    ({"actor_token": "x"}, "invalid_request", 400),
    ({"audience": "airflow"}, "invalid_target", 400),
    ({"audience": "elsewhere"}, "invalid_target", 400),
    ({"client": "globex"}, "invalid_request", 400),
    ({"scope": None}, "invalid_scope", 400),
    ({"scope": "batches:write"}, "invalid_scope", 400),
    ({"scope": "batches:read batches:write"}, "invalid_scope", 400),
    ({"scope": "admin"}, "invalid_scope", 400),
    ({"scope": "admin:read"}, "invalid_scope", 400),
    ({"scope": "audit:read"}, "invalid_scope", 400),
    ({"scope": "leases"}, "invalid_scope", 400),
]


def test_whatever_goes_beyond_is_refused(client: TestClient, passwords: dict[str, str]) -> None:
    session = signed_on(client, "acme-operator", passwords)
    for changed, error, status in REFUSED:
        answer = exchange(client, session, **changed)
        assert (answer.status_code, answer.json()["error"]) == (status, error), changed
    assert exchange(client, session).status_code == 200


def test_a_scripts_session_is_no_browsers(client: TestClient, passwords: dict[str, str]) -> None:
    form = {
        "grant_type": "password",
        "username": "acme-operator",
        "password": passwords["acme-operator"],
        "audience": "airflow",
    }
    session = session_of(client.post("/v1/token", data=form).json()["access_token"])
    assert exchange(client, session).json()["error"] == "invalid_request"


def test_admin_read_is_not_given_to_whoever_asks_by_password(
    client: TestClient, passwords: dict[str, str]
) -> None:
    form = {
        "grant_type": "password",
        "username": "admin",
        "password": passwords["admin"],
        "scope": "admin:read",
    }
    assert client.post("/v1/token", data=form).json()["error"] == "invalid_scope"


def test_each_exchange_is_in_the_trail(
    client: TestClient, passwords: dict[str, str], sessions: sessionmaker[Session]
) -> None:
    session = signed_on(client, "acme-operator", passwords)
    exchange(client, session)
    exchange(client, session, scope="admin:read")
    with sessions() as database:
        query = select(AuditEvent).where(AuditEvent.action == "token.exchanged")
        (found,) = database.scalars(query)
        assert (found.actor, found.client, found.subject) == ("acme-operator", "acme", session)
        assert found.details["application"] == "airflow"
        assert found.details["scope"] == "batches:read"


def test_the_directory_away_gives_no_token(
    client: TestClient, passwords: dict[str, str], directory_server: DirectoryServer
) -> None:
    session = signed_on(client, "acme-operator", passwords)
    directory_server.pause()
    try:
        answer = exchange(client, session)
        assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    finally:
        directory_server.resume()
