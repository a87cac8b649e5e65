"""Signing on at Airflow: to the gateway and back."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from ingest import flow
from tests.auth_manager import minting
from tests.auth_manager.signing import (
    DAGS,
    ORIGIN,
    PASSWORD,
    come_back,
    leave,
    session_cookie,
    sign_on,
    token_in,
)
from tests.auth_manager.world import FLIGHTS, HOTELS, ORDERS

if TYPE_CHECKING:
    from tests.auth_manager.world import World

pytestmark = pytest.mark.usefixtures("accounts")


def test_person_signs_on_at_the_gateway_and_sees_the_clients_dags(world: World) -> None:
    answer = sign_on(world)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = session_cookie(answer)
    assert cookie
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    listed = world.http.get(DAGS).json()["dags"]
    assert {dag["dag_id"] for dag in listed} == {FLIGHTS, HOTELS}
    assert world.http.get(f"{DAGS}/{ORDERS}").status_code == 403
    assert world.http.get("/ui/auth/me").json()["username"] == "acme-operator"


def test_the_gateway_is_asked_with_state_nonce_and_a_challenge(world: World) -> None:
    address = urlsplit(leave(world))
    assert f"{address.scheme}://{address.netloc}{address.path}" == f"{minting.ISSUER}/v1/authorize"
    query = dict(parse_qsl(address.query))
    assert query | {"state": "", "nonce": "", "code_challenge": ""} == {
        "response_type": "code",
        "client_id": "airflow",
        "redirect_uri": f"{ORIGIN}/auth/callback",
        "scope": "openid",
        "state": "",
        "nonce": "",
        "code_challenge": "",
        "code_challenge_method": "S256",
    }
    again = dict(parse_qsl(urlsplit(leave(world)).query))
    for name in ("state", "nonce", "code_challenge"):
        assert len(query[name]) == 43
        assert query[name] != again[name]


def test_the_code_is_exchanged_with_the_verifier_of_the_challenge(world: World) -> None:
    address = leave(world)
    come_back(world, world.gateway.signed_on(address, "acme-operator"))
    (form,) = [form for path, form in world.gateway.asked if path == "/v1/token"][-1:]
    digest = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest())
    assert dict(parse_qsl(address))["code_challenge"] == digest.rstrip(b"=").decode()
    assert form["grant_type"] == "authorization_code"
    assert form["redirect_uri"] == f"{ORIGIN}/auth/callback"
    assert form["audience"] == "airflow"


def test_what_is_kept_meanwhile_is_out_of_reach_of_scripts_and_other_pages(world: World) -> None:
    answer = world.http.get("/auth/login")
    (cookie,) = answer.headers.get_list("set-cookie")
    for attribute in ("HttpOnly", "SameSite=lax", "Path=/auth", "Max-Age=900"):
        assert attribute in cookie
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_session_is_airflows_own_and_ends_with_the_gateways_token(world: World) -> None:
    cookie = session_cookie(sign_on(world))
    claims = minting.claims_of(token_in(cookie))
    assert {"sub", "kind", "client", "scopes", "session"} <= set(claims)
    assert claims["aud"] == "apache-airflow"
    assert claims["exp"] - claims["iat"] <= 900
    age = re.search(r"Max-Age=(\d+)", cookie or "")
    assert age
    assert 890 <= int(age[1]) <= 900


def test_two_tabs_can_sign_on_at_once(world: World) -> None:
    first, second = leave(world), leave(world)
    for address in (first, second):
        answer = come_back(world, world.gateway.signed_on(address, "acme-operator"))
        assert answer.status_code == 303, answer.text


def test_left_over_attempts_do_not_pile_up(world: World) -> None:
    for _ in range(3 * flow.AT_MOST):
        leave(world)
    kept = [name for name in world.http.cookies if name.startswith(flow.COOKIE_PREFIX)]
    assert len(kept) <= flow.AT_MOST


def test_account_without_any_use_for_airflow_is_told_so(world: World) -> None:
    answer = sign_on(world, "sender")
    assert answer.status_code == 403
    assert "no access to Airflow" in answer.text
    assert session_cookie(answer) is None


def test_pages_are_strict_about_what_a_browser_may_do(world: World) -> None:
    for answer in (world.http.get("/auth/signed-out"), come_back(world, {"state": "x"})):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        assert "form-action 'none'; base-uri 'none'; frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "<script" not in answer.text
        assert " style=" not in answer.text
        style = re.search(r"<style>(.*?)</style>", answer.text, re.DOTALL)
        assert style
        digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_no_password_is_taken_at_airflows_own_address(world: World) -> None:
    form = {"username": "acme-operator", "password": PASSWORD}
    assert world.http.post("/auth/login", data=form).status_code == 405


def test_airflows_own_login_address_leads_to_signing_on(world: World) -> None:
    answer = world.http.get("/api/v2/auth/login", params={"next": f"{ORIGIN}/dags"})
    assert answer.status_code == 307
    assert answer.headers["location"] == "/auth/login?" + urlencode({"next": f"{ORIGIN}/dags"})
