"""A landing zone without room: on a real, small file system."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.uploads.sending import CONTENT, Books, Sender, slug

MIB = 1024**2
MS_NOEXEC, MNT_DETACH = 8, 2

Mount = Callable[[str], Path]


@pytest.fixture
def mount(environment: dict[str, str]) -> Iterator[Mount]:
    """Return a function that puts a small file system in the landing zone's place.

    Ask for it before the application: that holds the directory which it finds at its start.
    """
    landing = environment["GATEWAY_LANDING_ROOT"]
    libc = ctypes.CDLL(None, use_errno=True)
    mounted = []

    def put(options: str) -> Path:
        arguments = (
            b"tmpfs",
            landing.encode(),
            b"tmpfs",
            MS_NOEXEC,
            f"{options},mode=750".encode(),
        )
        if libc.mount(*arguments) != 0:
            pytest.skip(f"may not mount: {os.strerror(ctypes.get_errno())}")
        mounted.append(landing)
        return Path(landing)

    yield put
    for each in mounted:
        assert libc.umount2(each.encode(), MNT_DETACH) == 0


@pytest.fixture
def small(mount: Mount) -> Path:
    return mount("size=4m")


@pytest.fixture
def few_inodes(mount: Mount) -> Path:
    return mount("size=4m,nr_inodes=12")


def test_an_announced_file_without_room_is_refused_unread(
    small: Path, acme: Sender, books: Books
) -> None:
    batch = acme.batch()
    answer = acme.put(batch, content=bytes(5 * MIB))
    assert (answer.status_code, slug(answer)) == (507, "insufficient-storage")
    assert answer.headers["connection"] == "close"
    assert answer.json()["retryable"]
    books.check_nothing(batch)


def test_a_disk_that_fills_under_way_answers_507_and_gives_everything_back(
    small: Path, acme: Sender, books: Books
) -> None:
    batch = acme.batch()
    answer = acme.put(batch, content=(bytes(MIB) for _ in range(6)))
    assert (answer.status_code, slug(answer)) == (507, "insufficient-storage")
    books.check_nothing(batch)
    assert acme.put(batch, content=bytes(3 * MIB)).status_code == 201
    books.check()


def test_what_is_stored_stays_good_when_the_next_finds_no_room(
    small: Path, acme: Sender, books: Books
) -> None:
    batch = acme.batch()
    kept = os.urandom(3 * MIB)
    assert acme.put(batch, "kept.bin", content=kept).status_code == 201
    for content in (bytes(2 * MIB), (bytes(MIB) for _ in range(2))):
        assert acme.put(batch, content=content).status_code == 507
    assert books.on_disk(batch) == {"kept.bin": kept}
    books.check()
    assert acme.seal(batch).status_code == 202


def test_a_file_system_out_of_inodes_answers_507(
    few_inodes: Path, acme: Sender, books: Books
) -> None:
    batch = acme.batch()
    statuses = [acme.put(batch, f"{number}.csv").status_code for number in range(12)]
    assert statuses[0] == 201
    assert statuses[-1] == 507
    assert set(statuses) == {201, 507}
    assert len(books.on_disk(batch)) == statuses.count(201)
    books.check()


def test_a_submission_that_finds_no_room_leaves_nothing(
    small: Path, acme: Sender, books: Books
) -> None:
    fields = {"project": "flights", "reference": "r"}
    files = [("files", ("a.csv", CONTENT)), ("files", ("b.bin", bytes(6 * MIB)))]
    answer = acme.ask("POST", "/v1/submissions", data=fields, files=files)
    assert (answer.status_code, slug(answer)) == (507, "insufficient-storage")
    batch = acme.ask("GET", "/v1/batches").json()["items"][0]
    assert batch["state"] == "canceled"
    books.check_nothing(batch["id"])


def test_a_zone_that_became_read_only_answers_503(small: Path, acme: Sender, books: Books) -> None:
    batch = acme.batch()
    assert acme.put(batch, "first.csv").status_code == 201
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    answer = acme.put(batch)
    assert (answer.status_code, slug(answer)) == (503, "unavailable")
    assert acme.get(batch, "first.csv").content == CONTENT
    subprocess.run(["mount", "-o", "remount,rw", str(small)], check=True)
    assert acme.put(batch).status_code == 201
    books.check()
