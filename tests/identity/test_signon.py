"""The one sign-on as applications meet it: requests, codes, what tokens and sessions are worth."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from deploy.local.directory import Directory as DirectoryServer
from gateway import settings
from gateway.audit.model import AuditEvent
from gateway.identity import sessions as signed_in
from gateway.identity import tokens
from gateway.identity.applications import Applications
from gateway.settings import SettingsError
from tests.identity.conftest import DirectoryAdmin, Start
from tests.identity.signing_on import APPLICATIONS, ISSUER, SECRETS, Attempt, answered, served

CONTRACT = Path(__file__).parents[2] / "airflow" / "contract"


@pytest.fixture
def client(start: Start) -> TestClient:
    return served(start)


@pytest.fixture
def operator(directory_server: DirectoryServer) -> tuple[str, str]:
    return "acme-operator", directory_server.passwords["acme-operator"]


def signed_on(client: TestClient, who: tuple[str, str], application: str = "airflow") -> Attempt:
    attempt = Attempt(client, application)
    attempt.post(*who)
    return attempt


def claims_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def family_of(access_token: str) -> str:
    return str(claims_of(access_token)["jti"].partition(".")[0])


# The way it should go.


def test_a_person_signs_in_once_and_the_application_learns_who_it_is(
    client: TestClient, operator: tuple[str, str]
) -> None:
    attempt = Attempt(client)
    page = attempt.open()
    assert page.status_code == 200
    back = attempt.post(*operator, page)
    assert back.headers["location"].startswith(f"{attempt.redirect_uri}?")
    answer = answered(back)
    assert answer.keys() == {"code", "state", "iss"}
    assert (answer["state"], answer["iss"]) == (attempt.state, ISSUER)
    got = attempt.redeem(answer["code"], audience="airflow")
    assert got.status_code == 200, got.text
    assert got.headers["cache-control"] == "no-store"
    body = got.json()
    assert body.keys() == {"access_token", "token_type", "expires_in", "scope", "id_token"}
    claims = claims_of(body["access_token"])
    assert (claims["sub"], claims["client"], claims["aud"]) == ("acme-operator", "acme", "airflow")
    assert claims["scope"] == "batches:read batches:write jobs:write"


def test_the_identity_token_has_the_agreed_shape(
    client: TestClient, operator: tuple[str, str]
) -> None:
    golden = json.loads((CONTRACT / "identity_claims.json").read_text())
    attempt = Attempt(client)
    identity = attempt.redeem(answered(attempt.post(*operator))["code"]).json()["id_token"]
    header, claims = jwt.get_unverified_header(identity), claims_of(identity)
    assert {name: header[name] for name in golden["header"]} == golden["header"]
    assert claims.keys() == golden["claims"].keys()
    assert (claims["nonce"], claims["aud"]) == (attempt.nonce, "airflow")
    assert claims["auth_time"] <= claims["iat"] < claims["exp"] <= claims["iat"] + 300
    # It says who somebody is; it opens nothing.
    answer = client.get("/v1/me", headers={"Authorization": f"Bearer {identity}"})
    assert answer.status_code == 401


def test_whoever_asks_for_no_identity_gets_none(
    client: TestClient, operator: tuple[str, str]
) -> None:
    attempt = Attempt(client)
    code = answered(attempt.post(*operator, attempt.open(scope=None)))["code"]
    assert "id_token" not in attempt.redeem(code).json()


def test_a_person_who_is_signed_in_is_not_asked_again(
    client: TestClient, operator: tuple[str, str]
) -> None:
    signed_on(client, operator)
    for application in ("airflow", "grafana"):
        again = Attempt(client, application)
        code = answered(again.open())["code"]
        assert again.redeem(code).status_code == 200
    silent = Attempt(client)
    assert "code" in answered(silent.open(prompt="none"))


def test_an_application_can_have_a_person_asked_again(
    client: TestClient, operator: tuple[str, str]
) -> None:
    signed_on(client, operator)
    page = Attempt(client).open(prompt="login")
    assert page.status_code == 200
    assert "Password" in page.text


def test_without_asking_there_is_no_answer_for_a_stranger(client: TestClient) -> None:
    attempt = Attempt(client)
    answer = answered(attempt.open(prompt="none"))
    assert (answer["error"], answer["state"], answer["iss"]) == (
        "login_required",
        attempt.state,
        ISSUER,
    )


def test_scopes_can_be_narrowed_and_not_widened(
    client: TestClient, operator: tuple[str, str]
) -> None:
    signed_on(client, operator)
    narrow = Attempt(client)
    code = answered(narrow.open(scope="openid batches:read"))["code"]
    assert narrow.redeem(code).json()["scope"] == "batches:read"
    assert answered(Attempt(client).open(scope="admin"))["error"] == "access_denied"
    assert answered(Attempt(client).open(client="globex"))["error"] == "access_denied"


def test_a_second_query_in_a_registered_address_is_kept(
    client: TestClient, operator: tuple[str, str]
) -> None:
    signed_on(client, operator)
    back = Attempt(client).open(redirect_uri="https://airflow.test/b?x=1")
    assert back.headers["location"].startswith("https://airflow.test/b?x=1&code=")


def test_the_metadata_tells_libraries_all_of_it(client: TestClient) -> None:
    found = client.get("/.well-known/oauth-authorization-server").json()
    assert found["authorization_endpoint"] == f"{ISSUER}/v1/authorize"
    assert found["introspection_endpoint"] == f"{ISSUER}/v1/token/introspect"
    assert found["response_types_supported"] == ["code"]
    assert found["code_challenge_methods_supported"] == ["S256"]
    assert found["authorization_response_iss_parameter_supported"] is True
    assert "authorization_code" in found["grant_types_supported"]


# Requests that nobody is sent anywhere for.


UNCERTAIN: list[dict[str, str | None]] = [
    {"client_id": "unknown"},
    {"client_id": None},
    {"redirect_uri": None},
    {"redirect_uri": "https://evil.test/auth/callback"},
    {"redirect_uri": "https://airflow.test/auth/callback/"},
    {"redirect_uri": "https://airflow.test/auth/callback?x=1"},
    {"redirect_uri": "https://airflow.test/auth/callback#x"},
    {"redirect_uri": "https://airflow.test/auth/../auth/callback"},
    {"redirect_uri": "https://airflow.test:443/auth/callback"},
    {"redirect_uri": "https://airflow.test.evil.test/auth/callback"},
    {"redirect_uri": "https://airflow.test@evil.test/auth/callback"},
    {"redirect_uri": "HTTPS://airflow.test/auth/callback"},
    {"redirect_uri": "http://airflow.test/auth/callback"},
    {"redirect_uri": "https://grafana.test/auth/callback"},
    {"redirect_uri": "//evil.test"},
    {"redirect_uri": "javascript:alert(1)"},
    {"state": "x" * 513},
    {"state": "a b"},
    {"state": "a\r\nLocation: https://evil.test"},
]


def test_an_address_that_is_not_registered_leads_nowhere(
    client: TestClient, operator: tuple[str, str]
) -> None:
    signed_on(client, operator)
    for changed in UNCERTAIN:
        answer = Attempt(client).open(**changed)
        assert answer.status_code == 400, changed
        assert "location" not in answer.headers, changed
        assert "not valid" in answer.text, changed
        assert "evil" not in answer.text, changed


def test_what_is_there_twice_is_not_chosen_from(client: TestClient) -> None:
    for name in ("client_id", "redirect_uri", "state"):
        query = [*Attempt(client).query().items(), (name, "https://evil.test")]
        answer = client.get("/v1/authorize", params=query)
        assert answer.status_code == 400, name
        assert "location" not in answer.headers, name


FAULTS: list[tuple[dict[str, str | None], str]] = [
    ({"response_type": "token"}, "unsupported_response_type"),
    ({"response_type": None}, "unsupported_response_type"),
    ({"response_type": "code id_token"}, "unsupported_response_type"),
    ({"response_mode": "fragment"}, "invalid_request"),
    ({"code_challenge": None}, "invalid_request"),
    ({"code_challenge": "x" * 42}, "invalid_request"),
    ({"code_challenge": "x" * 44}, "invalid_request"),
    ({"code_challenge": "=" * 43}, "invalid_request"),
    ({"code_challenge_method": None}, "invalid_request"),
    ({"code_challenge_method": "plain"}, "invalid_request"),
    ({"request": "e30.e30."}, "invalid_request"),
    ({"request_uri": "https://evil.test/x"}, "invalid_request"),
    ({"prompt": "consent"}, "invalid_request"),
    ({"prompt": "none login"}, "invalid_request"),
    ({"nonce": "x" * 513}, "invalid_request"),
    ({"audience": "gateway"}, "invalid_target"),
]


def test_other_faults_are_told_to_the_application(
    client: TestClient, operator: tuple[str, str]
) -> None:
    signed_on(client, operator)
    for changed, error in FAULTS:
        attempt = Attempt(client)
        answer = answered(attempt.open(**changed))
        found = (answer["error"], answer["state"], answer["iss"])
        assert found == (error, attempt.state, ISSUER), changed
        assert "code" not in answer, changed


def test_a_challenge_that_is_there_twice_is_told_to_the_application(client: TestClient) -> None:
    attempt = Attempt(client)
    query = [*attempt.query().items(), ("code_challenge", "y" * 43)]
    assert answered(client.get("/v1/authorize", params=query))["error"] == "invalid_request"


# Codes.


CODE_ATTACKS: dict[str, dict[str, str | None]] = {
    "another verifier": {"code_verifier": "v" * 43},
    "the challenge as verifier": {},
    "too short a verifier": {"code_verifier": "v" * 42},
    "another address": {"redirect_uri": "https://airflow.test/b?x=1"},
    "another application": {"client_id": "grafana", "client_secret": SECRETS["grafana"]},
}


def test_a_code_with_anything_else_than_it_was_asked_with_is_used_up(
    client: TestClient, operator: tuple[str, str]
) -> None:
    signed_on(client, operator)
    for name, changed in CODE_ATTACKS.items():
        attempt = Attempt(client)
        code = answered(attempt.open())["code"]
        challenge = attempt.query()["code_challenge"]
        given = {**changed, **({} if changed else {"code_verifier": challenge})}
        refused = attempt.redeem(code, **given)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant"), name
        assert attempt.redeem(code).json()["error"] == "invalid_grant", name


PROVING_NOTHING: list[tuple[dict[str, str | None], int, str]] = [
    ({"client_secret": "x" * 40}, 401, "invalid_client"),
    ({"client_secret": SECRETS["grafana"]}, 401, "invalid_client"),
    ({"client_secret": ""}, 401, "invalid_client"),
    ({"client_secret": None}, 401, "invalid_client"),
    ({"client_id": "unknown"}, 401, "invalid_client"),
    ({"client_id": None}, 401, "invalid_client"),
    ({"code": None}, 400, "invalid_request"),
    ({"redirect_uri": None}, 400, "invalid_request"),
    ({"code_verifier": None}, 400, "invalid_request"),
    ({"audience": "gateway"}, 400, "invalid_target"),
    ({"code": "gwc_unknown"}, 400, "invalid_grant"),
    ({"code": "gwc_" + "x" * 5000}, 400, "invalid_grant"),
    ({"code": "gwr_" + "x" * 43}, 400, "invalid_grant"),
]


def test_a_request_that_proves_nothing_leaves_the_code_as_it_is(
    client: TestClient, operator: tuple[str, str]
) -> None:
    attempt = Attempt(client)
    code = answered(attempt.post(*operator))["code"]
    for changed, status, error in PROVING_NOTHING:
        refused = attempt.redeem(code, **changed)
        assert (refused.status_code, refused.json()["error"]) == (status, error), changed
    assert attempt.redeem(code).status_code == 200


def test_a_code_that_comes_twice_takes_back_what_it_gave(
    client: TestClient, operator: tuple[str, str]
) -> None:
    attempt = Attempt(client)
    code = answered(attempt.post(*operator))["code"]
    token = attempt.redeem(code).json()["access_token"]
    assert attempt.introspect(token)["active"]
    assert attempt.redeem(code).json()["error"] == "invalid_grant"
    assert attempt.introspect(token) == {"active": False}
    assert attempt.introspect(family_of(token), token_type_hint="session") == {"active": False}


def test_of_two_who_send_a_code_at_once_at_most_one_has_it(
    client: TestClient, operator: tuple[str, str]
) -> None:
    attempt = Attempt(client)
    code = answered(attempt.post(*operator))["code"]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: attempt.redeem(code).status_code, range(4)))
    assert sorted(found) == [200, 400, 400, 400]


def test_a_code_lives_for_a_minute(
    client: TestClient, operator: tuple[str, str], sessions: sessionmaker[Session]
) -> None:
    attempt = Attempt(client)
    code = answered(attempt.post(*operator))["code"]
    with sessions.begin() as session:
        life = session.scalar(
            text("SELECT extract(epoch FROM expires_at - created_at) FROM authorization_code")
        )
        assert life is not None
        assert 59 <= float(life) <= 61
        session.execute(text("UPDATE authorization_code SET expires_at = now()"))
    assert attempt.redeem(code).json()["error"] == "invalid_grant"


def test_a_code_is_worth_nothing_once_its_person_has_signed_out_or_is_gone(
    start: Start, operator: tuple[str, str], directory_admin: DirectoryAdmin
) -> None:
    client = served(start, LDAP_CACHE_SECONDS=0)
    attempt = Attempt(client)
    first = answered(attempt.post(*operator))["code"]
    token = attempt.redeem(answered(attempt.open())["code"]).json()["access_token"]
    end_session(client, family_of(token))
    assert attempt.redeem(first).json()["error"] == "invalid_grant"
    second = answered(attempt.post(*operator))["code"]
    member = f"uid=acme-operator,ou=people,{directory_admin.base}"
    directory_admin.remove_member("acme-operators", member)
    assert attempt.redeem(second).json()["error"] == "invalid_grant"


def test_nothing_is_lost_while_the_directory_is_away(
    start: Start, operator: tuple[str, str]
) -> None:
    client = served(start, LDAP_CACHE_SECONDS=0)
    attempt = Attempt(client)
    code = answered(attempt.post(*operator))["code"]
    directory = client.app.state.directory  # type: ignore[attr-defined]
    taken = [directory._slots.acquire() for _ in range(8)]
    refused = attempt.redeem(code)
    assert (refused.status_code, refused.json()["error"]) == (503, "temporarily_unavailable")
    for _ in taken:
        directory._slots.release()
    assert attempt.redeem(code).status_code == 200


# What a token or a session is worth.


def end_session(client: TestClient, identity: str, application: str = "airflow") -> Any:
    form = {"token": identity, "token_type_hint": "session"}
    auth = (application, SECRETS[application])
    return client.post("/v1/token/revoke", data=form, auth=auth)


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


# Registration.


def registered(environment: dict[str, str], applications: object, issuer: str = ISSUER) -> None:
    given = applications if isinstance(applications, str) else json.dumps(applications)
    changed = {"GATEWAY_SIGNON_APPLICATIONS": given, "GATEWAY_TOKENS_ISSUER": issuer}
    Applications.load(settings.load({**environment, **changed}))


def test_applications_that_are_well_described_are_taken(environment: dict[str, str]) -> None:
    registered(environment, APPLICATIONS)
    local = {**APPLICATIONS[0], "redirect_uris": ["http://127.0.0.1:8081/auth/callback"]}
    registered(environment, [local], "http://127.0.0.1:8080")


BADLY_DESCRIBED: list[tuple[dict[str, object], str]] = [
    ({"secret": "short"}, "0.secret"),
    ({"client_id": "Air flow"}, "0.client_id"),
    ({"audience": "elsewhere"}, "audience must be one of"),
    ({"redirect_uris": []}, "0.redirect_uris"),
    ({"redirect_uris": ["http://airflow.test/callback"]}, "0.redirect_uris.0"),
    ({"redirect_uris": ["https://airflow.test/callback#x"]}, "0.redirect_uris.0"),
    ({"redirect_uris": ["https://user@airflow.test/callback"]}, "0.redirect_uris.0"),
    ({"redirect_uris": ["https:///callback"]}, "0.redirect_uris.0"),
    ({"redirect_uris": ["https://*.airflow.test\\callback"]}, "0.redirect_uris.0"),
    ({"surprise": 1}, "0.surprise"),
]


def test_an_application_that_is_badly_described_is_refused_by_its_place(
    environment: dict[str, str],
) -> None:
    for changed, says in BADLY_DESCRIBED:
        with pytest.raises(SettingsError, match=re.escape(says)) as refused:
            registered(environment, [{**APPLICATIONS[0], **changed}])
        assert SECRETS["airflow"] not in str(refused.value)


def test_other_weak_registrations_are_refused(environment: dict[str, str]) -> None:
    for text_given in ("{", "{}", "[1]", "null"):
        with pytest.raises(SettingsError, match="GATEWAY_SIGNON_APPLICATIONS"):
            registered(environment, text_given)
    with pytest.raises(SettingsError, match="there twice"):
        registered(environment, [APPLICATIONS[0], APPLICATIONS[0]])
    with pytest.raises(SettingsError, match="GATEWAY_TOKENS_ISSUER: must be https"):
        registered(environment, APPLICATIONS, "http://gateway.test")
