"""A code is exchanged once, by whom it was made for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from tests.identity.conftest import DirectoryAdmin, Start
from tests.identity.signon.signing_on import (
    SECRETS,
    Attempt,
    answered,
    end_session,
    family_of,
    served,
    signed_on,
)

CODE_ATTACKS: dict[str, dict[str, str | None]] = {
    "another verifier": {"code_verifier": "v" * 43},
    "the challenge as verifier": {},
    "too short a verifier": {"code_verifier": "v" * 42},
    "another address": {"redirect_uri": "https://airflow.test/b?x=1"},
    "another application": {"client_id": "grafana", "client_secret": SECRETS["grafana"]},
}


def test_a_code_with_anything_else_than_it_was_asked_with_is_used_up(
    client: TestClient, operator: tuple[str, str]
) -> None:
    signed_on(client, operator)
    for name, changed in CODE_ATTACKS.items():
        attempt = Attempt(client)
        code = answered(attempt.open())["code"]
        challenge = attempt.query()["code_challenge"]
        given = {**changed, **({} if changed else {"code_verifier": challenge})}
        refused = attempt.redeem(code, **given)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant"), name
        assert attempt.redeem(code).json()["error"] == "invalid_grant", name


PROVING_NOTHING: list[tuple[dict[str, str | None], int, str]] = [
    ({"client_secret": "x" * 40}, 401, "invalid_client"),
    ({"client_secret": SECRETS["grafana"]}, 401, "invalid_client"),
    ({"client_secret": ""}, 401, "invalid_client"),
    ({"client_secret": None}, 401, "invalid_client"),
    ({"client_id": "unknown"}, 401, "invalid_client"),
    ({"client_id": None}, 401, "invalid_client"),
    ({"code": None}, 400, "invalid_request"),
    ({"redirect_uri": None}, 400, "invalid_request"),
    ({"code_verifier": None}, 400, "invalid_request"),
    ({"audience": "gateway"}, 400, "invalid_target"),
    ({"code": "gwc_unknown"}, 400, "invalid_grant"),
    ({"code": "gwc_" + "x" * 5000}, 400, "invalid_grant"),
    ({"code": "gwr_" + "x" * 43}, 400, "invalid_grant"),
]


def test_a_request_that_proves_nothing_leaves_the_code_as_it_is(
    client: TestClient, operator: tuple[str, str]
) -> None:
    attempt = Attempt(client)
    code = answered(attempt.post(*operator))["code"]
    for changed, status, error in PROVING_NOTHING:
        refused = attempt.redeem(code, **changed)
        assert (refused.status_code, refused.json()["error"]) == (status, error), changed
    assert attempt.redeem(code).status_code == 200


def test_a_code_that_comes_twice_takes_back_what_it_gave(
    client: TestClient, operator: tuple[str, str]
) -> None:
    attempt = Attempt(client)
    code = answered(attempt.post(*operator))["code"]
    token = attempt.redeem(code).json()["access_token"]
    assert attempt.introspect(token)["active"]
    assert attempt.redeem(code).json()["error"] == "invalid_grant"
    assert attempt.introspect(token) == {"active": False}
    assert attempt.introspect(family_of(token), token_type_hint="session") == {"active": False}


def test_of_two_who_send_a_code_at_once_at_most_one_has_it(
    client: TestClient, operator: tuple[str, str]
) -> None:
    attempt = Attempt(client)
    code = answered(attempt.post(*operator))["code"]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: attempt.redeem(code).status_code, range(4)))
    assert sorted(found) == [200, 400, 400, 400]


def test_a_code_lives_for_a_minute(
    client: TestClient, operator: tuple[str, str], sessions: sessionmaker[Session]
) -> None:
    attempt = Attempt(client)
    code = answered(attempt.post(*operator))["code"]
    with sessions.begin() as session:
        life = session.scalar(
            text("SELECT extract(epoch FROM expires_at - created_at) FROM authorization_code")
        )
        assert life is not None
        assert 59 <= float(life) <= 61
        session.execute(text("UPDATE authorization_code SET expires_at = now()"))
    assert attempt.redeem(code).json()["error"] == "invalid_grant"


def test_a_code_is_worth_nothing_once_its_person_has_signed_out_or_is_gone(
    start: Start, operator: tuple[str, str], directory_admin: DirectoryAdmin
) -> None:
    client = served(start, LDAP_CACHE_SECONDS=0)
    attempt = Attempt(client)
    first = answered(attempt.post(*operator))["code"]
    token = attempt.redeem(answered(attempt.open())["code"]).json()["access_token"]
    end_session(client, family_of(token))
    assert attempt.redeem(first).json()["error"] == "invalid_grant"
    second = answered(attempt.post(*operator))["code"]
    member = f"uid=acme-operator,ou=people,{directory_admin.base}"
    directory_admin.remove_member("acme-operators", member)
    assert attempt.redeem(second).json()["error"] == "invalid_grant"


def test_nothing_is_lost_while_the_directory_is_away(
    start: Start, operator: tuple[str, str]
) -> None:
    client = served(start, LDAP_CACHE_SECONDS=0)
    attempt = Attempt(client)
    code = answered(attempt.post(*operator))["code"]
    directory = client.app.state.directory  # type: ignore[attr-defined]
    taken = [directory._slots.acquire() for _ in range(8)]
    refused = attempt.redeem(code)
    assert (refused.status_code, refused.json()["error"]) == (503, "temporarily_unavailable")
    for _ in taken:
        directory._slots.release()
    assert attempt.redeem(code).status_code == 200
