"""What a token or a session is worth at this moment, and how sessions end."""

from __future__ import annotations

import json
import time
from pathlib import Path

from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from gateway import settings
from gateway.audit.model import AuditEvent
from gateway.identity import sessions as signed_in
from gateway.identity import tokens
from tests.identity.conftest import DirectoryAdmin, Start
from tests.identity.signon.signing_on import (
    CONTRACT,
    ISSUER,
    Attempt,
    answered,
    end_session,
    family_of,
    served,
    signed_on,
)


def test_a_session_is_worth_what_the_directory_grants_at_this_moment(
    start: Start, operator: tuple[str, str], directory_admin: DirectoryAdmin
) -> None:
    client = served(start, LDAP_CACHE_SECONDS=0)
    attempt = Attempt(client)
    token = attempt.redeem(answered(attempt.post(*operator))["code"]).json()["access_token"]
    session = {"token": family_of(token), "token_type_hint": "session"}
    found = attempt.introspect(**session)
    golden = json.loads((CONTRACT / "introspection.json").read_text())
    assert found.keys() == golden["person"].keys()
    assert found["scope"] == "batches:read batches:write jobs:write"
    assert 28_000 < found["exp"] - time.time() <= 28_800
    member = f"uid=acme-operator,ou=people,{directory_admin.base}"
    directory_admin.add_member("acme-viewers", member)
    directory_admin.remove_member("acme-operators", member)
    assert attempt.introspect(**session)["scope"] == "batches:read"
    directory_admin.remove_member("acme-viewers", member)
    assert attempt.introspect(**session) == golden["ended"]
    assert attempt.introspect(token) == golden["ended"]


def test_how_long_an_answer_is_good_is_what_is_left_of_the_minute(
    client: TestClient, operator: tuple[str, str]
) -> None:
    attempt = Attempt(client)
    token = attempt.redeem(answered(attempt.post(*operator))["code"]).json()["access_token"]
    assert 0 < attempt.introspect(token)["fresh_seconds"] <= 60


def test_the_gateways_own_tokens_are_worth_something_until_they_are_revoked(
    client: TestClient, config: settings.Settings, keys_dir: Path
) -> None:
    ours = config.tokens.model_copy(update={"issuer": ISSUER})
    keys = tokens.KeyRing.load(keys_dir)
    attempt = Attempt(client)
    token = tokens.mint_trigger(keys, ours, "airflow", "acme", "acme__flights")
    found = attempt.introspect(token)
    golden = json.loads((CONTRACT / "introspection.json").read_text())
    assert found.keys() == golden["trigger"].keys()
    assert {**found, "exp": 0} == {**golden["trigger"], "exp": 0}
    assert client.post("/v1/token/revoke", data={"token": token}).status_code == 200
    assert attempt.introspect(token) == golden["ended"]


def test_an_application_learns_nothing_of_tokens_for_another_audience(
    client: TestClient, operator: tuple[str, str]
) -> None:
    attempt = Attempt(client)
    token = attempt.redeem(answered(attempt.post(*operator))["code"]).json()["access_token"]
    stranger = Attempt(client, "console")
    for form in ({"token": token}, {"token": family_of(token), "token_type_hint": "session"}):
        assert stranger.introspect(**form) == {"active": False}
    assert end_session(client, family_of(token), "console").status_code == 200
    assert attempt.introspect(token)["active"]


def test_who_proves_nothing_is_told_nothing(client: TestClient) -> None:
    for path in ("/v1/token/introspect", "/v1/token/revoke"):
        form = {"token": "fam_x", "token_type_hint": "session"}
        for auth in (None, ("airflow", "x" * 40), ("unknown", "x" * 40)):
            answer = client.post(path, data=form, auth=auth)  # type: ignore[arg-type]
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_what_is_none_of_ours_is_worth_nothing(client: TestClient) -> None:
    attempt = Attempt(client)
    for token in ("x", "a.b.c", "x" * 9000, "fam_unknown", "e30.e30.AAAA"):
        assert attempt.introspect(token) == {"active": False}
        assert attempt.introspect(token, token_type_hint="session") == {"active": False}


def test_signing_out_of_an_application_signs_out_of_all(
    client: TestClient, operator: tuple[str, str]
) -> None:
    first = signed_on(client, operator)
    token = first.redeem(answered(first.open())["code"]).json()["access_token"]
    second = Attempt(client, "grafana")
    other = second.redeem(answered(second.open())["code"]).json()["access_token"]
    assert end_session(client, family_of(token)).status_code == 200
    assert first.introspect(token) == second.introspect(other) == {"active": False}
    assert "Password" in Attempt(client).open().text
    assert end_session(client, family_of(token)).status_code == 200


def test_a_scripts_session_can_be_ended_too(client: TestClient, operator: tuple[str, str]) -> None:
    user, password = operator
    form = {"grant_type": "password", "username": user, "password": password}
    body = client.post("/v1/token", data={**form, "audience": "airflow"}).json()
    attempt, session = Attempt(client), family_of(body["access_token"])
    assert attempt.introspect(session, token_type_hint="session")["active"]
    client.post("/v1/token/revoke", data={"token": body["access_token"]})
    assert attempt.introspect(session, token_type_hint="session") == {"active": False}


def test_the_trail_tells_the_whole_story(
    client: TestClient, operator: tuple[str, str], sessions: sessionmaker[Session]
) -> None:
    attempt = Attempt(client)
    attempt.post(operator[0], "wrong")
    code = answered(attempt.post(*operator))["code"]
    token = attempt.redeem(code).json()["access_token"]
    attempt.redeem(code)
    another = answered(attempt.open())["code"]
    attempt.redeem(another, code_verifier="v" * 43)
    third = answered(attempt.open())["code"]
    again = attempt.redeem(third).json()["access_token"]
    end_session(client, family_of(again))
    with sessions.begin() as session:
        found = session.scalars(select(AuditEvent).order_by(AuditEvent.number)).all()
    assert {event.actor for event in found} == {"acme-operator"}
    assert [event.action for event in found] == [
        "login.failed",
        "login.succeeded",
        "login.succeeded",
        "code.reused",
        "token.revoked",
        "code.refused",
        "login.succeeded",
        "login.ended",
    ]
    written = "".join(f"{event.subject}{event.details}" for event in found)
    for secret in (code, another, third, operator[1], token):
        assert secret not in written


def test_what_has_had_its_time_is_forgotten(
    client: TestClient, operator: tuple[str, str], sessions: sessionmaker[Session]
) -> None:
    attempt = Attempt(client)
    attempt.redeem(answered(attempt.post(*operator))["code"])
    with sessions.begin() as session:
        assert signed_in.sweep(session) == 0
        for table in ("authorization_code", "token_family", "sign_in"):
            session.execute(text(f"UPDATE {table} SET expires_at = now() - interval '3 days'"))
    with sessions.begin() as session:
        assert signed_in.sweep(session) == 3
