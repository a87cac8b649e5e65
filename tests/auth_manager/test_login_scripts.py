"""Scripts sign on with a name and a password, without a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.auth_manager.signing import (
    DAGS,
    NOBODY,
    PASSWORD,
    ask_token,
    last_session,
    session_cookie,
    sign_on,
)
from tests.auth_manager.world import FLIGHTS, ORDERS

if TYPE_CHECKING:
    from tests.auth_manager.world import World

pytestmark = pytest.mark.usefixtures("accounts")


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
