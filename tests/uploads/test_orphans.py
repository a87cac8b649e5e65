"""What crashes and overtaken uploads leave: adopted, set aside, given back; never mixed up."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.batches import ledger
from gateway.batches.model import Batch, File
from gateway.bootstrap import Services
from gateway.database import new_id
from gateway.errors import GatewayError
from gateway.landing.names import FileName
from gateway.landing.zone import NameTakenError
from gateway.uploads import completion
from gateway.uploads.admission import Known, admit
from gateway.uploads.announced import Announced
from gateway.uploads.intake import BUFFER_CHUNKS, Intake, pour
from gateway.uploads.receive import Received, receive
from gateway.uploads.rows import Admission
from tests import factories
from tests.batches.making import ACME, opened, path
from tests.uploads.sending import CONTENT, OTHER, Books

NAME = FileName.parse("a.csv")


@pytest.fixture
def batch(services: Services) -> Batch:
    factories.onboard_two(services.sessions)
    return opened(services.sessions)


@pytest.fixture
def intake(services: Services) -> Intake:
    return Intake(services.sessions, services.zone, services.writers)


def place(books: Books, batch: Batch) -> Path:
    files = books.root / "acme" / "flights" / batch.id / "files"
    files.mkdir(parents=True, exist_ok=True)
    return files / NAME.text


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def sent(intake: Intake, batch: Batch, content: bytes = CONTENT) -> Received:
    announced = Announced(size_bytes=len(content))
    return asyncio.run(receive(intake, ACME, batch.id, NAME, announced, chunks(content)))


def refused(intake: Intake, batch: Batch, content: bytes = CONTENT) -> str:
    with pytest.raises(GatewayError) as refusal:
        sent(intake, batch, content)
    return refusal.value.slug


def admitted(services: Services, batch: Batch) -> Admission:
    """Begin an upload as a process does that ends before it has stored anything."""
    with services.sessions.begin() as session:
        before = session.get(File, (batch.id, NAME.text))
        found = admit(
            session,
            ACME,
            batch.id,
            NAME,
            upload=new_id("upl"),
            expected_bytes=10,
            dead={before.upload} if before else set(),
        )
    assert isinstance(found, Admission)
    return found


def test_an_orphan_of_the_same_bytes_is_adopted(intake: Intake, batch: Batch, books: Books) -> None:
    place(books, batch).write_bytes(CONTENT)
    before = place(books, batch).stat().st_ino
    received = sent(intake, batch)
    assert received.is_new
    assert place(books, batch).stat().st_ino == before
    assert books.on_disk(batch.id) == {"a.csv": CONTENT}
    assert books.set_aside() == []
    books.check()


def test_an_orphan_of_other_bytes_is_set_aside_never_deleted(
    intake: Intake, batch: Batch, books: Books
) -> None:
    place(books, batch).write_bytes(OTHER)
    assert sent(intake, batch).is_new
    assert books.on_disk(batch.id) == {"a.csv": CONTENT}
    assert books.set_aside() == [OTHER]
    books.check()


def test_a_planted_symlink_is_set_aside_and_not_followed(
    intake: Intake, batch: Batch, books: Books, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(CONTENT)
    place(books, batch).symlink_to(outside)
    assert sent(intake, batch).is_new
    assert books.on_disk(batch.id) == {"a.csv": CONTENT}
    assert not place(books, batch).is_symlink()
    assert outside.read_bytes() == CONTENT
    books.check()


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_planted_directory_symlink_is_refused_and_nothing_is_written_through(
    intake: Intake, batch: Batch, books: Books, tmp_path: Path, depth: int
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    components = ["acme", "flights", batch.id, "files"][:depth]
    planted = books.root.joinpath(*components)
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.symlink_to(outside)
    assert refused(intake, batch) == "unavailable"
    assert list(outside.iterdir()) == []
    assert books.rows(batch.id) == {}
    assert books.parts() == []
    planted.unlink()
    assert sent(intake, batch).is_new
    books.check()


def test_a_landing_zone_that_is_gone_is_unavailable_and_holds_nothing_back(
    intake: Intake, batch: Batch, books: Books
) -> None:
    shutil.rmtree(books.root)
    assert refused(intake, batch) == "unavailable"
    assert books.rows(batch.id) == {}
    assert books.of(batch.id).reserved_bytes == 0


def test_a_dead_uploads_name_is_taken_over_and_it_completes_no_more(
    services: Services, intake: Intake, batch: Batch, books: Books
) -> None:
    dead = admitted(services, batch)
    received = sent(intake, batch)
    assert received.file.upload != dead.upload
    with services.sessions.begin() as session:
        assert not completion.abandon(session, dead)
    assert books.rows(batch.id) == {"a.csv": "complete"}
    books.check()


def test_an_overtaken_upload_leaves_the_others_file_alone(
    services: Services, intake: Intake, batch: Batch, books: Books
) -> None:
    async def overtaken() -> AsyncIterator[bytes]:
        yield OTHER[:5]
        # Its part is taken for dead (as after a move to another file system): another goes on.
        admitted(services, batch)
        yield OTHER[5:]

    announced = Announced(size_bytes=len(OTHER))
    with pytest.raises(GatewayError) as refusal:
        asyncio.run(receive(intake, ACME, batch.id, NAME, announced, overtaken()))
    assert refusal.value.slug == "upload-conflict"
    assert books.rows(batch.id) == {"a.csv": "pending"}
    # It was published before it lost; the one that goes on settles that.
    assert sent(intake, batch).is_new
    assert books.on_disk(batch.id) == {"a.csv": CONTENT}
    books.check()


def test_a_batch_that_expires_under_way_gets_no_file(
    services: Services, intake: Intake, batch: Batch, books: Books
) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield CONTENT[:5]
        with services.sessions.begin() as session:
            session.get_one(Batch, batch.id).expires_at = session.get_one(
                Batch, batch.id
            ).created_at
        with services.sessions.begin() as session:
            assert [each.id for each in ledger.expire_open(session, 10)] == [batch.id]
        services.zone.remove_batch(path(batch))
        with services.sessions.begin() as session:
            ledger.clear(session, batch)
        yield CONTENT[5:]

    with pytest.raises(GatewayError) as refusal:
        asyncio.run(receive(intake, ACME, batch.id, NAME, Announced(), slow()))
    assert refusal.value.slug == "batch-closed"
    books.check_nothing(batch.id)


class BrokenError(Exception):
    """Something that no part of ours raises."""


def test_a_canceled_request_gives_everything_back(
    intake: Intake, batch: Batch, books: Books
) -> None:
    async def canceled_at(number: int) -> None:
        reached = asyncio.Event()

        async def stuck() -> AsyncIterator[bytes]:
            for _ in range(number):
                yield b"x" * 1_100_000
            reached.set()
            await asyncio.sleep(60)

        announced = Announced()
        task = asyncio.create_task(receive(intake, ACME, batch.id, NAME, announced, stuck()))
        await reached.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for number in range(4):
        asyncio.run(canceled_at(number))
        until_nothing(books, batch)
    assert sent(intake, batch).is_new


def until_nothing(books: Books, batch: Batch) -> None:
    import time

    deadline = time.monotonic() + 10
    while books.rows(batch.id) or books.parts():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    books.check_nothing(batch.id)


def test_a_request_canceled_at_any_moment_is_stored_whole_or_not_at_all(
    intake: Intake, batch: Batch, books: Books
) -> None:
    async def canceled_after(seconds: float) -> None:
        body = chunks(*[b"x" * 400_000] * 8)
        task = asyncio.create_task(receive(intake, ACME, batch.id, NAME, Announced(), body))
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.wait([task])

    async def settled() -> None:
        for number in range(25):
            await canceled_after(number * 0.001)

    asyncio.run(settled())
    rows = books.rows(batch.id)
    assert rows in ({}, {"a.csv": "complete"})
    books.check()


def test_a_failing_body_gives_everything_back(intake: Intake, batch: Batch, books: Books) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        raise BrokenError

    with pytest.raises(BrokenError):
        asyncio.run(receive(intake, ACME, batch.id, NAME, Announced(), failing()))
    books.check_nothing(batch.id)


def test_a_file_whose_place_was_taken_between_two_looks_is_a_conflict(
    services: Services, batch: Batch, books: Books
) -> None:
    place(books, batch).write_bytes(OTHER)
    part = services.zone.open_part("upl_x")
    part.write([CONTENT])
    part.finish()
    with pytest.raises(NameTakenError):
        services.zone.publish(part, path(batch), NAME.text)
    part.abort()
    assert place(books, batch).read_bytes() == OTHER


def test_a_known_file_is_given_only_in_a_live_batch(
    services: Services, intake: Intake, batch: Batch
) -> None:
    sent(intake, batch)

    def again(session: Session) -> object:
        return admit(session, ACME, batch.id, NAME, upload=new_id("upl"), expected_bytes=None)

    with services.sessions.begin() as session:
        assert isinstance(again(session), Known)
    for state in ("canceled", "expired", "purged"):
        with services.sessions.begin() as session:
            session.get_one(Batch, batch.id).state = state
        with services.sessions.begin() as session, pytest.raises(GatewayError) as refusal:
            again(session)
        assert refusal.value.slug == "batch-closed"


class Counting:
    """A sink that keeps count, and looks for writers in its way."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.largest = 0
        self.busy = False

    def write(self, buffer: Iterator[bytes]) -> None:
        assert not self.busy
        self.busy = True
        found = list(buffer)
        self.largest = max(self.largest, len(found))
        for chunk in found:
            self.digest.update(chunk)
        self.busy = False


def test_crumbs_are_written_in_order_and_never_pile_up(intake: Intake) -> None:
    sink = Counting()
    crumbs = [bytes([number % 256]) * 2 for number in range(BUFFER_CHUNKS * 3 + 7)]
    tail = asyncio.run(pour(intake, sink, chunks(*crumbs), 10**6))
    sink.write(iter(tail))
    assert sink.largest <= BUFFER_CHUNKS
    assert sink.digest.digest() == hashlib.sha256(b"".join(crumbs)).digest()


def test_rows_of_one_batch_are_locked_in_one_order(
    services: Services, intake: Intake, batch: Batch
) -> None:
    """Two who give back and take at once do not wait for each other in a circle."""

    async def many() -> list[object]:
        tasks = []
        for number in range(24):
            body = chunks(b"x" * (number % 3), *([b"y"] if number % 2 else []))
            announced = Announced(size_bytes=5)
            tasks.append(receive(intake, ACME, batch.id, NAME, announced, body))
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    found = asyncio.run(many())
    slugs = {getattr(each, "slug", repr(each)) for each in found}
    assert slugs <= {"upload-conflict", "invalid-request"}
    with services.sessions.begin() as session:
        assert session.scalars(select(File)).all() == []
        assert session.get_one(Batch, batch.id).reserved_bytes == 0
