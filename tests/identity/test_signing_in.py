"""The token endpoint: grants, clients, scopes, audiences, refusals."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus

import joserfc.jwk
import joserfc.jwt
import jwt
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from deploy.local.directory import Directory as DirectoryServer
from gateway.audit.model import AuditEvent
from tests.identity.conftest import DirectoryAdmin


def ask(client: TestClient, auth: tuple[str, str] | None = None, /, **form: str) -> Any:
    return client.post("/v1/token", data=form, auth=auth)


def person(client: TestClient, server: DirectoryServer, name: str, /, **form: str) -> Any:
    password = server.passwords[name]
    return ask(client, grant_type="password", username=name, password=password, **form)


def service(client: TestClient, server: DirectoryServer, name: str, /, **form: str) -> Any:
    return ask(client, (name, server.passwords[name]), grant_type="client_credentials", **form)


def claims_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def refused(answer: Any, status: int, error: str) -> None:
    assert (answer.status_code, answer.json().get("error")) == (status, error), answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json().keys() == {"error", "error_description"}


def test_a_service_signs_in_by_basic(client: TestClient, directory_server: DirectoryServer) -> None:
    answer = service(client, directory_server, "acme-uploader")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body.keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 900)
    assert body["scope"] == "batches:read batches:write"


def test_a_service_signs_in_by_form(client: TestClient, directory_server: DirectoryServer) -> None:
    secret = directory_server.passwords["acme-uploader"]
    form = {"client_id": "acme-uploader", "client_secret": secret}
    assert ask(client, grant_type="client_credentials", **form).status_code == 200


def test_both_spellings_of_basic_are_understood(
    client: TestClient, directory_admin: DirectoryAdmin
) -> None:
    member = directory_admin.service("plus", "a+b%20c:d")
    directory_admin.add_member("acme-uploaders", member)
    assert ask(client, ("plus", "a+b%20c:d"), grant_type="client_credentials").status_code == 200
    encoded = ("plus", quote_plus("a+b%20c:d"))
    assert ask(client, encoded, grant_type="client_credentials").status_code == 200


def test_a_persons_token_has_the_claims_of_rfc_9068_and_a_refresh_token(
    client: TestClient, directory_server: DirectoryServer
) -> None:
    body = person(client, directory_server, "acme-operator").json()
    assert body["refresh_token"]
    token = body["access_token"]
    header = jwt.get_unverified_header(token)
    assert header.keys() == {"alg", "kid", "typ"}
    assert (header["alg"], header["typ"]) == ("ES256", "at+jwt")
    claims = claims_of(token)
    assert claims.keys() == {"iss", "aud", "sub", "client", "scope", "jti", "iat", "nbf", "exp"}
    assert claims["iss"] == "http://gateway.test"
    assert (claims["aud"], claims["sub"], claims["client"]) == ("gateway", "acme-operator", "acme")
    assert claims["scope"] == "batches:read batches:write jobs:write"
    assert claims["exp"] - claims["iat"] == 900


def test_other_libraries_verify_a_token_by_the_published_keys(
    client: TestClient, directory_server: DirectoryServer
) -> None:
    token = service(client, directory_server, "acme-uploader").json()["access_token"]
    published = client.get("/.well-known/jwks.json")
    assert "max-age" in published.headers["cache-control"]
    kid = jwt.get_unverified_header(token)["kid"]
    key = jwt.PyJWKSet.from_dict(published.json())[kid]
    assert jwt.decode(token, key, algorithms=["ES256"], audience="gateway")["client"] == "acme"
    keys = joserfc.jwk.KeySet.import_key_set(published.json())
    assert joserfc.jwt.decode(token, keys, algorithms=["ES256"]).claims["client"] == "acme"
    assert keys.keys[0].thumbprint() == keys.keys[0].kid
    assert not any("d" in each for each in published.json()["keys"])


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("admin", "admin"),
        ("auditor", "audit:read"),
        ("svc-airflow", "jobs:progress"),
        ("svc-airflow-api", "leases"),
    ],
)
def test_the_platforms_own_accounts_have_no_client(
    client: TestClient, directory_server: DirectoryServer, name: str, scope: str
) -> None:
    sign_in = service if name.startswith("svc") else person
    claims = claims_of(sign_in(client, directory_server, name).json()["access_token"])
    assert claims["scope"] == scope
    assert "client" not in claims


def test_groups_inside_groups_give_their_rights(
    client: TestClient, directory_server: DirectoryServer
) -> None:
    assert person(client, directory_server, "acme-viewer").json()["scope"] == "batches:read"


def test_scope_can_only_be_narrowed(client: TestClient, directory_server: DirectoryServer) -> None:
    narrow = service(client, directory_server, "acme-uploader", scope="batches:read")
    assert narrow.json()["scope"] == "batches:read"
    for wider in ("admin", "batches:read admin", "batches:read  ", "everything"):
        answer = service(client, directory_server, "acme-uploader", scope=wider)
        refused(answer, 400, "invalid_scope")


def test_an_account_of_several_clients_has_to_name_one(
    client: TestClient, directory_server: DirectoryServer, directory_admin: DirectoryAdmin
) -> None:
    member = f"uid=acme-operator,ou=people,{directory_server.base_dn}"
    directory_admin.add_member("globex-viewers", member)
    unnamed = person(client, directory_server, "acme-operator")
    refused(unnamed, 400, "invalid_request")
    assert "client" in unnamed.json()["error_description"]
    named = person(client, directory_server, "acme-operator", client="globex").json()
    assert (claims_of(named["access_token"])["client"], named["scope"]) == (
        "globex",
        "batches:read",
    )


def test_a_foreign_client_answers_as_an_unknown_one(
    client: TestClient, directory_server: DirectoryServer
) -> None:
    foreign = service(client, directory_server, "acme-uploader", client="globex")
    unknown = service(client, directory_server, "acme-uploader", client="initech")
    refused(foreign, 400, "invalid_scope")
    assert foreign.json() == unknown.json()


def test_a_group_of_a_client_that_was_never_onboarded_gives_nothing(
    client: TestClient, directory_admin: DirectoryAdmin
) -> None:
    directory_admin.group("initech-uploaders", directory_admin.service("initech-uploader"))
    answer = ask(client, ("initech-uploader", "right password"), grant_type="client_credentials")
    refused(answer, 400, "invalid_scope")


def test_a_token_for_airflow_has_the_form_of_the_contract(
    client: TestClient, directory_server: DirectoryServer
) -> None:
    claims = claims_of(
        person(client, directory_server, "acme-operator", audience="airflow").json()["access_token"]
    )
    assert (claims["aud"], claims["client"]) == ("airflow", "acme")
    assert claims["scope"] == "batches:read batches:write jobs:write"
    admin = person(client, directory_server, "admin", audience="airflow").json()
    assert claims_of(admin["access_token"])["scope"] == "admin"


def test_airflows_own_account_gets_no_token_for_airflow(
    client: TestClient, directory_server: DirectoryServer
) -> None:
    answer = service(client, directory_server, "svc-airflow", audience="airflow")
    refused(answer, 400, "invalid_scope")


def test_an_audience_nobody_has_is_refused(
    client: TestClient, directory_server: DirectoryServer
) -> None:
    answer = person(client, directory_server, "admin", audience="https://elsewhere.example")
    refused(answer, 400, "invalid_target")


def test_each_kind_of_account_has_its_grant(
    client: TestClient, directory_server: DirectoryServer
) -> None:
    passwords = directory_server.passwords
    as_service = ask(
        client, ("acme-operator", passwords["acme-operator"]), grant_type="client_credentials"
    )
    refused(as_service, 401, "invalid_client")
    assert as_service.headers["www-authenticate"].startswith("Basic")
    as_person = ask(
        client,
        grant_type="password",
        username="acme-uploader",
        password=passwords["acme-uploader"],
    )
    refused(as_person, 400, "invalid_grant")


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"other": "x"}, 400, "invalid_request"),
        ({"grant_type": ""}, 400, "invalid_request"),
        ({"grant_type": "authorization_code"}, 400, "unsupported_grant_type"),
        ({"grant_type": "password", "username": "admin"}, 400, "invalid_request"),
        ({"grant_type": "client_credentials", "client_id": "a"}, 401, "invalid_client"),
        ({"grant_type": "refresh_token"}, 400, "invalid_request"),
        ({"grant_type": "refresh_token", "refresh_token": "gwr_x"}, 400, "invalid_grant"),
    ],
)
def test_malformed_requests_are_refused_in_oauths_form(
    client: TestClient, form: dict[str, str], status: int, error: str
) -> None:
    refused(ask(client, **form), status, error)


@pytest.mark.parametrize(
    ("media", "body", "status"),
    [
        ("application/json", b'{"grant_type": "password"}', 415),
        ("application/x-www-form-urlencoded", b"grant_type=password&" + b"x" * 20_000, 413),
        ("application/x-www-form-urlencoded", b"grant_type=a&grant_type=b", 400),
        ("application/x-www-form-urlencoded", b"grant_type=%00", 400),
        ("application/x-www-form-urlencoded", b"grant_type=%ff", 400),
    ],
)
def test_malformed_forms_are_refused_in_oauths_form(
    client: TestClient, media: str, body: bytes, status: int
) -> None:
    answer = client.post("/v1/token", content=body, headers={"content-type": media})
    refused(answer, status, "invalid_request")


@pytest.mark.parametrize(
    "header",
    ["Basic", "Basic !!!", "Bearer abc", "Basic " + base64.b64encode(b"nocolon").decode()],
)
def test_unreadable_basic_credentials_are_wrong_ones(client: TestClient, header: str) -> None:
    form = {"grant_type": "client_credentials"}
    answer = client.post("/v1/token", data=form, headers={"authorization": header})
    refused(answer, 401, "invalid_client")


def test_two_ways_of_authentication_at_once_are_refused(client: TestClient) -> None:
    answer = ask(client, ("a", "b"), grant_type="client_credentials", client_secret="b")
    refused(answer, 400, "invalid_request")


def test_sign_ins_are_audited_without_passwords_or_typed_names(
    client: TestClient, directory_server: DirectoryServer, sessions: sessionmaker[Session]
) -> None:
    service(client, directory_server, "acme-uploader")
    ask(client, ("acme-uploader", "wr0ng-secret"), grant_type="client_credentials")
    ask(client, grant_type="password", username="hunter2-typed-here", password="admin")
    with sessions.begin() as session:
        found = session.scalars(select(AuditEvent).order_by(AuditEvent.number)).all()
    seen = [(event.action, event.actor, event.client) for event in found]
    assert seen == [
        ("login.succeeded", "acme-uploader", "acme"),
        ("login.failed", "acme-uploader", None),
        ("login.failed", "unknown", None),
    ]
    written = "".join(f"{event.subject}{event.details}" for event in found)
    assert "wr0ng-secret" not in written
    assert "hunter2" not in written


def test_the_metadata_names_doors_that_exist(client: TestClient) -> None:
    found = client.get("/.well-known/oauth-authorization-server").json()
    assert found["issuer"] == "http://gateway.test"
    for name in ("token_endpoint", "revocation_endpoint"):
        path = found[name].removeprefix(found["issuer"])
        assert client.post(path, data={"other": "x"}).status_code == 400
    assert client.get(found["jwks_uri"].removeprefix(found["issuer"])).json()["keys"]


def test_me_says_who_and_why(
    client: TestClient, directory_server: DirectoryServer, token: Callable[[str], str]
) -> None:
    answer = client.get("/v1/me", headers={"Authorization": f"Bearer {token('acme-viewer')}"})
    assert answer.status_code == 200
    body = answer.json()
    assert body.pop("expires_at") > 0
    assert body == {
        "subject": "acme-viewer",
        "kind": "person",
        "client": "acme",
        "scopes": ["batches:read"],
        "groups": [{"name": "acme-viewers", "scopes": ["batches:read"], "via": ["acme-staff"]}],
    }


def test_me_wants_a_token(client: TestClient) -> None:
    answer = client.get("/v1/me")
    assert answer.status_code == 401
    assert answer.json()["type"] == "/problems/not-authenticated"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
