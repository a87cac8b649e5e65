"""Small files of many requests in one transaction: each as if it had been alone."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from gateway.audit.model import AuditEvent
from gateway.batches.model import Batch
from gateway.batches.views import FileView
from gateway.bootstrap import Services
from gateway.database import now
from gateway.events import feed
from gateway.identity.model import RevokedToken
from gateway.landing.names import FileName
from gateway.uploads import small, together
from gateway.uploads.announced import Announced
from gateway.uploads.groups import Waiter
from gateway.uploads.small import Ready, Small
from tests import factories
from tests.batches.making import ACME, opened, path
from tests.uploads.sending import (
    CONTENT,
    OTHER,
    Books,
    Line,
    Sender,
    address,
    digest,
    eventually,
    sha256,
)


@pytest.fixture
def batch(services: Services) -> Batch:
    factories.onboard_two(services.sessions)
    return opened(services.sessions)


def ready(services: Services, batch: Batch, name: str, content: bytes = CONTENT) -> Ready:
    said = Announced(len(content))
    file = Small(ACME, batch.id, FileName.parse(name), said, None, [content])
    (found,) = small.write_all(services.zone, [file])
    assert isinstance(found, Ready)
    return found


def stored(services: Services, files: list[Ready]) -> list[bool]:
    return [view is not None for view in services.groups.store("acme", files)]


def test_hundreds_at_once_are_each_stored_told_and_recorded(
    wired: Sender, books: Books, sessions: sessionmaker[Session]
) -> None:
    batch = wired.batch()

    def put(number: int) -> tuple[int, str]:
        answer = wired.put(batch, f"{number}.csv", content=b"%d" % number)
        return answer.status_code, answer.json()["sha256"]

    with ThreadPoolExecutor(16) as crowd:
        found = list(crowd.map(put, range(200)))
    assert found == [(201, sha256(b"%d" % number)) for number in range(200)]
    with sessions.begin() as session:
        events = feed.after(session, "acme", 0, 1000)
        query = select(AuditEvent.request_id).where(AuditEvent.action == "file.received")
        requests = session.scalars(query).all()
    assert [each.number for each in events] == list(range(1, 202))
    assert {each.data["name"] for each in events[1:]} == {f"{n}.csv" for n in range(200)}
    assert len(set(requests)) == 200
    books.check()


def test_one_that_is_refused_fails_none_of_its_neighbours(
    wired: Sender, globex: Sender, books: Books
) -> None:
    foreign = globex.batch()
    batch, sealed = wired.batch(), wired.batch("sealed")
    wired.put(batch, "there")
    wired.put(sealed, "a")
    assert wired.seal(sealed).status_code == 202
    gate = threading.Barrier(13)
    wrong = {"repr_digest": digest(OTHER)}
    table = [
        *[(batch, f"{number}", CONTENT, {}, 201) for number in range(5)],
        (batch, "there", CONTENT, {}, 200),
        (batch, "there", OTHER, {}, 409),
        (batch, "THERE", CONTENT, {}, 409),
        (batch, ".hidden", CONTENT, {}, 422),
        (batch, "wrong", CONTENT, wrong, 422),
        (sealed, "b", CONTENT, {}, 409),
        (foreign, "a", CONTENT, {}, 404),
        (foreign[:-1] + "0", "a", CONTENT, {}, 404),
    ]

    def put(row: tuple[str, str, bytes, dict[str, str], int]) -> int:
        to, name, content, headers, _ = row
        gate.wait()
        return wired.put(to, name, content=content, **headers).status_code

    with ThreadPoolExecutor(len(table)) as crowd:
        assert list(crowd.map(put, table)) == [row[4] for row in table]
    assert set(books.rows(batch)) == {"there", "0", "1", "2", "3", "4"}
    assert books.rows(foreign) == {}
    books.check()


def test_of_two_with_one_name_in_a_group_the_second_is_left_alone(
    services: Services, batch: Batch, books: Books
) -> None:
    files = [ready(services, batch, "a"), ready(services, batch, "A"), ready(services, batch, "b")]
    assert stored(services, files) == [True, False, True]
    assert books.on_disk(batch.id) == {"a": CONTENT, "b": CONTENT}
    books.check()


def test_a_name_that_an_orphan_has_is_left_to_the_way_that_knows_orphans(
    wired: Sender, books: Books
) -> None:
    batch = wired.batch()
    wired.put(batch, "first")
    place = books.root / "acme" / "flights" / batch / "files" / "a"
    place.write_bytes(OTHER)
    assert wired.put(batch, "a").status_code == 201
    assert books.set_aside() == [OTHER]
    books.check()


def test_a_token_revoked_meanwhile_commits_nothing(
    services: Services, batch: Batch, books: Books
) -> None:
    file = ready(services, batch, "a")
    with services.sessions.begin() as session:
        session.add(RevokedToken(jti=ACME.jti, expires_at=now(session)))
    assert stored(services, [file]) == [False]
    books.check_nothing(batch.id)


def test_a_client_suspended_meanwhile_gets_nothing_stored(
    services: Services, batch: Batch, books: Books
) -> None:
    file = ready(services, batch, "a")
    with services.sessions.begin() as session:
        session.execute(text("UPDATE client SET state = 'suspended' WHERE name = 'acme'"))
    assert stored(services, [file]) == [False]
    books.check_nothing(batch.id)


def test_a_group_that_fails_leaves_nothing_and_its_files_can_come_again(
    services: Services, batch: Batch, books: Books
) -> None:
    with services.sessions.begin() as session:
        session.execute(text("ALTER TABLE audit_event RENAME TO elsewhere"))
    files = [ready(services, batch, f"{number}") for number in range(3)]
    assert stored(services, files) == [False] * 3
    assert books.on_disk(batch.id) == {}
    with services.sessions.begin() as session:
        session.execute(text("ALTER TABLE elsewhere RENAME TO audit_event"))
    books.check_nothing(batch.id)
    again = [ready(services, batch, f"{number}") for number in range(3)]
    assert stored(services, again) == [True] * 3
    books.check()


def test_a_commit_whose_answer_was_lost_is_believed(
    services: Services, batch: Batch, books: Books
) -> None:
    files = [ready(services, batch, f"{number}") for number in range(3)]
    with services.sessions.begin() as session:
        first = together.store(session, services.zone, "acme", files)
    with services.sessions.begin() as session:
        again = together.settle(session, services.zone, "acme", files)
    assert Counter(view.name for view in again if view) == Counter("012")
    assert [view and view.sha256 for view in again] == [view and view.sha256 for view in first]
    for file in files:
        file.part.release()
    books.check()


def test_what_was_published_and_not_committed_is_taken_back_unless_it_is_anothers(
    services: Services, batch: Batch, books: Books
) -> None:
    files = [ready(services, batch, f"{number}") for number in range(2)]
    with services.sessions() as session:
        together.store(session, services.zone, "acme", files)
        session.rollback()
    assert books.on_disk(batch.id).keys() == {"0", "1"}
    # Meanwhile another finds the second and makes it its own.
    other = ready(services, batch, "1")
    assert services.zone.adopt(path(batch), "1", other.stored)
    with services.sessions.begin() as session:
        session.execute(
            text(
                "INSERT INTO file (batch_id, name, collision_key, state, upload, reserved_bytes,"
                " size_bytes, sha256, created_by) VALUES (:batch, '1', '1', 'complete', 'upl_x',"
                " :size, :size, :sha, 'x')"
            ),
            {"batch": batch.id, "size": len(CONTENT), "sha": sha256(CONTENT)},
        )
    with services.sessions.begin() as session:
        views = together.settle(session, services.zone, "acme", files)
    assert views == [None, None]
    assert books.on_disk(batch.id) == {"1": CONTENT}
    for file in [*files, other]:
        file.part.abort()


def test_a_small_file_that_stalls_holds_its_place_like_any_other(
    wired: Sender, books: Books, line: Callable[[], Line]
) -> None:
    batch = wired.batch()
    begun = line().begin("PUT", address(batch, "a"), Content_Length="4")
    begun.send(b"ab")
    eventually(lambda: books.rows(batch) == {"a": "pending"})
    begun.send(b"cd")
    assert begun.answer()[0] == 201
    books.check()


def test_senders_who_were_answered_together_are_stored_together_again(
    services: Services, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.uploads.groups.PAUSE", 1000)
    monkeypatch.setattr("gateway.uploads.groups.PAUSE_SECONDS", 1)
    monkeypatch.setattr("gateway.uploads.groups.RETURN_SECONDS", 1)
    sizes: list[int] = []
    store = services.groups.store

    def measured(client: str, files: Sequence[Ready]) -> list[FileView | None]:
        sizes.append(len(files))
        return store(client, files)

    monkeypatch.setattr(services.groups, "store", measured)

    async def send(sender: int) -> None:
        for number in range(6):
            waiter = Waiter()
            services.groups.add(ready(services, batch, f"{sender}-{number}"), waiter)
            assert await waiter.outcome

    async def send_all() -> None:
        await asyncio.gather(*map(send, range(4)))

    asyncio.run(send_all())
    assert sum(sizes) == 24
    # Who is first begins alone, and who is ahead ends first.
    assert sizes.count(4) >= 5, sizes
