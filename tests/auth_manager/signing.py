"""Signing on at Airflow as a browser does, and what is to be seen of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from httpx import Response

    from tests.auth_manager.world import World

ORIGIN = "http://testserver"
PASSWORD = "correct horse xq-password"
NOBODY = "The user name or the password is not right."
DAGS = "/api/v2/dags"


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


def last_session(world: World) -> str:
    return list(world.gateway.sessions)[-1]


def ask_token(world: World, body: Any) -> Response:
    return world.http.post("/auth/token", json=body)
