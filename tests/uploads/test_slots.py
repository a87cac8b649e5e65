"""N at once where a limit is k: exactly k get in, whichever limit it is, on both ways of a file."""

from __future__ import annotations

import select
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from gateway.clients import usage
from gateway.database import now
from gateway.onboarding import apply, spec
from tests import factories
from tests.uploads.sending import Books, Line, Sender, address, eventually

MANY = 9
LIMITS: dict[str, tuple[dict[str, Any], int]] = {
    "files of a batch": ({"files_per_batch": 4}, 4),
    "bytes of a batch": ({"batch_bytes": 59}, 5),
    "uploads under way": ({"uploads_in_flight": 3}, 3),
    "bytes of a day": ({"bytes_per_day": 65}, 6),
}


def onboard(sessions: sessionmaker[Session], whose: str, held: dict[str, Any]) -> None:
    """Onboard client A with limits of its own, or of its project."""
    project: dict[str, Any] = {"contract": factories.CONTRACT}
    document: dict[str, Any] = {"client": "acme", "name": "Acme", "projects": {"flights": project}}
    (document if whose == "client" else project)["limits"] = held
    with sessions.begin() as session:
        apply.apply(session, spec.parse(document), actor="operator:test")


def used(sessions: sessionmaker[Session]) -> int:
    with sessions.begin() as session:
        return sum(usage.of_day(session, "acme", usage.day_of(now(session))).values())


def is_answered(line: Line) -> bool:
    return bool(select.select([line.connection.sock], [], [], 0)[0])


@pytest.mark.parametrize("whose", ["client", "project"])
@pytest.mark.parametrize("limit", LIMITS)
def test_of_slow_bodies_exactly_as_many_are_let_in_as_a_limit_has_room_for(
    sessions: sessionmaker[Session],
    wired: Sender,
    line: Callable[[], Line],
    books: Books,
    whose: str,
    limit: str,
) -> None:
    held, room = LIMITS[limit]
    onboard(sessions, whose, held)
    batch = wired.batch()

    def begun(number: int) -> Line:
        started = line().begin("PUT", address(batch, f"{number}"), Content_Length="10")
        started.send(b"x")
        return started

    with ThreadPoolExecutor(MANY) as crowd:
        lines = list(crowd.map(begun, range(MANY)))
    eventually(lambda: len(books.rows(batch)) + sum(map(is_answered, lines)) == MANY, seconds=60)
    refused = [each for each in lines if is_answered(each)]
    assert len(refused) == MANY - room
    for each in refused:
        assert each.answer()[2]["type"] in {"/problems/quota-exceeded", "/problems/too-large"}
    let_in = [each for each in lines if each not in refused]
    assert used(sessions) == 10 * room
    for each in let_in[1:]:
        each.send(b"x" * 9)
        assert each.answer()[0] == 201
    # One goes away: its room is there again, and not a byte more.
    let_in[0].cut()
    eventually(lambda: len(books.rows(batch)) == room - 1)
    assert used(sessions) == 10 * (room - 1)
    assert wired.put(batch, "late", content=b"x" * 10).status_code == 201
    assert used(sessions) == 10 * room
    books.check()


@pytest.mark.parametrize("whose", ["client", "project"])
@pytest.mark.parametrize("limit", [name for name in LIMITS if name != "uploads under way"])
def test_of_small_files_at_once_exactly_as_many_are_stored_as_a_limit_has_room_for(
    sessions: sessionmaker[Session], wired: Sender, books: Books, whose: str, limit: str
) -> None:
    held, room = LIMITS[limit]
    onboard(sessions, whose, held)
    batch = wired.batch()
    gate = threading.Barrier(MANY)

    def put(number: int) -> int:
        gate.wait()
        return wired.put(batch, f"{number}", content=b"x" * 10).status_code

    with ThreadPoolExecutor(MANY) as crowd:
        found = Counter(crowd.map(put, range(MANY)))
    assert found[201] == room
    assert found.keys() <= {201, 413, 429}
    assert used(sessions) == 10 * room
    books.check()


def test_a_day_that_is_used_up_says_when_the_next_begins(
    sessions: sessionmaker[Session], wired: Sender
) -> None:
    onboard(sessions, "client", {"bytes_per_day": 15})
    batch = wired.batch()
    assert wired.put(batch, "a", content=b"x" * 10).status_code == 201
    answer = wired.put(batch, "b", content=b"x" * 10)
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 86_400
    assert wired.put(batch, "b", content=b"x" * 16).status_code == 413
    # What was received was received: deleting it makes no room on this day.
    assert wired.ask("DELETE", address(batch, "a")).status_code == 204
    assert wired.put(batch, "a", content=b"x" * 10).status_code == 429
    assert wired.put(batch, "a", content=b"x" * 5).status_code == 201
