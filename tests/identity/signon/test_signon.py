"""The one sign-on as applications meet it: the way it goes, and requests that lead nowhere."""

from __future__ import annotations

import json

import jwt
from starlette.testclient import TestClient

from tests.identity.signon.signing_on import (
    CONTRACT,
    ISSUER,
    Attempt,
    answered,
    claims_of,
    signed_on,
)


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
