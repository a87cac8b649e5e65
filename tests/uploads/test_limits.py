"""Limits of a client: one file, one batch, how many, how many at a time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from gateway.bootstrap import Services
from gateway.database import new_id
from gateway.errors import GatewayError
from gateway.landing.names import FileName
from gateway.uploads import admission
from tests import factories
from tests.batches.making import ACME, opened
from tests.uploads.sending import CONTENT, Books, Line, Sender, address, eventually, slug

Bearer = Callable[[str], dict[str, str]]
Limited = Callable[..., Sender]


@pytest.fixture
def limited(client: TestClient, bearer: Bearer, sessions: sessionmaker[Session]) -> Limited:
    """Onboard client A with limits."""

    def onboarded(**limits: int) -> Sender:
        factories.onboard(sessions, "acme", ("flights",), **limits)
        return Sender(client, bearer("acme-uploader"))

    return onboarded


def test_a_file_over_the_limit_is_refused_announced_or_not(limited: Limited, books: Books) -> None:
    acme = limited(file_bytes=1000, batch_bytes=10_000)
    batch = acme.batch()
    for body in (b"x" * 1001, iter([b"x" * 1000, b"x"]), iter([b"x" * 3_000_000])):
        answer = acme.put(batch, content=body)
        assert (answer.status_code, slug(answer)) == (413, "too-large")
        assert not answer.json()["retryable"]
        books.check_nothing(batch)
    for name, body in {"a": b"x" * 1000, "b": iter([b"x" * 999, b"x"])}.items():
        assert acme.put(batch, name, content=body).status_code == 201
    books.check()


def test_a_batch_over_the_limit_is_refused_and_room_comes_back(
    limited: Limited, books: Books
) -> None:
    acme = limited(file_bytes=1000, batch_bytes=2000)
    batch = acme.batch()
    assert acme.put(batch, "a", content=b"x" * 1000).status_code == 201
    assert acme.put(batch, "b", content=iter([b"x" * 900])).status_code == 201
    for body in (b"x" * 101, iter([b"x" * 101])):
        answer = acme.put(batch, "c", content=body)
        assert (answer.status_code, slug(answer)) == (413, "too-large")
    assert acme.put(batch, "c", content=iter([b"x" * 100])).status_code == 201
    assert books.of(batch).reserved_bytes == 2000
    assert acme.put(batch, "d", content=iter([b""])).status_code == 413
    assert acme.put(batch, "d", content=b"").status_code == 201
    assert acme.ask("DELETE", address(batch, "a")).status_code == 204
    assert acme.put(batch, "e", content=b"x" * 1000).status_code == 201
    books.check()


def test_parallel_files_fill_exactly_the_slots_of_a_batch(limited: Limited, books: Books) -> None:
    acme = limited(files_per_batch=5)
    batch = acme.batch()
    gate = threading.Barrier(12)

    def put(number: int) -> str:
        gate.wait()
        answer = acme.put(batch, f"{number}.csv")
        return str(answer.status_code) if answer.status_code == 201 else slug(answer)

    with ThreadPoolExecutor(12) as crowd:
        found = Counter(crowd.map(put, range(12)))
    assert found == {"201": 5, "quota-exceeded": 7}
    assert len(books.on_disk(batch)) == 5
    books.check()


def test_parallel_files_never_hold_more_than_the_batch_may(limited: Limited, books: Books) -> None:
    acme = limited(file_bytes=1000, batch_bytes=3000)
    batch = acme.batch()
    gate = threading.Barrier(10)

    def put(number: int) -> int:
        gate.wait()
        return acme.put(batch, f"{number}.csv", content=b"x" * 1000).status_code

    with ThreadPoolExecutor(10) as crowd:
        found = list(crowd.map(put, range(10)))
    assert found.count(201) == 3
    assert set(found) <= {201, 413, 429}
    assert books.of(batch).reserved_bytes == 3000
    books.check()


def test_uploads_that_begin_at_once_in_many_batches_get_exactly_the_slots(
    services: Services,
) -> None:
    factories.onboard(services.sessions, "acme", ("flights",), uploads_in_flight=3)
    batches = [opened(services.sessions, f"r{number}").id for number in range(9)]
    gate = threading.Barrier(len(batches))

    def begun(batch: str) -> str:
        gate.wait()
        try:
            with services.sessions.begin() as session:
                name = FileName.parse("a.csv")
                new = {"upload": new_id("upl"), "expected_bytes": 1}
                admission.admit(session, ACME, batch, name, **new)
        except GatewayError as refusal:
            return refusal.slug
        return "begun"

    with ThreadPoolExecutor(len(batches)) as crowd:
        found = Counter(crowd.map(begun, batches))
    assert found == {"begun": 3, "quota-exceeded": 6}


@pytest.fixture
def narrow(sessions: sessionmaker[Session], wired: Sender) -> str:
    """Give client A, at a real server, two slots and a small batch; return the batch."""
    limits = {"uploads_in_flight": 2, "file_bytes": 1000, "batch_bytes": 1500}
    factories.onboard(sessions, "acme", ("flights",), **limits)
    return wired.batch()


def test_only_so_many_uploads_are_under_way_and_a_slot_comes_back(
    narrow: str, line: Callable[[], Line], books: Books
) -> None:
    def begun(name: str) -> Line:
        return line().begin("PUT", address(narrow, name), Content_Length="10")

    first, second = begun("a"), begun("b")
    first.send(b"x")
    second.send(b"x")
    eventually(lambda: books.rows(narrow) == {"a": "pending", "b": "pending"})
    status, headers, problem = begun("c").answer()
    assert (status, problem["type"]) == (429, "/problems/quota-exceeded")
    assert headers["connection"] == "close"
    assert int(headers["retry-after"]) > 0
    first.send(b"x" * 9)
    assert first.answer()[0] == 201
    third = begun("c")
    third.send(b"x" * 10)
    assert third.answer()[0] == 201
    second.send(b"x" * 9)
    assert second.answer()[0] == 201
    books.check()


def test_room_that_an_upload_only_holds_is_worth_waiting_for(
    narrow: str, wired: Sender, line: Callable[[], Line], books: Books
) -> None:
    # Of unknown length: it holds a whole file's room, and leaves half of one.
    first = line().begin("PUT", address(narrow, "a"), Transfer_Encoding="chunked")
    first.chunk(CONTENT)
    eventually(lambda: books.rows(narrow) == {"a": "pending"})
    answer = wired.put(narrow, "b", content=b"x" * 900)
    assert (answer.status_code, slug(answer)) == (429, "quota-exceeded")
    first.send(b"0\r\n\r\n")
    assert first.answer()[0] == 201
    assert wired.put(narrow, "b", content=b"x" * 900).status_code == 201
    books.check()
