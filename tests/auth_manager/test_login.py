"""Signing in at Airflow's own address, through the gateway."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from tests.auth_manager import minting
from tests.auth_manager.gateway_fake import Account, Gateway
from tests.auth_manager.world import FLIGHTS, HOTELS, ORDERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from httpx import Response

    from tests.auth_manager.world import World

ORIGIN = "http://testserver"
PASSWORD = "correct horse xq-password"
NOBODY = "The user name or the password is not right."


@pytest.fixture(autouse=True)
def accounts(world: World) -> Iterator[Gateway]:
    """People in the directory, and a browser that has never been here."""
    world.http.cookies.clear()
    world.gateway.accounts = {
        "acme-operator": Account(PASSWORD, {"sub": "acme-operator"}),
        "consultant": Account(PASSWORD, {"sub": "consultant"}, ("acme", "globex")),
        "admin": Account(PASSWORD, {"sub": "admin", "scope": "admin", "client": None}),
        "auditor": Account(PASSWORD, {"sub": "auditor", "scope": "audit:read", "client": None}),
    }
    yield world.gateway
    world.gateway.fault = None
    world.http.cookies.clear()


def open_form(world: World, next_path: str = "") -> tuple[str, str]:
    """Open the sign-in page; return its form token and where it would lead."""
    query = {"next": next_path} if next_path else {}
    page = world.http.get("/auth/login", params=query)
    assert page.status_code == 200
    return field(page, "form_token"), field(page, "next")


def field(page: Response, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page.text)
    assert found, page.text
    return html.unescape(found[1])


def post(
    world: World, origin: str | None = ORIGIN, form_token: str | None = None, **fields: str
) -> Response:
    """Send the form as a browser does."""
    token = open_form(world)[0] if form_token is None else form_token
    form = {"username": "acme-operator", "password": PASSWORD, "form_token": token, **fields}
    headers = {"origin": origin} if origin else {}
    return world.http.post("/auth/login", data=form, headers=headers)


def session_cookie(answer: Response) -> str | None:
    cookies = answer.headers.get_list("set-cookie")
    return next((each for each in cookies if each.startswith("_token=e")), None)


def test_person_signs_in_and_sees_the_clients_dags(world: World) -> None:
    answer = post(world)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = session_cookie(answer)
    assert cookie
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    listed = world.http.get("/api/v2/dags").json()["dags"]
    assert {dag["dag_id"] for dag in listed} == {FLIGHTS, HOTELS}
    assert world.http.get(f"/api/v2/dags/{ORDERS}").status_code == 403
    assert world.http.get("/ui/auth/me").json()["username"] == "acme-operator"


def test_session_is_airflows_own_and_ends_with_the_gateways_token(world: World) -> None:
    cookie = session_cookie(post(world))
    assert cookie
    claims = minting.claims_of(cookie.split(";")[0].partition("=")[2])
    assert {"sub", "kind", "client", "scopes"} <= set(claims)
    assert claims["aud"] == "apache-airflow"
    assert claims["exp"] - claims["iat"] <= 900
    age = re.search(r"Max-Age=(\d+)", cookie)
    assert age
    assert 890 <= int(age[1]) <= 900
    assert PASSWORD not in str(claims)


def test_gateway_is_asked_for_a_token_for_airflow(world: World) -> None:
    post(world)
    path, form = world.gateway.asked[-1]
    assert path == "/v1/token"
    assert form == {
        "grant_type": "password",
        "username": "acme-operator",
        "password": PASSWORD,
        "audience": "airflow",
    }


def test_signing_out_ends_the_session(world: World) -> None:
    cookie = session_cookie(post(world))
    assert cookie
    first = world.http.get("/auth/logout")
    assert first.headers["location"] == "/api/v2/auth/logout"
    second = world.http.get(first.headers["location"])
    assert second.headers["location"] == "/auth/login"
    token = cookie.split(";")[0].partition("=")[2]
    assert world.call("GET", "/api/v2/dags", token).status_code == 403


@pytest.mark.parametrize(
    "fields",
    [
        {"password": "wrong"},
        {"username": "nobody"},
        {"username": ""},
        {"password": ""},
        {"username": "x" * 300},
        {"password": "x" * 2000},
        {"client": "x" * 40},
    ],
)
def test_whatever_is_wrong_the_answer_is_the_same(world: World, fields: dict[str, str]) -> None:
    answer = post(world, **fields)
    assert answer.status_code == 401
    assert NOBODY in answer.text
    assert session_cookie(answer) is None
    assert PASSWORD not in answer.text


def test_person_of_several_clients_is_asked_which(world: World) -> None:
    answer = post(world, username="consultant")
    assert answer.status_code == 400
    assert "name the client" in answer.text
    assert field(answer, "username") == "consultant"
    assert post(world, username="consultant", client="globex").status_code == 303
    listed = world.http.get("/api/v2/dags").json()["dags"]
    assert {dag["dag_id"] for dag in listed} == {ORDERS}


def test_account_without_any_use_for_airflow_is_told_so(world: World) -> None:
    answer = post(world, username="auditor")
    assert answer.status_code == 403
    assert "no access to Airflow" in answer.text
    assert session_cookie(answer) is None


AWAY = {
    "away": (503, {}, b'{"type": "/problems/unavailable"}'),
    "not the gateway": (200, {}, b"<html>hello</html>"),
    "a redirect": (307, {"Location": "http://127.0.0.1:9/"}, b"{}"),
    "no token": (200, {}, b"{}"),
    "another kind of token": (200, {}, b'{"access_token": "x", "token_type": "mac"}'),
    "an endless answer": (200, {}, b'{"x": "' + b"x" * 70_000 + b'"}'),
    "an unknown refusal": (404, {}, b'{"error": "what"}'),
}


@pytest.mark.parametrize("fault", AWAY.values(), ids=AWAY.keys())
def test_without_the_gateway_there_is_a_plain_message(
    world: World, fault: tuple[int, dict[str, str], bytes]
) -> None:
    world.gateway.fault = fault
    answer = post(world)
    assert answer.status_code == 503
    assert "not possible at the moment" in answer.text
    assert answer.headers["retry-after"] == "30"
    assert session_cookie(answer) is None


def test_gateways_request_to_wait_is_passed_on(world: World) -> None:
    world.gateway.fault = (429, {"Retry-After": "17"}, b'{"error": "slow_down"}')
    answer = post(world)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "17")


def token_answer(token: str) -> tuple[int, dict[str, str], bytes]:
    body = f'{{"access_token": "{token}", "token_type": "Bearer"}}'
    return 200, {"Content-Type": "application/json"}, body.encode()


@pytest.mark.parametrize("kind", ["trigger", "watcher", "pools"])
def test_a_services_token_opens_no_session(world: World, kind: str) -> None:
    assert world.as_kind("admin", "GET", "/api/v2/dags").status_code == 200
    world.gateway.fault = token_answer(world.gateway.token(kind))
    answer = post(world)
    assert answer.status_code == 403
    assert session_cookie(answer) is None


# The page.


def test_page_is_strict_about_what_a_browser_may_do(world: World) -> None:
    for answer in (world.http.get("/auth/login"), post(world, password="wrong")):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        assert "form-action 'self'; base-uri 'none'; frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "<script" not in answer.text
        assert " style=" not in answer.text


def test_style_on_the_page_is_the_one_its_policy_allows(world: World) -> None:
    import base64
    import hashlib

    page = world.http.get("/auth/login")
    style = re.search(r"<style>(.*?)</style>", page.text, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in page.headers["content-security-policy"]


def test_what_was_typed_comes_back_as_text(world: World) -> None:
    nasty = '"><script>alert(1)</script>'
    answer = post(world, username=nasty, client='"><b>')
    assert "<script" not in answer.text
    assert "<b>" not in answer.text
    assert field(answer, "username") == nasty


def test_form_from_another_site_is_refused(world: World) -> None:
    before = world.gateway.count("/v1/token")
    for origin in ("https://evil.example", "null", None, f"{ORIGIN}.evil.example", ""):
        answer = post(world, origin=origin)
        assert answer.status_code == 403, origin
        assert session_cookie(answer) is None
    assert world.gateway.count("/v1/token") == before


def test_form_needs_its_token_and_the_cookie_that_came_with_it(world: World) -> None:
    mine, _ = open_form(world)
    assert post(world, form_token="").status_code == 403
    open_form(world)
    assert post(world, form_token=mine).status_code == 403
    tampered, _ = open_form(world)
    assert post(world, form_token=tampered[:-2] + "xx").status_code == 403
    alone, _ = open_form(world)
    world.http.cookies.clear()
    assert post(world, form_token=alone).status_code == 403
    good, _ = open_form(world)
    assert post(world, form_token=good).status_code == 303


SAFE = {
    "/dags": "/dags",
    "/dags/acme__flights?tab=runs&x=1": "/dags/acme__flights?tab=runs&x=1",
    f"{ORIGIN}/dags": "/dags",
    "/": "/",
}
UNSAFE = (
    "https://evil.example/",
    "//evil.example/",
    "///evil.example/",
    "/\\evil.example/",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "https:evil.example",
    "https:///evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    f"{ORIGIN}.evil.example/",
    f"{ORIGIN}@evil.example/",
    f"{ORIGIN}//evil.example/",
    "http://testserver:99999999/",
    "http://[::1/",
    "evil.example",
    "/\u2215/evil.example",
    "/" + "x" * 3000,
)


@pytest.mark.parametrize(("wanted", "reached"), SAFE.items())
def test_after_signing_in_the_wanted_page_of_this_site_opens(
    world: World, wanted: str, reached: str
) -> None:
    token, target = open_form(world, wanted)
    assert target == reached
    assert post(world, form_token=token, next=wanted).headers["location"] == reached


@pytest.mark.parametrize("wanted", UNSAFE)
def test_signing_in_never_leads_elsewhere(world: World, wanted: str) -> None:
    token, target = open_form(world, wanted)
    assert target == "/"
    assert post(world, form_token=token, next=wanted).headers["location"] == "/"


def test_airflows_own_login_address_leads_to_the_page(world: World) -> None:
    answer = world.http.get("/api/v2/auth/login", params={"next": f"{ORIGIN}/dags"})
    assert answer.status_code == 307
    assert answer.headers["location"] == "/auth/login?" + urlencode({"next": f"{ORIGIN}/dags"})


# For scripts.


def ask_token(world: World, body: Any) -> Response:
    return world.http.post("/auth/token", json=body)


def test_script_gets_a_token_for_a_name_and_password(world: World) -> None:
    answer = ask_token(world, {"username": "acme-operator", "password": PASSWORD})
    assert answer.status_code == 201
    assert 890 <= answer.json()["expires_in"] <= 900
    assert "set-cookie" not in answer.headers
    token = answer.json()["access_token"]
    assert world.call("GET", f"/api/v2/dags/{FLIGHTS}", token).status_code == 200
    assert world.call("GET", f"/api/v2/dags/{ORDERS}", token).status_code == 403


def test_script_gets_the_same_refusals_as_a_person(world: World) -> None:
    name = {"username": "acme-operator"}
    for body in ({**name, "password": "wrong"}, name, {}, [], "x", {**name, "password": 1}):
        answer = ask_token(world, body)
        assert (answer.status_code, answer.json()) == (401, {"detail": NOBODY}), body
    world.gateway.fault = (503, {}, b"{}")
    assert ask_token(world, {**name, "password": PASSWORD}).status_code == 503


def test_bodies_before_authentication_are_small_and_of_the_right_kind(world: World) -> None:
    big = b'{"username": "' + b"x" * 20_000 + b'"}'
    json_type = {"content-type": "application/json"}
    assert world.http.post("/auth/token", content=big, headers=json_type).status_code == 413
    assert world.http.post("/auth/login", content=big).status_code == 413
    deep = b"[" * 8000
    assert world.http.post("/auth/token", content=deep, headers=json_type).status_code == 401
    form = {"username": "acme-operator", "password": PASSWORD}
    assert world.http.post("/auth/token", data=form).status_code == 415


def test_passwords_and_tokens_are_not_logged(
    world: World, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    answer = post(world)
    post(world, password=PASSWORD + "!")
    ask_token(world, {"username": "acme-operator", "password": PASSWORD})
    bad = world.gateway.token("admin", aud="other")
    assert world.call("GET", "/api/v2/dags", bad).status_code == 403
    written = caplog.text + "".join(capfd.readouterr())
    cookie = session_cookie(answer)
    assert cookie
    assert "A gateway token was refused: claims" in written
    for secret in (PASSWORD, cookie.split(";")[0], bad, bad.split(".")[2]):
        assert secret not in written
