"""Resumable uploads at real servers: cut, stalled, doubled, stopped, and gone on with elsewhere."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from gateway.landing.zone import BatchPath
from gateway.uploads.model import Upload
from tests.nursery import Nursery
from tests.parts import GatewayServer, serve
from tests.uploads.resuming import CONTENT, STREAM, begun, offset, patch
from tests.uploads.sending import Books, Line, Sender, address, eventually, sha256


@pytest.fixture
def second(
    wired: Sender, nursery: Nursery, environment: dict[str, str], tmp_path: Path
) -> Iterator[Sender]:
    """The same sender at another process of the same gateway."""
    other = serve(nursery, environment, tmp_path)
    with httpx.Client(base_url=other.url, timeout=30, verify=False) as speaker:
        yield Sender(speaker, wired.headers)
    other.stop()


def test_what_arrived_of_a_cut_stretch_is_kept(
    wired: Sender, line: Callable[[], Line], books: Books
) -> None:
    batch = wired.batch()
    place = begun(wired, batch)
    cut = line().begin(
        "PATCH", place, **STREAM, Upload_Offset="0", Content_Length=str(len(CONTENT))
    )
    cut.send(CONTENT[:6000])
    eventually(lambda: offset(wired, place) == 6000)
    cut.send(CONTENT[6000:7000])
    time.sleep(0.2)
    cut.cut()
    eventually(lambda: offset(wired, place) == 7000)
    assert patch(wired, place, 7000, CONTENT[7000:]).status_code == 204
    assert wired.get(batch).content == CONTENT
    books.check()


def test_a_stalled_stretch_is_durable_so_far_and_gives_way_to_a_newer_one(
    wired: Sender, line: Callable[[], Line], books: Books
) -> None:
    batch = wired.batch()
    place = begun(wired, batch)
    stalled = line().begin(
        "PATCH", place, **STREAM, Upload_Offset="0", Content_Length=str(len(CONTENT))
    )
    stalled.send(CONTENT[:7000])
    eventually(lambda: offset(wired, place) == 7000, 3)
    began = time.monotonic()
    assert patch(wired, place, 7000, CONTENT[7000:]).status_code == 204
    assert time.monotonic() - began < 2
    stalled.send(b"x" * 100)
    assert stalled.answer()[0] == 409
    assert wired.get(batch).content == CONTENT
    books.check()


def test_of_the_same_stretch_sent_twice_at_once_the_bytes_count_once(
    wired: Sender, books: Books
) -> None:
    batch = wired.batch()
    place = begun(wired, batch, digest=sha256(CONTENT))
    answers: list[int] = []

    def send() -> None:
        with httpx.Client(base_url=wired.speaker.base_url, timeout=30, verify=False) as speaker:
            answers.append(patch(Sender(speaker, wired.headers), place, 0, CONTENT).status_code)

    senders = [threading.Thread(target=send) for _ in range(8)]
    for each in senders:
        each.start()
    for each in senders:
        each.join()
    assert set(answers) <= {204, 409}
    if 204 not in answers:
        stands = offset(wired, place)
        assert patch(wired, place, stands, CONTENT[stands:]).status_code == 204
    assert wired.get(batch).content == CONTENT
    books.check()


def test_another_process_goes_on_and_reads_again_what_it_did_not_hash(
    wired: Sender, second: Sender, books: Books
) -> None:
    content = CONTENT * 50
    batch = wired.batch()
    place = begun(wired, batch, length=len(content), digest=sha256(content))
    assert patch(wired, place, 0, content[:500_000]).status_code == 204
    assert offset(second, place) == 500_000
    assert patch(second, place, 500_000, content[500_000:]).status_code == 204
    shown = wired.ask("GET", address(batch, "a.csv")).json()
    assert (shown["state"], shown["sha256"]) == ("complete", sha256(content))
    assert shown["verified_bytes"] is not None
    books.check()


def test_what_a_stopped_process_holds_goes_on_without_it(
    wired: Sender,
    second: Sender,
    server: GatewayServer,
    line: Callable[[], Line],
    books: Books,
) -> None:
    batch = wired.batch()
    place = begun(wired, batch, digest=sha256(CONTENT))
    held = line().begin(
        "PATCH", place, **STREAM, Upload_Offset="0", Content_Length=str(len(CONTENT))
    )
    held.send(CONTENT[:7000])
    eventually(lambda: offset(wired, place) == 7000, 5)
    server.process.send_signal(signal.SIGSTOP)
    try:
        held.send(b"x" * 1000)
        assert offset(second, place) == 7000
        assert patch(second, place, 7000, CONTENT[7000:]).status_code == 204
    finally:
        server.process.send_signal(signal.SIGCONT)
    held.send(b"x" * 1000)
    assert held.answer()[0] == 409
    assert wired.get(batch).content == CONTENT
    books.check()


def test_a_whole_upload_that_a_crash_left_before_its_row_is_finished_by_looking(
    wired: Sender, services: Any, sessions: sessionmaker[Session], books: Books
) -> None:
    batch = wired.batch()
    places = {name: begun(wired, batch, name) for name in ("a.csv", "b.csv")}
    for name, place in places.items():
        upload = place.rpartition("/")[2]
        part = services.zone.resume_part(upload, 0)
        part.write([CONTENT])
        stored = part.finish()
        values = {"offset_bytes": len(CONTENT)}
        if name == "b.csv":  # it got its name, too
            values["sha256"] = stored.sha256
            services.zone.publish(part, BatchPath("acme", "flights", batch), name)
        part.release()
        with sessions.begin() as session:
            session.execute(update(Upload).where(Upload.id == upload).values(values))
        assert offset(wired, place) == len(CONTENT)
    assert set(books.rows(batch).values()) == {"complete"}
    books.check()
