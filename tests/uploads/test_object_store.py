"""The upload doors on a bucket: what they promise on a disk, they promise here.

Tests of the other modules are borrowed as they are; only the landing zone behind the doors, and
where the books look, are others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from deploy.local.ceph import ObjectStore
from gateway.admin import reconcile
from gateway.bootstrap import Services
from gateway.landing.s3 import index as s3_index
from gateway.landing.s3.settings import S3Settings
from gateway.landing.s3.store import Store
from gateway.landing.zone import BatchPath
from gateway.uploads import sweep
from tests.uploads import (
    test_apart,
    test_content,
    test_limits,
    test_put,
    test_submissions,
    test_tus,
)
from tests.uploads.bucket import BucketBooks, variables
from tests.uploads.sending import CONTENT, OTHER, Sender, digest, eventually, sha256, slug

pytestmark = pytest.mark.s3
BORROWED: dict[ModuleType, set[str]] = {
    test_content: {"test_damaged_bytes_are_not_given_for_those_that_were_sent"},
    test_limits: set(),
    test_put: {
        "test_a_file_that_was_lost_is_not_acknowledged_again",
        "test_a_file_marked_damaged_is_taken_again",
    },
    test_submissions: set(),
}
# Of the tus doors one test of each kind: what a store could make different.
OF_TUS = {
    "test_an_upload_in_pieces_becomes_a_file_like_any_other",
    "test_the_first_bytes_may_come_with_the_creation",
    "test_a_stretch_with_a_wrong_checksum_is_discarded",
    "test_a_whole_upload_of_other_bytes_than_announced_is_gone",
    "test_the_same_bytes_again_are_compared_and_other_bytes_refused",
    "test_terminating_gives_name_and_room_back",
    "test_a_newer_upload_of_a_name_takes_its_place",
    "test_what_arrived_of_a_cut_stretch_is_kept",
    "test_another_process_goes_on_and_reads_again_what_it_did_not_hash",
    "test_what_a_stopped_process_holds_goes_on_without_it",
    "test_a_whole_upload_that_a_crash_left_before_its_row_is_finished_by_looking",
    "test_each_slot_is_held_by_an_upload_until_it_ends",
}
BORROWED[test_tus] = {
    name for name in vars(test_tus) if name.startswith("test_") and name not in OF_TUS
}
BORROWED[test_apart] = {
    name for name in vars(test_apart) if name.startswith("test_") and "transaction" not in name
}


def borrow(module: ModuleType, refused: set[str]) -> None:
    """Take over a module's tests and fixtures, but those that are not for a bucket."""
    for name, thing in vars(module).items():
        is_test = name.startswith("test_") and callable(thing) and name not in refused
        is_fixture = type(thing).__name__ == "FixtureFunctionDefinition"
        if is_test or is_fixture:
            assert globals().setdefault(name, thing) is thing, name


for each, looks_at_a_disk in BORROWED.items():
    borrow(each, looks_at_a_disk)


@pytest.fixture
def environment(environment: dict[str, str], s3: S3Settings) -> dict[str, str]:
    del environment["GATEWAY_LANDING_ROOT"]
    return environment | variables(s3)


@pytest.fixture
def books(sessions: sessionmaker[Session], s3: S3Settings, tmp_path: Path) -> BucketBooks:
    return BucketBooks(sessions, tmp_path / "none", Store(s3))


def test_a_file_of_several_segments_comes_back_whole_and_in_ranges(
    acme: Sender, books: BucketBooks
) -> None:
    content = os.urandom(2 * s3_index.SEGMENT_BYTES + 12_345)
    batch = acme.batch()
    answer = acme.put(batch, content=content, repr_digest=digest(content))
    assert answer.status_code == 201, answer.text
    assert answer.json()["sha256"] == sha256(content)
    assert acme.put(batch, content=content).status_code == 200
    assert acme.put(batch, content=content[:-1] + b"x").status_code == 409
    assert acme.get(batch).content == content
    middle = s3_index.SEGMENT_BYTES
    part = acme.get(batch, range=f"bytes={middle - 5}-{middle + 4}")
    assert (part.status_code, part.content) == (206, content[middle - 5 : middle + 5])
    assert acme.seal(batch).status_code == 202
    books.check()


@pytest.fixture
def lies(books: BucketBooks) -> Callable[[str, str, bytes], None]:
    """Return a function that lays a file down of which no row knows."""

    def lay(batch: str, name: str, content: bytes) -> None:
        books.store.put(f"acme/flights/{batch}/files/{name}", content)

    return lay


def test_an_orphan_in_the_bucket_is_adopted_for_its_bytes_or_set_aside(
    acme: Sender, books: BucketBooks, lies: Callable[[str, str, bytes], None]
) -> None:
    batch = acme.batch()
    lies(batch, "same.csv", CONTENT)
    lies(batch, "other.csv", OTHER)
    for name in ("same.csv", "other.csv"):
        assert acme.put(batch, name).status_code == 201
    assert books.on_disk(batch) == {"same.csv": CONTENT, "other.csv": CONTENT}
    assert books.set_aside() == [OTHER]
    books.check()


def test_reconciling_sets_aside_what_no_row_knows_and_marks_what_is_lost(
    acme: Sender,
    services: Services,
    books: BucketBooks,
    lies: Callable[[str, str, bytes], None],
) -> None:
    batch = acme.batch()
    for name in ("kept.csv", "lost.csv", "cut.csv"):
        acme.put(batch, name)
    lies(batch, "orphan.csv", OTHER)
    lies(batch, "cut.csv", b"cut")
    services.zone.remove_file(BatchPath("acme", "flights", batch), "lost.csv")
    found = reconcile.run(services.sessions, services.zone, repair=True, actor="test").findings
    kinds = {(each.kind, each.subject.partition("/")[2]) for each in found}
    lost = {("file-lost", "lost.csv"), ("file-changed", "cut.csv")}
    assert kinds == {("file-without-row", "orphan.csv"), *lost}
    assert books.set_aside() == [OTHER]
    for name in ("lost.csv", "cut.csv"):
        assert acme.get(batch, name).status_code == 404
        assert acme.put(batch, name).status_code == 201
    books.check()


def test_a_dead_upload_gives_back_name_room_and_part(
    acme: Sender, services: Services, books: BucketBooks
) -> None:
    batch = acme.batch()
    part = services.zone.open_part("upl_dead")
    part.write([CONTENT])
    part.checkpoint()
    assert sweep.run(services.sessions, services.zone, -1) == 0
    part.release()
    assert sweep.run(services.sessions, services.zone, -1) == 1
    books.check_nothing(batch)


def test_a_canceled_batch_leaves_nothing_in_the_bucket(acme: Sender, books: BucketBooks) -> None:
    batch = acme.batch()
    acme.put(batch)
    assert acme.ask("DELETE", f"/v1/batches/{batch}").status_code in {200, 204}
    assert books.lying() == []


def test_a_store_that_is_away_answers_503_and_all_is_well_after_it(
    acme: Sender, client: TestClient, object_store: ObjectStore, books: BucketBooks
) -> None:
    batch = acme.batch()
    acme.put(batch, "before.csv")
    object_store.kill()
    try:
        for answer in (acme.put(batch), acme.get(batch, "before.csv")):
            assert answer.status_code == 503, answer.text
            for secret in (object_store.access_key_id, "Signature", str(object_store.port)):
                assert secret not in answer.text
        assert client.get("/readyz").status_code == 503
    finally:
        object_store.serve()
    assert acme.put(batch).status_code == 201
    assert acme.get(batch, "before.csv").content == CONTENT
    assert client.get("/readyz").status_code == 200
    books.check()


def test_a_store_that_says_nothing_answers_503_in_bounded_time(
    acme: Sender, object_store: ObjectStore, books: BucketBooks
) -> None:
    batch = acme.batch()
    object_store.pause()
    try:
        began = time.monotonic()
        assert acme.put(batch).status_code == 503
        assert time.monotonic() - began < 20
    finally:
        object_store.resume()
    assert acme.put(batch).status_code == 201
    books.check()


def test_a_store_that_is_killed_amid_an_upload_takes_it_again_afterwards(
    acme: Sender, object_store: ObjectStore, books: BucketBooks
) -> None:
    batch = acme.batch()
    content = os.urandom(4 * s3_index.SEGMENT_BYTES)

    def cut() -> Iterator[bytes]:
        half = len(content) // 2
        yield content[:half]
        object_store.kill()
        yield content[half:]

    try:
        answer = acme.put(batch, content=cut())
        assert (answer.status_code, slug(answer)) == (503, "unavailable")
    finally:
        object_store.serve()
    assert acme.put(batch, content=content).status_code == 201
    assert books.on_disk(batch) == {"a.csv": content}


def test_a_full_store_answers_507_and_takes_more_when_there_is_room(
    acme: Sender, object_store: ObjectStore, books: BucketBooks
) -> None:
    batch = acme.batch()
    object_store.limit(1)
    try:
        eventually(lambda: acme.put(batch).status_code == 507, 20)
        assert books.rows(batch) == {}
    finally:
        object_store.limit(None)
    eventually(lambda: acme.put(batch).status_code in {200, 201}, 20)
    books.check()
