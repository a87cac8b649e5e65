"""Signing on at Airflow: to the gateway and back, and what the session is worth afterwards."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from ingest import flow
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
DAGS = "/api/v2/dags"


@pytest.fixture(autouse=True)
def accounts(world: World) -> Iterator[Gateway]:
    """People in the directory, and a browser that has never been here."""
    fresh(world)
    world.gateway.accounts = {
        "acme-operator": Account(PASSWORD, {"sub": "acme-operator"}),
        "consultant": Account(PASSWORD, {"sub": "consultant"}, ("acme", "globex")),
        "admin": Account(PASSWORD, {"sub": "admin", "scope": "admin", "client": None}),
        "sender": Account(PASSWORD, {"sub": "sender", "scope": "batches:write"}),
    }
    yield world.gateway
    fresh(world)


def fresh(world: World) -> None:
    world.http.cookies.clear()
    world.gateway.fault, world.gateway.slow_seconds = None, 0.0
    world.gateway.session_seconds, world.gateway.identity = 28_800, {}
    # What it remembers of the gateway's being away.
    world.app.state.auth_manager.__dict__.pop("_standing", None)


def leave(world: World, next_path: str = "") -> str:
    """Open Airflow's sign-in address; return the gateway's to which it leads."""
    answer = world.http.get("/auth/login", params={"next": next_path} if next_path else {})
    assert answer.status_code == 303, answer.text
    address: str = answer.headers["location"]
    return address


def come_back(world: World, answer: dict[str, str]) -> Response:
    return world.http.get("/auth/callback", params=answer)


def sign_on(world: World, name: str = "acme-operator", next_path: str = "") -> Response:
    return come_back(world, world.gateway.signed_on(leave(world, next_path), name))


def session_cookie(answer: Response) -> str | None:
    cookies = answer.headers.get_list("set-cookie")
    return next((each for each in cookies if each.startswith("_token=e")), None)


def token_in(cookie: str | None) -> str:
    assert cookie
    return cookie.split(";")[0].partition("=")[2]


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


# Answers that are none.


def unexchanged(world: World, answer: Response) -> None:
    assert answer.status_code == 400
    assert "Please try again" in answer.text
    assert session_cookie(answer) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"state": "x" * 43},
        {"state": ""},
        {"state": None},
        {"iss": "https://evil.example"},
        {"iss": f"{minting.ISSUER}/"},
        {"iss": None},
        {"code": ""},
        {"code": None},
    ],
    ids=str,
)
def test_an_answer_that_was_changed_is_not_acted_on(
    world: World, changed: dict[str, str | None]
) -> None:
    good = world.gateway.signed_on(leave(world), "acme-operator")
    before = world.gateway.count("/v1/token")
    answer = {name: value for name, value in {**good, **changed}.items() if value is not None}
    unexchanged(world, come_back(world, answer))
    assert world.gateway.count("/v1/token") == before


def test_an_answer_in_another_browser_is_not_acted_on(world: World) -> None:
    # Login CSRF: a stranger sends somebody the link by which he himself would be signed in.
    good = world.gateway.signed_on(leave(world), "acme-operator")
    world.http.cookies.clear()
    before = world.gateway.count("/v1/token")
    unexchanged(world, come_back(world, good))
    leave(world)
    unexchanged(world, come_back(world, good))
    assert world.gateway.count("/v1/token") == before


def test_an_answer_is_taken_once(world: World) -> None:
    good = world.gateway.signed_on(leave(world), "acme-operator")
    assert come_back(world, good).status_code == 303
    unexchanged(world, come_back(world, good))


def test_an_answer_with_a_parameter_twice_is_not_acted_on(world: World) -> None:
    good = world.gateway.signed_on(leave(world), "acme-operator")
    twice = f"/auth/callback?{urlencode(good)}&code=another"
    unexchanged(world, world.http.get(twice))


def test_a_code_of_another_attempt_gives_nothing(world: World) -> None:
    # Code injection: the code of one sign-on, the state of another.
    stolen = world.gateway.signed_on(leave(world), "admin")["code"]
    mine = world.gateway.signed_on(leave(world), "acme-operator")
    unexchanged(world, come_back(world, {**mine, "code": stolen}))


IDENTITY_ATTACKS: dict[str, dict[str, Any]] = {
    "another question's answer": {"nonce": "n" * 43},
    "no nonce": {"nonce": None},
    "somebody else": {"sub": "admin"},
    "for another application": {"aud": "grafana"},
    "for several": {"aud": ["airflow"]},
    "of another gateway": {"iss": "https://evil.example"},
    "expired": {"exp": int(time.time()) - 1},
    "from tomorrow": {"iat": int(time.time()) + 86_400, "exp": int(time.time()) + 90_000},
    "with more to say": {"admin": True},
}


@pytest.mark.parametrize("changes", IDENTITY_ATTACKS.values(), ids=IDENTITY_ATTACKS.keys())
def test_an_identity_that_is_not_the_answer_opens_nothing(
    world: World, changes: dict[str, Any]
) -> None:
    world.gateway.identity = changes
    unexchanged(world, sign_on(world))


def test_tokens_that_are_none_or_of_the_wrong_kind_open_nothing(world: World) -> None:
    access = minting.sign(world.gateway.key, minting.claims("operator"))
    forged = minting.sign(minting.new_key(), minting.identity(), typ="JWT")
    for identity in (access, forged, "x", "a.b.c", "x" * 5000):
        address = leave(world)
        answer = world.gateway.signed_on(address, "acme-operator")
        body = f'{{"access_token": "{access}", "id_token": "{identity}", "token_type": "Bearer"}}'
        world.gateway.fault = (200, {}, body.encode())
        shown = come_back(world, answer)
        world.gateway.fault = None
        unexchanged(world, shown)


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        ("access_denied", 403, "no access to Airflow"),
        ("temporarily_unavailable", 503, "does not answer"),
        ("server_error", 503, "does not answer"),
        ("login_required", 400, "try again"),
        ("<script>alert(1)</script>", 400, "try again"),
    ],
)
def test_the_gateways_refusals_are_put_into_our_words(
    world: World, error: str, status: int, says: str
) -> None:
    state = dict(parse_qsl(urlsplit(leave(world)).query))["state"]
    told = {"error": error, "error_description": "<b>xq", "state": state, "iss": minting.ISSUER}
    answer = come_back(world, told)
    assert answer.status_code == status
    assert says in answer.text
    assert "<script" not in answer.text
    assert "xq" not in answer.text


# While the gateway is away.

AWAY = {
    "away": (503, {}, b'{"type": "/problems/unavailable"}'),
    "not the gateway": (200, {}, b"<html>hello</html>"),
    "a redirect": (307, {"Location": "http://127.0.0.1:9/"}, b"{}"),
    "an endless answer": (200, {}, b'{"x": "' + b"x" * 70_000 + b'"}'),
    "an unknown refusal": (404, {}, b'{"error": "what"}'),
}


@pytest.mark.parametrize("fault", AWAY.values(), ids=AWAY.keys())
def test_without_the_gateway_there_is_a_plain_page(
    world: World, fault: tuple[int, dict[str, str], bytes]
) -> None:
    world.gateway.fault = fault
    answer = world.http.get("/auth/login")
    assert answer.status_code == 503
    assert "does not answer at the moment" in answer.text
    assert answer.headers["retry-after"] == "30"
    assert "set-cookie" not in answer.headers


def test_a_gateway_that_is_lost_on_the_way_back_is_told_plainly(world: World) -> None:
    good = world.gateway.signed_on(leave(world), "acme-operator")
    world.gateway.fault = (200, {}, b"{}")
    answer = come_back(world, good)
    assert answer.status_code == 503
    assert session_cookie(answer) is None


def test_a_slow_gateway_does_not_keep_people_waiting(world: World) -> None:
    world.gateway.slow_seconds = 3.0
    began = time.monotonic()
    assert world.http.get("/auth/login").status_code == 503
    assert time.monotonic() - began < 2.9


def test_open_sessions_go_on_without_the_gateway_until_they_expire(world: World) -> None:
    world.gateway.accounts["acme-operator"].claims["exp"] = int(time.time()) + 3
    sign_on(world)
    world.gateway.fault = (503, {}, b"{}")
    answer = world.http.get(DAGS)
    assert answer.status_code == 200
    assert session_cookie(answer) is None, "nobody confirmed that it may go on for longer"
    time.sleep(max(0.0, world.gateway.accounts["acme-operator"].claims["exp"] - time.time()))
    assert world.http.get(DAGS).status_code == 401


# What becomes of a session.


def last_session(world: World) -> str:
    return list(world.gateway.sessions)[-1]


def test_a_session_that_ended_at_the_gateway_ends_here(world: World) -> None:
    sign_on(world)
    assert world.http.get(DAGS).status_code == 200
    world.gateway.ended.add(last_session(world))
    answer = world.http.get(DAGS)
    assert answer.status_code == 401
    assert any("_token=" in each for each in answer.headers.get_list("set-cookie"))


def test_rights_that_were_taken_away_are_gone_from_an_open_session(world: World) -> None:
    sign_on(world, "admin")
    assert world.http.get("/api/v2/variables").status_code == 200
    world.gateway.scopes[last_session(world)] = "batches:read"
    assert world.http.get("/api/v2/variables").status_code == 401


def test_rights_do_not_grow_in_an_open_session(world: World) -> None:
    sign_on(world)
    world.gateway.scopes[last_session(world)] = "admin batches:read"
    assert world.http.get(DAGS).status_code == 200
    assert world.http.get("/api/v2/variables").status_code == 403


def test_the_gateway_is_asked_no_more_often_than_its_answer_is_good_for(world: World) -> None:
    sign_on(world)
    world.gateway.fresh_seconds = 60.0
    try:
        before = world.gateway.count("/v1/token/introspect")
        for _ in range(5):
            assert world.http.get(DAGS).status_code == 200
        assert world.gateway.count("/v1/token/introspect") == before + 1
    finally:
        world.gateway.fresh_seconds = 0.0


def test_a_session_in_use_goes_on_as_long_as_the_gateways_does(world: World) -> None:
    world.gateway.accounts["acme-operator"].claims["exp"] = int(time.time()) + 100
    sign_on(world)
    renewed = minting.claims_of(token_in(session_cookie(world.http.get(DAGS))))
    assert 890 <= renewed["exp"] - time.time() <= 900
    world.gateway.session_seconds = 300
    shorter = minting.claims_of(token_in(session_cookie(sign_on(world))))
    assert shorter["exp"] - time.time() <= 100
    world.app.state.auth_manager.__dict__.pop("_standing")
    renewed = minting.claims_of(token_in(session_cookie(world.http.get(DAGS))))
    assert renewed["exp"] - time.time() <= 300


def test_signing_out_ends_the_session_here_and_at_the_gateway(world: World) -> None:
    token = token_in(session_cookie(sign_on(world)))
    first = world.http.get("/auth/logout")
    assert first.headers["location"] == "/api/v2/auth/logout"
    second = world.http.get(first.headers["location"])
    assert second.headers["location"] == "/auth/signed-out"
    assert last_session(world) in world.gateway.ended
    page = world.http.get(second.headers["location"])
    assert page.status_code == 200
    assert "You are signed out" in page.text
    assert "_token" not in world.http.cookies
    assert world.call("GET", DAGS, token).status_code == 403


def test_a_gateway_that_was_away_is_told_later_that_somebody_signed_out(world: World) -> None:
    sign_on(world)
    world.gateway.fault = (503, {}, b"{}")
    assert world.http.get("/api/v2/auth/logout").status_code == 307
    world.gateway.fault = None
    deadline = time.monotonic() + 10
    while last_session(world) not in world.gateway.ended:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_nobody_is_signed_out_by_a_token_that_is_not_airflows(world: World) -> None:
    token = token_in(session_cookie(sign_on(world)))
    head, payload, _ = token.split(".")
    world.call("GET", "/api/v2/auth/logout", f"{head}.{payload}.{'A' * 86}")
    assert last_session(world) not in world.gateway.ended
    world.http.cookies.clear()
    assert world.call("GET", DAGS, token).status_code == 200


def test_a_session_cookie_that_was_put_there_before_is_replaced(world: World) -> None:
    planted = token_in(session_cookie(sign_on(world, "admin")))
    fresh(world)
    world.http.cookies.set("_token", planted, domain="testserver.local", path="/")
    mine = token_in(session_cookie(sign_on(world)))
    assert mine != planted
    assert minting.claims_of(mine)["sub"] == "acme-operator"


# Pages, and where they lead.


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
def test_after_signing_on_the_wanted_page_of_this_site_opens(
    world: World, wanted: str, reached: str
) -> None:
    assert sign_on(world, next_path=wanted).headers["location"] == reached


@pytest.mark.parametrize("wanted", UNSAFE)
def test_signing_on_never_leads_elsewhere(world: World, wanted: str) -> None:
    assert sign_on(world, next_path=wanted).headers["location"] == "/"


def test_where_to_go_cannot_be_changed_on_the_way(world: World) -> None:
    good = world.gateway.signed_on(leave(world), "acme-operator")
    answer = come_back(world, {**good, "next": "https://evil.example/"})
    assert answer.headers["location"] == "/"


def test_a_host_that_is_not_ours_changes_nothing_about_where_answers_go(world: World) -> None:
    answer = world.http.get("/auth/login", headers={"host": "evil.example"})
    query = dict(parse_qsl(urlsplit(answer.headers["location"]).query))
    assert query["redirect_uri"] == f"{ORIGIN}/auth/callback"


def test_airflows_own_login_address_leads_to_signing_on(world: World) -> None:
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


def test_person_of_several_clients_is_asked_which(world: World) -> None:
    consultant = {"username": "consultant", "password": PASSWORD}
    assert ask_token(world, consultant).status_code == 400
    token = ask_token(world, {**consultant, "client": "globex"}).json()["access_token"]
    assert world.call("GET", f"{DAGS}/{ORDERS}", token).status_code == 200


def test_gateways_request_to_wait_is_passed_on(world: World) -> None:
    world.gateway.fault = (429, {"Retry-After": "17"}, b'{"error": "slow_down"}')
    answer = ask_token(world, {"username": "acme-operator", "password": PASSWORD})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "17")


@pytest.mark.parametrize("kind", ["trigger", "watcher", "pools"])
def test_a_services_token_opens_no_session(world: World, kind: str) -> None:
    assert world.as_kind("admin", "GET", DAGS).status_code == 200
    body = f'{{"access_token": "{world.gateway.token(kind)}", "token_type": "Bearer"}}'
    world.gateway.fault = (200, {}, body.encode())
    answer = ask_token(world, {"username": "acme-operator", "password": PASSWORD})
    assert answer.status_code == 403


def test_a_scripts_token_ends_when_its_person_is_removed(world: World) -> None:
    answer = ask_token(world, {"username": "acme-operator", "password": PASSWORD})
    token = answer.json()["access_token"]
    assert world.call("GET", DAGS, token).status_code == 200
    world.gateway.ended.add(last_session(world))
    assert world.call("GET", DAGS, token).status_code == 401


def test_bodies_before_authentication_are_small_and_of_the_right_kind(world: World) -> None:
    big = b'{"username": "' + b"x" * 20_000 + b'"}'
    json_type = {"content-type": "application/json"}
    assert world.http.post("/auth/token", content=big, headers=json_type).status_code == 413
    deep = b"[" * 8000
    assert world.http.post("/auth/token", content=deep, headers=json_type).status_code == 401
    form = {"username": "acme-operator", "password": PASSWORD}
    assert world.http.post("/auth/token", data=form).status_code == 415


def test_passwords_and_tokens_are_not_logged(
    world: World, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    answer = sign_on(world)
    ask_token(world, {"username": "acme-operator", "password": PASSWORD + "!"})
    ask_token(world, {"username": "acme-operator", "password": PASSWORD})
    bad = world.gateway.token("admin", aud="other")
    assert world.call("GET", "/api/v2/dags", bad).status_code == 403
    written = caplog.text + "".join(capfd.readouterr())
    cookie = session_cookie(answer)
    assert cookie
    assert "A gateway token was refused: claims" in written
    for secret in (PASSWORD, cookie.split(";")[0], bad, bad.split(".")[2]):
        assert secret not in written
