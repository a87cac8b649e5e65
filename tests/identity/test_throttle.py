"""Guessing: how often, from where, and what the answers give away."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from deploy.local.directory import Directory as DirectoryServer
from gateway import settings
from gateway.identity import sessions as family_sessions
from gateway.identity import throttle
from gateway.identity.model import FailedLogin, RefreshToken, RevokedToken, TokenFamily
from tests.identity.conftest import Start
from tests.identity.test_signing_in import ask, person, refused


def guess(client: TestClient, name: str = "acme-operator", password: str = "wrong") -> Any:
    return ask(client, grant_type="password", username=name, password=password)


def shape(answer: Any) -> Any:
    return answer.status_code, answer.json(), sorted(answer.headers.keys() - {"retry-after"})


def test_after_too_many_failures_right_and_wrong_answer_alike(
    start: Start, directory_server: DirectoryServer
) -> None:
    client = start(THROTTLE_ACCOUNT_FAILURES=3)
    for _ in range(3):
        refused(guess(client), 400, "invalid_grant")
    wrong = guess(client)
    refused(wrong, 429, "slow_down")
    assert 1 <= int(wrong.headers["retry-after"]) <= 301
    assert shape(person(client, directory_server, "acme-operator")) == shape(wrong)
    assert person(client, directory_server, "acme-viewer").status_code == 200


def test_unknown_names_are_slowed_down_like_known_ones(start: Start) -> None:
    client = start(THROTTLE_ACCOUNT_FAILURES=2)
    seen = [[shape(guess(client, name)) for _ in range(4)] for name in ("acme-operator", "nobody")]
    assert seen[0] == seen[1]
    assert [answer[0] for answer in seen[0]] == [400, 400, 429, 429]


@pytest.mark.parametrize("other", ["ACME-operator", " acme-operator", "acme\u200b-operator"])
def test_another_spelling_is_no_other_account(start: Start, other: str) -> None:
    client = start(THROTTLE_ACCOUNT_FAILURES=2)
    for _ in range(2):
        guess(client, other)
    refused(guess(client), 429, "slow_down")


def test_a_spelling_that_only_the_directory_knows_is_no_other_account(
    start: Start, directory_server: DirectoryServer
) -> None:
    client = start(THROTTLE_ACCOUNT_FAILURES=2)
    # Variation selectors: to LDAP they are not there.
    spellings = [f"acme-operator\ufe0f{chr(0xFE00 + number)}" for number in range(4)]
    for name in spellings[:2]:
        refused(guess(client, name), 400, "invalid_grant")
    refused(guess(client, spellings[2]), 429, "slow_down")
    refused(
        guess(client, spellings[3], directory_server.passwords["acme-operator"]), 429, "slow_down"
    )


def test_an_address_is_slowed_down_across_names_and_success_does_not_help(
    start: Start, directory_server: DirectoryServer
) -> None:
    client = start(THROTTLE_ADDRESS_FAILURES=4)
    for number in range(3):
        guess(client, f"nobody-{number}")
    assert person(client, directory_server, "acme-viewer").status_code == 200
    guess(client, "nobody-3")
    refused(person(client, directory_server, "acme-viewer"), 429, "slow_down")


def test_waiting_helps(start: Start, directory_server: DirectoryServer) -> None:
    client = start(THROTTLE_ACCOUNT_FAILURES=1, THROTTLE_WINDOW_SECONDS=1)
    guess(client)
    refused(guess(client), 429, "slow_down")
    time.sleep(1.1)
    assert person(client, directory_server, "acme-operator").status_code == 200


def test_of_many_guesses_at_once_only_the_limit_is_answered(start: Start) -> None:
    client = start(THROTTLE_ACCOUNT_FAILURES=4)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda number: guess(client, password=f"g{number}"), range(24)))
    assert Counter(answer.status_code for answer in answers) == {400: 4, 429: 20}


def test_many_sign_ins_at_once_with_the_right_password_all_succeed(
    start: Start, directory_server: DirectoryServer
) -> None:
    client = start(THROTTLE_ACCOUNT_FAILURES=2)
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda _: person(client, directory_server, "acme-operator"), range(16))
        assert {answer.status_code for answer in answers} == {200}


@pytest.mark.parametrize(
    ("trusted", "forwarded", "counted"),
    [
        ("", "203.0.113.9", "testclient"),
        ("10.0.0.1", "203.0.113.9", "testclient"),
        ("10.0.0.1, testclient", "203.0.113.9", "203.0.113.9"),
        ("testclient", "198.51.100.7, 203.0.113.9", "203.0.113.9"),
        ("testclient", "203.0.113.9, rubbish", "testclient"),
        ("testclient", "", "testclient"),
    ],
)
def test_only_a_trusted_proxys_own_word_about_the_address_counts(
    start: Start, sessions: sessionmaker[Session], trusted: str, forwarded: str, counted: str
) -> None:
    client = start(SERVER_TRUSTED_PROXIES=trusted)
    form = {"grant_type": "password", "username": "nobody", "password": "wrong"}
    client.post("/v1/token", data=form, headers={"x-forwarded-for": forwarded})
    with sessions.begin() as session:
        keys = set(session.scalars(select(FailedLogin.key)))
    counters = throttle.Counters.of("nobody", counted)
    assert keys == {counters.account, counters.address}


def test_a_network_of_one_household_is_one_address() -> None:
    def digest(address: str) -> str:
        return throttle.Counters.of("x", address).address

    assert digest("2001:db8:1:2::3") == digest("2001:db8:1:2:ffff::1")
    assert digest("2001:db8:1:3::3") != digest("2001:db8:1:2::3")
    assert digest("::ffff:192.0.2.1") == digest("192.0.2.1")
    assert digest("192.0.2.2") != digest("192.0.2.1")


def test_what_no_longer_counts_is_swept(
    start: Start, directory_server: DirectoryServer, sessions: sessionmaker[Session]
) -> None:
    client = start()
    guess(client)
    body = person(client, directory_server, "acme-operator").json()
    client.post("/v1/token/revoke", data={"token": body["access_token"]})
    config = settings.Throttle()
    with sessions.begin() as session:
        assert throttle.sweep(session, config) == 0
        assert family_sessions.sweep(session) == 0
        old = func.now() - func.make_interval(0, 0, 0, 40)
        session.query(FailedLogin).update({"at": old})
        session.query(RevokedToken).update({"expires_at": old})
        session.query(TokenFamily).update({"expires_at": old})
        assert throttle.sweep(session, config) == 2
        assert family_sessions.sweep(session) == 3
        for table in (FailedLogin, RevokedToken, TokenFamily, RefreshToken):
            assert session.scalar(select(func.count()).select_from(table)) == 0
