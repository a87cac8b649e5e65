"""Calls to the operating system that fail, fall short, or meet what should not be there."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.conftest import Check
from tests.faults.history import Client
from tests.faults.tracing import traced
from tests.parts import GatewayServer

# Large enough for its room to be reserved beforehand, and for more than one buffer.
CONTENT = b"id,note\n1,one\n" * 90_000

# What fails at a PUT, the status that it is answered with, and how often it may be met at all.
FAILURES = {
    "no room while writing": ("writev:error=ENOSPC:when=2", 507),
    "no room at once": ("writev:error=ENOSPC:when=1", 507),
    "no room to reserve": ("fallocate:error=ENOSPC", 507),
    "no room at the sync": ("fsync:error=ENOSPC:when=1", 507),
    "over quota at the sync": ("fsync:error=EDQUOT:when=1", 507),
    "an error at the sync": ("fsync:error=EIO:when=1", 503),
    "an error at a directory's sync": ("fsync:error=EIO:when=2", 503),
    "an error at the last sync": ("fsync:error=EIO:when=6", 503),
    "an error while writing": ("writev:error=EIO:when=1", 503),
    "no directory": ("mkdirat:error=ENOSPC:when=3", 507),
    "no publication": ("renameat2:error=EIO", 503),
    "a file system that went read-only": ("renameat2:error=EROFS", 503),
    "no descriptors": ("openat:error=EMFILE:when=2+", 503),
}


@pytest.fixture
def attack(
    acme: Client, steady: GatewayServer, tmp_path: Path
) -> Callable[[str, Callable[[], object]], None]:
    """Return a function that does something while calls of the steady server fail."""

    def during(injection: str, act: Callable[[], object]) -> None:
        call = injection.partition(":")[0]
        log = tmp_path / f"{time.monotonic_ns()}.strace"
        with traced(steady.pid, log, call, [injection]):
            act()
        assert "INJECTED" in log.read_text()

    return during


def test_a_put_whose_call_fails_is_refused_and_may_be_tried_again(
    attack: Callable[..., None], acme: Client, check: Check, subtests: pytest.Subtests
) -> None:
    for name, (injection, status) in FAILURES.items():
        with subtests.test(name):
            batch = acme.batch(name)

            def refused(batch: str = batch, status: int = status) -> None:
                answer = acme.put(batch, "a.csv", CONTENT)
                assert answer.status_code == status, answer.text
                assert answer.json()["retryable"]

            attack(injection, refused)
            assert acme.ask("GET", f"/v1/batches/{batch}").json()["files"] == []
            acme.deliver(batch, "a.csv", CONTENT)
    assert check() == []


def test_a_patch_whose_sync_fails_is_not_counted_and_goes_on_later(
    attack: Callable[..., None], acme: Client, check: Check
) -> None:
    batch = acme.batch("patch")
    for error, status in (("ENOSPC", 507), ("EIO", 503)):
        name = f"{error}.csv"
        place = acme.create_upload(batch, name, CONTENT)
        assert acme.patch(place, 0, CONTENT[:1000]).status_code == 204

        def refused(place: str = place, status: int = status) -> None:
            answer = acme.patch(place, 1000, CONTENT[1000:])
            assert answer.status_code == status, answer.text

        attack(f"fdatasync:error={error}", refused)
        assert acme.offset(place) == 1000
        acme.resume(place, batch, name, CONTENT)
    acme.seal(batch).raise_for_status()
    assert check() == []


def test_a_kernel_that_takes_fewer_bytes_is_given_the_rest(
    steady: GatewayServer, acme: Client, check: Check, tmp_path: Path
) -> None:
    # Up to the limit on a file's size the kernel takes what fits, and tells how much that was.
    # strace holds the answer back; when it comes, the limit has been lifted.
    batch, log = acme.batch("short"), tmp_path / "short.strace"
    limit = 700_001
    with (
        traced(steady.pid, log, "writev", ["writev:delay_exit=500000:when=1"]),
        ThreadPoolExecutor(1) as other,
    ):
        limited(steady, limit)
        putting = other.submit(acme.put, batch, "a.csv", CONTENT, is_announced=False)
        until(lambda: f"{limit}" in sizes(tmp_path))
        limited(steady, resource.RLIM_INFINITY)
        assert putting.result().status_code == 201
    assert f"= {limit} (DELAYED)" in log.read_text()
    acme.seal(batch).raise_for_status()
    assert check() == []


def limited(server: GatewayServer, size_bytes: int) -> None:
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


def sizes(directory: Path) -> set[str]:
    return {str(each.stat().st_size) for each in (directory / "landing/.parts").iterdir()}


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("planted", ["acme", "acme/flights", "batch", "files"])
def test_a_symlink_in_place_of_a_directory_is_not_followed(
    planted: str, acme: Client, check: Check, tmp_path: Path
) -> None:
    batch = acme.batch("link")
    named = {"batch": f"acme/flights/{batch}", "files": f"acme/flights/{batch}/files"}
    place = tmp_path / "landing" / named.get(planted, planted)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(elsewhere)
    assert acme.put(batch, "a.csv", CONTENT).status_code == 503
    tus = acme.create_upload(batch, "b.csv", CONTENT)
    assert acme.patch(tus, 0, CONTENT).status_code == 503
    assert list(elsewhere.iterdir()) == []
    place.unlink()
    acme.store(batch, "a.csv", CONTENT)
    acme.resume(tus, batch, "b.csv", CONTENT)
    acme.seal(batch).raise_for_status()
    assert check() == []


def test_a_symlink_in_place_of_a_file_is_not_followed(
    acme: Client, check: Check, tmp_path: Path
) -> None:
    batch, outside = acme.batch("link"), tmp_path / "outside"
    outside.write_bytes(CONTENT)
    acme.store(batch, "first.csv", CONTENT)
    place = tmp_path / f"landing/acme/flights/{batch}/files/a.csv"
    place.symlink_to(outside)
    acme.store(batch, "a.csv", CONTENT)
    assert not place.is_symlink()
    outside.write_bytes(b"")
    acme.seal(batch).raise_for_status()
    assert check() == []


def test_a_symlink_in_place_of_a_part_is_not_followed(
    acme: Client, check: Check, tmp_path: Path
) -> None:
    batch, outside = acme.batch("link"), tmp_path / "outside"
    outside.write_bytes(CONTENT)
    tus = acme.create_upload(batch, "a.csv", CONTENT)
    part = tmp_path / "landing/.parts" / tus.rsplit("/", 1)[1]
    part.unlink()
    part.symlink_to(outside)
    assert acme.patch(tus, 0, CONTENT).status_code in {410, 503}
    assert outside.read_bytes() == CONTENT
    part.unlink(missing_ok=True)
    acme.deliver(batch, "a.csv", CONTENT)
    assert check() == []
