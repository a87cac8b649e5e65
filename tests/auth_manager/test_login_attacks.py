"""Signing on by what is no answer of the gateway's, or to somewhere else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from tests.auth_manager import minting
from tests.auth_manager.signing import (
    DAGS,
    ORIGIN,
    come_back,
    fresh,
    last_session,
    leave,
    session_cookie,
    sign_on,
    token_in,
)

if TYPE_CHECKING:
    from httpx import Response

    from tests.auth_manager.world import World

pytestmark = pytest.mark.usefixtures("accounts")


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
