"""What a session is worth afterwards, also while the gateway is away."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.auth_manager import minting
from tests.auth_manager.signing import (
    DAGS,
    come_back,
    last_session,
    leave,
    session_cookie,
    sign_on,
    token_in,
)

if TYPE_CHECKING:
    from tests.auth_manager.world import World

pytestmark = pytest.mark.usefixtures("accounts")


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
