from __future__ import annotations

import threading

import pytest
from sqlalchemy.orm import Session, sessionmaker

from gateway.batches import idempotency
from gateway.batches.idempotency import Answer, Key, KeyInFlightError, KeyReusedError
from gateway.batches.views import ReplayRequest
from gateway.errors import InvalidRequestError

REQUEST = ReplayRequest(reason="one")
KEY = Key("acme", "acme-uploader", "k-1", 60)


class Counter:
    """Answers with a number that grows with each answer."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> Answer:
        self.number += 1
        return Answer(201, f"/{self.number}", {"b": self.number, "a": {"z": 1, "aa": 2}})


def ask(
    sessions: sessionmaker[Session],
    counter: Counter,
    key: Key = KEY,
    request: ReplayRequest = REQUEST,
) -> Answer:
    with sessions.begin() as session:
        return idempotency.once(session, key, request, counter)


def test_the_same_key_and_request_get_the_same_answer(sessions: sessionmaker[Session]) -> None:
    counter = Counter()
    assert ask(sessions, counter) == ask(sessions, counter)
    assert counter.number == 1


def test_another_request_with_the_key_is_refused(sessions: sessionmaker[Session]) -> None:
    counter = Counter()
    ask(sessions, counter)
    with pytest.raises(KeyReusedError):
        ask(sessions, counter, request=ReplayRequest(reason="two"))
    assert counter.number == 1


@pytest.mark.parametrize(
    "other",
    [
        Key("globex", "acme-uploader", "k-1", 60),
        Key("acme", "ann", "k-1", 60),
        Key("acme", "acme-uploader", "k-2", 60),
    ],
)
def test_a_key_belongs_to_one_account_of_one_client(
    sessions: sessionmaker[Session], other: Key
) -> None:
    counter = Counter()
    ask(sessions, counter)
    assert ask(sessions, counter, key=other).location == "/2"


def test_what_failed_is_not_kept(sessions: sessionmaker[Session]) -> None:
    def fail() -> Answer:
        raise InvalidRequestError

    with sessions.begin() as session, pytest.raises(InvalidRequestError):
        idempotency.once(session, KEY, REQUEST, fail)
    assert ask(sessions, Counter(), request=ReplayRequest(reason="mended")).location == "/1"


def test_a_key_whose_first_request_still_runs_is_in_flight(
    sessions: sessionmaker[Session],
) -> None:
    inside, go_on = threading.Event(), threading.Event()
    answers: list[Answer] = []

    def slow() -> Answer:
        inside.set()
        assert go_on.wait(20)
        return Counter()()

    def first() -> None:
        with sessions.begin() as session:
            answers.append(idempotency.once(session, KEY, REQUEST, slow))

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(20)
    try:
        with pytest.raises(KeyInFlightError):
            ask(sessions, Counter())
    finally:
        go_on.set()
        thread.join()
    assert ask(sessions, Counter()) == answers[0]


def test_an_expired_key_is_free_again(sessions: sessionmaker[Session]) -> None:
    counter = Counter()
    expired = Key(KEY.client, KEY.subject, KEY.text, 0)
    assert ask(sessions, counter, key=expired).location == "/1"
    other = ReplayRequest(reason="two")
    assert ask(sessions, counter, key=expired, request=other).location == "/2"
    assert ask(sessions, counter, request=other).location == "/2"


def test_a_purge_forgets_only_what_has_expired(sessions: sessionmaker[Session]) -> None:
    counter = Counter()
    ask(sessions, counter)
    with sessions.begin() as session:
        assert idempotency.purge(session, 60) == 0
    with sessions.begin() as session:
        assert idempotency.purge(session, 0) == 1
    assert ask(sessions, counter).location == "/2"


@pytest.mark.parametrize("text", ["", "k" * 256, "a b", "ü", "a\x00", "a\n"])
def test_a_key_is_visible_ascii(sessions: sessionmaker[Session], text: str) -> None:
    with pytest.raises(InvalidRequestError):
        ask(sessions, Counter(), key=Key("acme", "ann", text, 60))
