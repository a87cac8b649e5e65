"""Tokens of the gateway that were revoked, and what happens while nobody can say."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from ingest.gateway_api import GatewayAwayError, Worth
from ingest.standing import AWAY_SECONDS, KNOWN, PEOPLE_SECONDS, Standing
from tests.auth_manager import minting
from tests.auth_manager.test_api import bulk_pool, run_body
from tests.auth_manager.world import FLIGHTS, FLIGHTS_RUN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.auth_manager.world import World

DAGS = "/api/v2/dags"


@pytest.fixture(autouse=True)
def nothing_remembered(world: World) -> Iterator[None]:
    yield
    world.gateway.fault = None
    world.app.state.auth_manager.__dict__.pop("_standing", None)


def token_of(world: World, kind: str) -> tuple[str, str]:
    claims = minting.claims(kind)
    return minting.sign(world.gateway.key, claims), claims["jti"]


@pytest.mark.parametrize("kind", ["trigger", "cancel", "pools"])
def test_a_revoked_token_that_changes_something_stops_at_once(world: World, kind: str) -> None:
    world.gateway.fresh_seconds = 60.0
    token, jti = token_of(world, kind)
    method, path = "GET", f"{DAGS}/{FLIGHTS}/dagRuns/{FLIGHTS_RUN}"
    body: dict[str, Any] | None = None
    if kind == "pools":
        method, path, body = "PATCH", "/api/v2/pools", bulk_pool("client-acme", 3)
    assert world.call(method, path, token, json=body).status_code == 200
    world.gateway.ended.add(jti)
    assert world.call(method, path, token, json=body).status_code == 401
    world.gateway.fresh_seconds = 0.0


def test_a_revoked_trigger_token_starts_nothing(world: World) -> None:
    token, jti = token_of(world, "trigger")
    world.gateway.ended.add(jti)
    body = run_body()
    path = f"{DAGS}/{FLIGHTS}/dagRuns"
    assert world.call("POST", path, token, json=body).status_code == 401
    assert world.as_kind("admin", "GET", f"{path}/{body['dag_run_id']}").status_code == 404


def test_a_revoked_persons_token_is_refused(world: World) -> None:
    token, jti = token_of(world, "operator")
    assert world.call("GET", DAGS, token).status_code == 200
    world.gateway.ended.add(jti)
    assert world.call("GET", DAGS, token).status_code == 401


def test_nothing_is_changed_with_a_token_that_nobody_can_confirm(world: World) -> None:
    trigger, _ = token_of(world, "trigger")
    person, _ = token_of(world, "operator")
    assert world.call("GET", DAGS, person).status_code == 200
    world.gateway.fault = (503, {}, b"{}")
    answer = world.call("POST", f"{DAGS}/{FLIGHTS}/dagRuns", trigger, json=run_body())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    # People look on, with what they have, until it expires.
    assert world.call("GET", DAGS, person).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b'{"active": "true"}',
        b'{"active": 1, "scope": "admin", "exp": 1, "fresh_seconds": 1}',
        b'{"active": true}',
        b'{"active": true, "scope": "admin", "exp": "x", "fresh_seconds": 1}',
        b'{"active": true, "scope": "admin", "exp": 1, "fresh_seconds": []}',
    ],
)
def test_an_answer_that_makes_no_sense_is_none(world: World, body: bytes) -> None:
    trigger, _ = token_of(world, "trigger")
    assert world.call("GET", f"{DAGS}/{FLIGHTS}", trigger).status_code == 200
    world.gateway.fault = (200, {}, body)
    assert world.call("GET", f"{DAGS}/{FLIGHTS}", trigger).status_code == 503


# The memory alone.


class Gateway:
    """Answers with a number of its own, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.seconds = 100.0
        self.fresh_seconds = 60.0
        self.is_away = False

    def clock(self) -> float:
        return self.seconds

    def worth(self, token: str, kind: str | None) -> Worth | None:
        self.asked += 1
        if self.is_away:
            raise GatewayAwayError
        return Worth(
            "acme", frozenset({"batches:read"}), int(time.time()) + 900, self.fresh_seconds
        )


def ask(standing: Standing, identity: str = "a", seconds: float = PEOPLE_SECONDS) -> Any:
    return standing.confirmed(identity, identity, None, at_most_seconds=seconds)


def test_an_answer_is_believed_for_as_long_as_it_is_fresh_and_never_for_long() -> None:
    gateway = Gateway()
    standing = Standing(gateway.worth, gateway.clock)
    for fresh, good in ((60.0, PEOPLE_SECONDS), (3.0, 3.0)):
        gateway.fresh_seconds = fresh
        gateway.seconds += 100
        before = gateway.asked
        ask(standing)
        gateway.seconds += good - 0.1
        ask(standing)
        assert gateway.asked == before + 1
        gateway.seconds += 0.2
        assert standing.remembered("a") is None
        ask(standing)
        assert gateway.asked == before + 2


def test_a_gateway_that_is_away_is_not_asked_again_and_again() -> None:
    gateway = Gateway()
    standing = Standing(gateway.worth, gateway.clock)
    gateway.is_away = True
    for _ in range(10):
        with pytest.raises(GatewayAwayError):
            ask(standing, seconds=0)
    assert gateway.asked == 1
    gateway.is_away = False
    gateway.seconds += AWAY_SECONDS
    assert ask(standing, seconds=0).worth


def test_no_more_is_remembered_than_there_is_room_for() -> None:
    gateway = Gateway()
    standing = Standing(gateway.worth, gateway.clock)
    for number in range(KNOWN + 5):
        ask(standing, str(number))
    assert standing.remembered("0") is None
    assert standing.remembered(str(KNOWN + 4))
