"""What is special about a landing zone on an object store: leases, claims, segments."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from gateway.errors import UnavailableError
from gateway.landing.s3 import index as s3_index
from gateway.landing.s3 import names as s3_names
from gateway.landing.s3.multipart import GoneError, Multipart, Piece
from gateway.landing.s3.names import CLAIM
from gateway.landing.s3.parts import OWNER, S3Part
from gateway.landing.s3.settings import S3Settings
from gateway.landing.s3.store import Store
from gateway.landing.s3.zone import S3Zone
from gateway.landing.zone import (
    BatchPath,
    NameTakenError,
    PartBusyError,
    PartLostError,
    StorageUnavailableError,
    Stored,
)
from tests.landing.lying import InBucket

pytestmark = pytest.mark.s3
PLACE = BatchPath("acme", "flights", "bat_1")
KEY = "acme/flights/bat_1/files/a.bin"
# S3 says that there is no such upload; Ceph 16 says 500, and does nothing either.
SHUT_OUT = (GoneError, StorageUnavailableError)
SEGMENT = s3_index.SEGMENT_BYTES
LARGE = os.urandom(2 * SEGMENT + 777)


@pytest.fixture
def zone(s3: S3Settings) -> Iterator[S3Zone]:
    built = S3Zone(s3)
    yield built
    built.close()


@pytest.fixture
def other(s3: S3Settings) -> Iterator[S3Zone]:
    """The same zone, as another process has it."""
    built = S3Zone(s3)
    yield built
    built.close()


@pytest.fixture
def lying(s3: S3Settings) -> InBucket:
    return InBucket(s3)


def received(zone: S3Zone, content: bytes, upload: str = "upl_1") -> S3Part:
    part = zone.open_part(upload, len(content))
    view = memoryview(content)
    for begin in range(0, len(content), 1024**2):
        part.write([view[begin : begin + 1024**2]])
    part.finish()
    return part


def publish(zone: S3Zone, content: bytes, upload: str = "upl_1", name: str = "a.bin") -> None:
    part = received(zone, content, upload)
    try:
        zone.publish(part, PLACE, name)
    finally:
        part.abort()


def read(zone: S3Zone, name: str = "a.bin") -> bytes:
    file, size_bytes = zone.open_file(PLACE, name)
    with file:
        content = file.read()
    assert len(content) == size_bytes
    return content


@pytest.mark.parametrize(
    "size_bytes", [SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, 2 * SEGMENT + 1]
)
def test_files_around_the_bounds_of_segments_are_whole(
    zone: S3Zone, lying: InBucket, size_bytes: int
) -> None:
    content = os.urandom(size_bytes)
    publish(zone, content)
    assert read(zone) == content
    assert lying.parts() == []


def test_a_file_of_one_segment_is_written_once_and_leaves_no_part(
    zone: S3Zone, lying: InBucket
) -> None:
    part = received(zone, LARGE[:SEGMENT])
    assert lying.parts() == []
    zone.publish(part, PLACE, "a.bin")
    assert lying.parts() == []
    part.abort()


def test_memory_holds_one_segment_of_a_long_file(zone: S3Zone) -> None:
    part = zone.open_part("upl_1")
    for _ in range(5):
        part.write([LARGE])
        assert len(part._rest) <= SEGMENT
    part.abort()


def test_an_open_file_can_be_gone_about_in_and_is_one_version(zone: S3Zone) -> None:
    publish(zone, LARGE)
    file, _ = zone.open_file(PLACE, "a.bin")
    with file:
        for first in (0, SEGMENT - 3, len(LARGE) - 5, len(LARGE), len(LARGE) + 9, 1):
            assert file.seek(first) == first
            assert file.read(10) == LARGE[first : first + 10]
        assert file.seek(-4, os.SEEK_END) == len(LARGE) - 4
        assert file.read() == LARGE[-4:]
        file.seek(0)
        zone.remove_file(PLACE, "a.bin")
        publish(zone, LARGE[::-1])
        with pytest.raises(StorageUnavailableError):
            file.read()


def test_a_part_goes_on_at_every_position_and_after_several_workers(
    zone: S3Zone, other: S3Zone, lying: InBucket
) -> None:
    part = zone.open_part("upl_1")
    part.write([LARGE])
    part.checkpoint()
    part.write([b"what no checkpoint covers"])
    part.release()
    for number, position in enumerate((len(LARGE), SEGMENT + 5, SEGMENT, 3, 0)):
        worker = (other, zone)[number % 2]
        part = worker.resume_part("upl_1", position)
        assert lying.part("upl_1") == LARGE[:position]
        part.write([LARGE[position:]])
        part.checkpoint()
        assert lying.part("upl_1") == LARGE
        part.release()
    part = zone.resume_part("upl_1", len(LARGE))
    told: list[int] = []
    assert part.finish(told.append) == Stored(len(LARGE), hashlib.sha256(LARGE).hexdigest())
    assert told[-1] == len(LARGE)
    zone.publish(part, PLACE, "a.bin")
    part.abort()
    assert read(zone) == LARGE
    assert lying.parts() == []


def test_a_copy_of_a_long_part_stands_alone(zone: S3Zone, lying: InBucket) -> None:
    held = zone.open_part("upl_1")
    held.write([LARGE])
    held.checkpoint()
    for position in (len(LARGE), SEGMENT + 9, SEGMENT, 5):
        copy = f"upl_1.{position}"
        zone.copy_part("upl_1", copy, position)
        assert lying.part(copy) == LARGE[:position]
    held.abort()
    assert lying.part(f"upl_1.{len(LARGE)}") == LARGE
    with pytest.raises(PartLostError):
        zone.copy_part("upl_1", "upl_2", 0)


def test_every_process_sees_at_once_who_works_on_an_upload(zone: S3Zone, other: S3Zone) -> None:
    assert not other.is_receiving("upl_1", PLACE, "a.bin")
    part = zone.open_part("upl_1")
    assert other.is_receiving("upl_1", PLACE, "a.bin")
    part.write([LARGE])
    part.checkpoint()
    assert other.stale_parts(-1) == []
    with pytest.raises(PartBusyError):
        other.resume_part("upl_1", 0)
    time.sleep(3)  # longer than the lease: the roll is written again and again
    assert other.is_receiving("upl_1", PLACE, "a.bin")
    part.release()
    other.resume_part("upl_1", len(LARGE)).abort()


def test_of_two_who_resume_at_once_exactly_one_goes_on(zone: S3Zone, other: S3Zone) -> None:
    part = zone.open_part("upl_1")
    part.write([LARGE])
    part.checkpoint()
    part.release()

    def attempt(each: S3Zone) -> S3Part | None:
        try:
            return each.resume_part("upl_1", SEGMENT + 1)
        except PartBusyError:
            return None

    for _ in range(6):
        with ThreadPoolExecutor(2) as crowd:
            [won] = [part for part in crowd.map(attempt, (zone, other)) if part is not None]
        won.write([LARGE[SEGMENT + 1 :]])
        won.finish()
        won.release()
    part = zone.resume_part("upl_1", len(LARGE))
    assert part.finish().sha256 == hashlib.sha256(LARGE).hexdigest()
    part.abort()


def test_a_zone_that_was_closed_in_order_lets_go_at_once(s3: S3Settings, other: S3Zone) -> None:
    ended = S3Zone(s3)
    ended.open_part("upl_1").checkpoint()
    assert other.is_receiving("upl_1", PLACE, "a.bin")
    ended.close()
    assert not other.is_receiving("upl_1", PLACE, "a.bin")
    assert other.stale_parts(-1) == ["upl_1"]


def until(true: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_worker_stopped_past_its_lease_can_neither_go_on_nor_harm(
    zone: S3Zone, lying: InBucket
) -> None:
    code = (
        f"import sys; zone = {lying.opening()}\n"
        f"from gateway.landing.zone import *; part = zone.open_part('upl_9')\n"
        f"part.write([bytes({SEGMENT + 9})]); part.checkpoint(); print('ready', flush=True)\n"
        "sys.stdin.readline(); part.write([b'late'])\n"
        "for attempt in (part.checkpoint, part.finish):\n"
        "    try: attempt(); print('went on', flush=True)\n"
        "    except StorageUnavailableError: print('stopped', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        until(lambda: not zone.is_receiving("upl_9", PLACE, "a.bin"))
        part = zone.resume_part("upl_9", SEGMENT)
        part.write([b"mine"])
        part.checkpoint()
        process.send_signal(signal.SIGCONT)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.read().split() == ["stopped", "stopped"]
    part.write([b"!"])
    part.finish()
    zone.publish(part, PLACE, "a.bin")
    part.abort()
    assert read(zone) == bytes(SEGMENT) + b"mine!"


def claimed(zone: S3Zone, s3: S3Settings, content: bytes) -> tuple[S3Part, str, list[str]]:
    """Publish as a worker does that ends between its claim and the completion."""
    part = received(zone, content, "upl_dead")
    upload, etags = part.assemble(KEY)
    Store(s3).create(KEY, b"claimed", {OWNER: part.holder, CLAIM: upload})
    return part, upload, etags


@pytest.mark.parametrize("content", [b"short", LARGE], ids=["short", "long"])
def test_a_claim_is_no_file_and_who_takes_it_over_shuts_its_worker_out(
    zone: S3Zone, other: S3Zone, s3: S3Settings, content: bytes
) -> None:
    late, upload, etags = claimed(other, s3, LARGE[::-1])
    with pytest.raises(FileNotFoundError):
        zone.open_file(PLACE, "a.bin")
    assert not zone.adopt(PLACE, "a.bin", late.finish())
    publish(zone, content)
    with pytest.raises(SHUT_OUT):
        Multipart(s3).complete(KEY, upload, etags)
    with pytest.raises(NameTakenError):
        other.publish(late, PLACE, "a.bin")
    other.retract(late, PLACE, "a.bin")
    assert read(zone) == content


def test_who_is_overtaken_in_the_middle_is_told_and_takes_nothing_back(
    zone: S3Zone, other: S3Zone, s3: S3Settings
) -> None:
    part, _, _ = claimed(zone, s3, LARGE)
    publish(other, b"theirs", "upl_2")
    with pytest.raises(NameTakenError):
        zone.publish(part, PLACE, "a.bin")
    zone.retract(part, PLACE, "a.bin")
    assert read(zone) == b"theirs"


def test_a_claim_left_behind_is_found_and_set_aside(
    zone: S3Zone, other: S3Zone, s3: S3Settings, lying: InBucket
) -> None:
    _, upload, etags = claimed(other, s3, LARGE)
    assert [each.name for each in zone.walk()] == ["a.bin"]
    zone.quarantine(PLACE, "a.bin")
    assert list(zone.walk()) == []
    assert len(lying.set_aside()) == 1
    with pytest.raises(SHUT_OUT):
        Multipart(s3).complete(KEY, upload, etags)


def test_removing_a_dead_part_ends_what_was_about_to_be_made_of_it(
    zone: S3Zone, other: S3Zone, s3: S3Settings, lying: InBucket
) -> None:
    part = received(other, LARGE)
    upload, etags = part.assemble(KEY)
    zone.remove_part("upl_1")
    assert lying.parts() == []
    with pytest.raises(SHUT_OUT):
        Multipart(s3).complete(KEY, upload, etags)


def test_two_who_publish_at_once_give_the_name_once(
    zone: S3Zone, other: S3Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_names, "SETTLE_SECONDS", 0.0)

    def attempt(zone: S3Zone, content: bytes, upload: str) -> bool:
        try:
            publish(zone, content, upload)
        except (NameTakenError, StorageUnavailableError):
            return False
        return True

    for number in range(6):
        contents = [LARGE, LARGE[::-1], b"short"]
        with ThreadPoolExecutor(3) as crowd:
            jobs = [
                crowd.submit(attempt, (zone, other)[each % 2], content, f"upl_{number}{each}")
                for each, content in enumerate(contents)
            ]
            won = [content for content, job in zip(contents, jobs, strict=True) if job.result()]
        assert len(won) == 1
        assert read(zone) == won[0]
        zone.remove_file(PLACE, "a.bin")


def test_a_name_with_every_sign_is_the_same_to_both_speakers(zone: S3Zone) -> None:
    name = "é𝒳 ._-+@()=,#~&'!%20.csv"
    publish(zone, LARGE, name=name)
    assert [each.name for each in zone.walk()] == [name]
    assert read(zone, name) == LARGE


def test_a_long_object_is_set_aside_in_pieces(
    zone: S3Zone, lying: InBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.landing.s3.zone.COPY_BYTES", SEGMENT)
    publish(zone, LARGE)
    aside = zone.quarantine(PLACE, "a.bin")
    assert lying.set_aside() == {aside: LARGE}


@pytest.mark.parametrize(
    "wrong",
    [
        {"bucket": "nobody"},
        {"secret_access_key": "hunter2-hunter2"},
        {"access_key_id": "NOBODY"},
        {"endpoint": "http://127.0.0.1:9"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_store_that_cannot_be_used_is_said_at_the_start_without_its_secrets(
    s3: S3Settings, wrong: dict[str, str]
) -> None:
    with pytest.raises(UnavailableError) as refusal:
        S3Zone(replace(s3, **wrong))
    told = "".join(traceback.format_exception(refusal.value))
    for secret in (s3.secret_access_key, "hunter2", s3.access_key_id, "Signature", s3.endpoint):
        assert secret not in told
    assert s3.secret_access_key not in repr(s3)


def test_a_part_of_an_upload_that_was_ended_cannot_be_added_to(s3: S3Settings) -> None:
    multipart, store = Multipart(s3), Store(s3)
    store.put("piece", b"piece")
    upload = multipart.begin("made", {})
    multipart.abort("made", upload)
    multipart.abort("made", upload)
    with pytest.raises(GoneError):
        multipart.copy("made", upload, 1, Piece("piece"))
