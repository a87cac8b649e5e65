"""The sweep: what dead processes hold is given back, what lives is left alone."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from gateway import worker
from gateway.batches.model import Batch, File
from gateway.bootstrap import Services
from gateway.database import new_id
from gateway.landing.names import FileName
from gateway.landing.zone import Stored
from gateway.uploads import completion, expiry, sweep
from gateway.uploads.admission import admit
from gateway.uploads.rows import Admission
from tests import factories
from tests.batches.making import ACME, opened
from tests.nursery import Nursery
from tests.parts import GatewayServer, serve
from tests.uploads.sending import CONTENT, Books, Line, Sender, address, eventually, sha256

HOUR = 3600


@pytest.fixture
def batch(services: Services) -> Batch:
    factories.onboard_two(services.sessions)
    return opened(services.sessions)


def begun(services: Services, batch: Batch, name: str) -> Admission:
    with services.sessions.begin() as session:
        found = admit(
            session,
            ACME,
            batch.id,
            FileName.parse(name),
            upload=new_id("upl"),
            expected_bytes=100,
        )
    assert isinstance(found, Admission)
    return found


def age(services: Services, upload: str, seconds: float = 2 * HOUR) -> None:
    """Make an upload look older than it is."""
    with services.sessions.begin() as session:
        older = File.created_at - timedelta(seconds=seconds)
        session.execute(update(File).where(File.upload == upload).values(created_at=older))
    part = services.settings.landing.root / ".parts" / upload
    if part.exists():
        then = time.time() - seconds
        os.utime(part, (then, then))


def test_dead_uploads_give_back_name_room_and_part(
    services: Services, batch: Batch, books: Books
) -> None:
    dead = begun(services, batch, "dead.csv")
    part = Path(services.settings.landing.root / ".parts" / dead.upload)
    part.write_bytes(b"half of it")
    age(services, dead.upload)
    assert books.of(batch.id).reserved_bytes == 100
    assert sweep.run(services.sessions, services.zone, HOUR) == 2
    books.check_nothing(batch.id)
    assert sweep.run(services.sessions, services.zone, HOUR) == 0
    assert books.actions().count("file.expired") == 1


def test_uploads_that_are_alive_or_young_are_left_alone(
    services: Services, batch: Batch, books: Books
) -> None:
    alive = begun(services, batch, "alive.csv")
    part = services.zone.open_part(alive.upload)
    part.write([CONTENT])
    age(services, alive.upload)
    begun(services, batch, "young.csv")
    assert sweep.run(services.sessions, services.zone, HOUR) == 0
    assert books.rows(batch.id) == {"alive.csv": "pending", "young.csv": "pending"}
    assert books.parts() == [alive.upload]
    part.abort()


def test_a_batch_that_somebody_works_on_is_passed_over(
    services: Services, batch: Batch, books: Books
) -> None:
    dead = begun(services, batch, "dead.csv")
    age(services, dead.upload)
    with services.sessions.begin() as session:
        session.get_one(Batch, batch.id, with_for_update={"key_share": True})
        assert sweep.run(services.sessions, services.zone, HOUR) == 0
    assert sweep.run(services.sessions, services.zone, HOUR) == 1
    books.check_nothing(batch.id)


def test_completing_and_sweeping_at_once_count_right(
    services: Services, batch: Batch, books: Books
) -> None:
    """Whoever comes first: the file is there whole, or gone whole, and the counters fit."""
    stop = threading.Event()

    def sweeping() -> None:
        while not stop.is_set():
            sweep.run(services.sessions, services.zone, HOUR)

    thread = threading.Thread(target=sweeping)
    thread.start()
    try:
        for number in range(30):
            upload = begun(services, batch, f"{number}.csv")
            age(services, upload.upload)
            with services.sessions.begin() as session:
                try:
                    completion.complete(
                        session, ACME, upload, Stored(len(CONTENT), sha256(CONTENT))
                    )
                except completion.UploadConflictError:
                    session.rollback()
    finally:
        stop.set()
        thread.join()
    rows = books.rows(batch.id)
    found = books.of(batch.id)
    assert set(rows.values()) <= {"complete"}
    assert (found.file_count, found.reserved_bytes) == (len(rows), len(rows) * len(CONTENT))


def test_the_worker_sweeps_uploads(services: Services, batch: Batch, books: Books) -> None:
    dead = begun(services, batch, "dead.csv")
    age(services, dead.upload)
    worker.sweep(services)
    books.check_nothing(batch.id)


def test_a_killed_servers_upload_is_taken_over_at_once_by_the_next_attempt(
    wired: Sender,
    line: Callable[[], Line],
    server: GatewayServer,
    nursery: Nursery,
    environment: dict[str, str],
    sessions: sessionmaker[Session],
    books: Books,
    tmp_path: Path,
) -> None:
    batch = wired.batch()
    half = line().begin("PUT", address(batch, "a.csv"), Content_Length="2000000")
    half.send(b"x" * 1_500_000)
    eventually(lambda: books.rows(batch) == {"a.csv": "pending"})
    eventually(lambda: len(books.parts()) == 1)
    server.kill()
    half.cut()
    assert books.rows(batch) == {"a.csv": "pending"}
    second = serve(nursery, environment, tmp_path)
    try:
        wired.speaker.base_url = second.url  # type: ignore[union-attr]
        assert wired.put(batch).status_code == 201
        assert books.on_disk(batch) == {"a.csv": CONTENT}
        [left] = books.parts()
        then = time.time() - 2 * HOUR
        os.utime(books.root / ".parts" / left, (then, then))
    finally:
        second.stop()
    from gateway.landing.disk import DiskZone

    zone = DiskZone(books.root)
    assert sweep.run(sessions, zone, HOUR) == 1
    zone.close()
    books.check()


def test_a_file_that_is_completed_between_look_and_lock_is_not_counted_off(
    services: Services, batch: Batch, books: Books
) -> None:
    upload = begun(services, batch, "a.csv")
    age(services, upload.upload)
    stored = Stored(len(CONTENT), sha256(CONTENT))
    with services.sessions.begin() as session:
        [seen] = expiry.stale(session, HOUR, 10)
    with services.sessions.begin() as session:
        completion.complete(session, ACME, upload, stored)
    with services.sessions.begin() as session:
        assert not expiry.expire(session, seen)
    assert books.rows(batch.id) == {"a.csv": "complete"}
    found = books.of(batch.id)
    assert (found.file_count, found.reserved_bytes) == (1, len(CONTENT))
