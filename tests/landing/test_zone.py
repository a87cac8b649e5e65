"""The landing zone alone: bytes, names, directories; no database, no HTTP."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import UnavailableError
from gateway.landing.disk import DiskZone
from gateway.landing.zone import (
    BatchPath,
    InsufficientStorageError,
    NameTakenError,
    PartBusyError,
    PartLostError,
    Stored,
    Zone,
)
from tests.landing.lying import InBucket, Lying, OnDisk

PLACE = BatchPath("acme", "flights", "bat_1")
CONTENT = b"id,note\n1,one\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "landing"
    path.mkdir()
    return path


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.s3)])
def lying(request: pytest.FixtureRequest) -> Lying:
    """A landing zone's place: whatever takes it, or ``zone``, is promised by every kind."""
    if request.param == "disk":
        return OnDisk(request.getfixturevalue("root"))
    return InBucket(request.getfixturevalue("s3"))


@pytest.fixture
def zone(lying: Lying) -> Iterator[Zone]:
    built = lying.open()
    yield built
    built.close()


@pytest.fixture
def disk(root: Path) -> Iterator[DiskZone]:
    built = DiskZone(root)
    yield built
    built.close()


def publish(
    zone: Zone, name: str = "a.csv", content: bytes = CONTENT, upload: str = "upl_1"
) -> None:
    part = zone.open_part(upload, len(content))
    part.write([content])
    part.finish()
    try:
        zone.publish(part, PLACE, name)
    finally:
        part.abort()


def files(root: Path) -> Path:
    return root / "acme" / "flights" / "bat_1" / "files"


def read(zone: Zone, name: str = "a.csv") -> bytes:
    file, size = zone.open_file(PLACE, name)
    with file:
        content = file.read()
    assert len(content) == size
    return content


def test_a_part_has_no_published_name_until_it_is_published(zone: Zone, lying: Lying) -> None:
    part = zone.open_part("upl_1")
    part.write([CONTENT[:5]])
    part.write([CONTENT[5:], b""])
    assert list(zone.walk()) == []
    assert part.finish() == Stored(len(CONTENT), SHA256)
    assert list(zone.walk()) == []
    zone.publish(part, PLACE, "a.csv")
    part.abort()
    assert read(zone) == CONTENT
    assert lying.parts() == []


def test_a_part_that_was_reserved_and_got_less_has_the_size_of_what_came(
    disk: DiskZone, root: Path
) -> None:
    part = disk.open_part("upl_1", 3_000_000)
    part.reserve()
    assert (root / ".parts" / "upl_1").stat().st_blocks * 512 >= 3_000_000
    part.write([CONTENT])
    part.finish()
    disk.publish(part, PLACE, "a.csv")
    assert read(disk) == CONTENT
    part.abort()


def test_many_and_large_chunks_arrive_in_order(zone: Zone) -> None:
    chunks = [bytes([number % 251]) * (number % 7) for number in range(3_000)]
    chunks.append(os.urandom(20 * 1024**2))
    part = zone.open_part("upl_1")
    part.write(chunks)
    part.write(chunks)
    stored = part.finish()
    zone.publish(part, PLACE, "a.csv")
    part.abort()
    assert read(zone) == b"".join(chunks) * 2
    assert stored.sha256 == hashlib.sha256(b"".join(chunks) * 2).hexdigest()


def test_an_empty_file_is_a_file(zone: Zone) -> None:
    publish(zone, content=b"")
    assert read(zone) == b""


def test_a_taken_name_stays_with_the_first(zone: Zone, lying: Lying) -> None:
    publish(zone)
    with pytest.raises(NameTakenError):
        publish(zone, content=b"other")
    assert read(zone) == CONTENT
    assert lying.parts() == []


def test_an_aborted_part_leaves_nothing_and_may_be_aborted_again(zone: Zone, lying: Lying) -> None:
    part = zone.open_part("upl_1", 100)
    part.write([CONTENT])
    part.abort()
    part.abort()
    assert lying.parts() == []


def test_aborting_after_publication_takes_nothing_away(zone: Zone) -> None:
    part = zone.open_part("upl_1")
    part.write([CONTENT])
    part.finish()
    zone.publish(part, PLACE, "a.csv")
    part.abort()
    part.abort()
    assert read(zone) == CONTENT


def test_a_retraction_takes_back_its_own_file_alone(zone: Zone) -> None:
    publish(zone, "b.csv")
    part = zone.open_part("upl_2")
    part.write([CONTENT])
    part.finish()
    zone.publish(part, PLACE, "a.csv")
    zone.retract(part, PLACE, "b.csv")
    assert read(zone, "b.csv") == CONTENT
    zone.retract(part, PLACE, "a.csv")
    with pytest.raises(FileNotFoundError):
        zone.open_file(PLACE, "a.csv")
    zone.retract(part, PLACE, "a.csv")
    part.abort()


def test_an_orphan_is_adopted_for_its_bytes_only(zone: Zone) -> None:
    publish(zone)
    assert zone.adopt(PLACE, "a.csv", Stored(len(CONTENT), SHA256))
    assert not zone.adopt(PLACE, "a.csv", Stored(len(CONTENT), "0" * 64))
    assert not zone.adopt(PLACE, "a.csv", Stored(1, SHA256))
    assert not zone.adopt(PLACE, "none.csv", Stored(len(CONTENT), SHA256))


def test_quarantine_keeps_the_bytes_and_frees_the_name(zone: Zone, lying: Lying) -> None:
    publish(zone)
    aside = zone.quarantine(PLACE, "a.csv")
    assert lying.set_aside() == {aside: CONTENT}
    publish(zone, content=b"new")
    assert read(zone) == b"new"
    with pytest.raises(FileNotFoundError):
        zone.quarantine(PLACE, "none.csv")


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "𝒳" * 63])
def test_the_longest_names_can_be_published_and_set_aside(
    zone: Zone, lying: Lying, name: str
) -> None:
    publish(zone, name)
    aside = zone.quarantine(PLACE, name)
    assert lying.set_aside() == {aside: CONTENT}


def test_a_published_file_is_alive_until_its_part_is_let_go(zone: Zone) -> None:
    part = zone.open_part("upl_1")
    assert zone.is_receiving("upl_1", PLACE, "a.csv")
    part.write([CONTENT])
    part.finish()
    zone.publish(part, PLACE, "a.csv")
    assert zone.is_receiving("upl_1", PLACE, "a.csv")
    part.abort()
    assert not zone.is_receiving("upl_1", PLACE, "a.csv")
    assert not zone.is_receiving("upl_2", PLACE, "b.csv")


def test_a_part_dies_with_its_process(zone: Zone, lying: Lying) -> None:
    code = (
        f"import time; zone = {lying.opening()}\n"
        "part = zone.open_part('upl_9'); part.write([b'x']); part.checkpoint()\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        assert zone.is_receiving("upl_9", PLACE, "a.csv")
        assert zone.stale_parts(-1) == []
        process.kill()
        process.wait()
    deadline = time.monotonic() + 10
    while zone.is_receiving("upl_9", PLACE, "a.csv"):
        assert time.monotonic() < deadline  # where there are no locks, a lease has to end
        time.sleep(0.1)
    assert zone.stale_parts(3600) == []
    assert zone.stale_parts(-1) == ["upl_9"]
    zone.remove_part("upl_9")
    assert lying.parts() == []


def test_a_part_goes_on_where_it_was_made_durable_and_its_digest_is_that_of_all(
    zone: Zone, lying: Lying
) -> None:
    part = zone.open_part("upl_1", 3_000_000)
    part.reserve()
    part.write([CONTENT])
    assert part.checkpoint() == len(CONTENT)
    known = part.digest()
    part.write([b"what no checkpoint covers"])
    part.release()
    for digest in (known, None):
        part = zone.resume_part("upl_1", len(CONTENT), digest)
        part.write([CONTENT])
        told: list[int] = []
        stored = part.finish(told.append)
        assert stored == Stored(2 * len(CONTENT), hashlib.sha256(CONTENT * 2).hexdigest())
        assert bool(told) == (digest is None)
        part.release()
    assert lying.part("upl_1") == CONTENT * 2


def test_one_works_on_a_part_at_a_time_and_a_copy_frees_who_waits_for_it(
    zone: Zone, lying: Lying
) -> None:
    held = zone.open_part("upl_1")
    held.write([CONTENT])
    held.checkpoint()
    with pytest.raises(PartBusyError):
        zone.resume_part("upl_1", 0)
    zone.copy_part("upl_1", "upl_1.2", 3)
    held.write([b"late"])
    assert lying.part("upl_1.2") == CONTENT[:3]
    held.release()
    zone.resume_part("upl_1", len(CONTENT)).abort()
    for gone in (lambda: zone.resume_part("upl_1", 0), lambda: zone.resume_part("upl_1.2", 4)):
        with pytest.raises(PartLostError):
            gone()
    with pytest.raises(PartLostError):
        zone.copy_part("upl_1.2", "upl_1.3", 4)
    assert lying.parts() == ["upl_1.2"]


def test_sweeping_passes_over_what_is_young_alive_or_no_file(disk: DiskZone, root: Path) -> None:
    (root / ".parts" / "young").write_bytes(b"")
    old = root / ".parts" / "old"
    old.write_bytes(b"")
    (root / ".parts" / "stranger").mkdir()
    long_ago = time.time() - 7200
    os.utime(old, (long_ago, long_ago))
    os.utime(root / ".parts" / "stranger", (long_ago, long_ago))
    alive = disk.open_part("alive")
    os.utime(root / ".parts" / "alive", (long_ago, long_ago))
    assert disk.stale_parts(3600) == ["old"]
    alive.abort()


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_symlink_in_place_of_a_directory_is_not_followed(
    disk: DiskZone, root: Path, tmp_path: Path, depth: int
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.csv").write_bytes(b"theirs")
    components = ["acme", "flights", "bat_1", "files"][:depth]
    planted = root.joinpath(*components)
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.symlink_to(outside)
    with pytest.raises(UnavailableError):
        publish(disk)
    with pytest.raises(UnavailableError):
        disk.open_file(PLACE, "a.csv")
    with pytest.raises(UnavailableError):
        disk.remove_file(PLACE, "a.csv")
    with pytest.raises(UnavailableError):
        disk.remove_batch(PLACE)
    assert list(disk.walk()) == []
    assert [each.name for each in outside.iterdir()] == ["a.csv"]
    assert (outside / "a.csv").read_bytes() == b"theirs"
    assert not list((root / ".parts").iterdir())


def test_a_symlink_in_place_of_a_file_is_neither_read_nor_written_through(
    disk: DiskZone, root: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    files(root).mkdir(parents=True)
    (files(root) / "a.csv").symlink_to(secret)
    with pytest.raises(NameTakenError):
        publish(disk)
    with pytest.raises(FileNotFoundError):
        disk.open_file(PLACE, "a.csv")
    assert not disk.adopt(PLACE, "a.csv", Stored(6, hashlib.sha256(b"secret").hexdigest()))
    disk.quarantine(PLACE, "a.csv")
    publish(disk)
    assert read(disk) == CONTENT
    assert secret.read_bytes() == b"secret"


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_what_is_no_regular_file_is_absent(disk: DiskZone, root: Path, kind: str) -> None:
    files(root).mkdir(parents=True)
    place = files(root) / "a.csv"
    os.mkfifo(place) if kind == "fifo" else place.mkdir()
    with pytest.raises(FileNotFoundError):
        disk.open_file(PLACE, "a.csv")


@pytest.mark.parametrize(
    "place",
    [("..", "a1", "b1"), ("acme", "", "b1"), ("acme", "fl", "b/1"), ("acme", "fl", ".parts")],
)
def test_a_place_is_made_of_plain_components(place: tuple[str, str, str]) -> None:
    with pytest.raises(ValueError, match="not a place"):
        BatchPath(*place)


def test_a_removed_file_is_gone_and_may_be_removed_again(zone: Zone) -> None:
    publish(zone)
    zone.remove_file(PLACE, "a.csv")
    zone.remove_file(PLACE, "a.csv")
    zone.remove_file(BatchPath("globex", "weather", "bat_9"), "a.csv")
    with pytest.raises(FileNotFoundError):
        zone.open_file(PLACE, "a.csv")


def test_documents_are_written_once_replaced_by_others_and_never_half(
    zone: Zone, lying: Lying
) -> None:
    for content in (b"{}", b"{}", b'{"a":1}'):
        zone.write_documents(PLACE, {"manifest.json": content, "receipt.jws": b"signed"})
        assert lying.documents(PLACE) == {"manifest.json": content, "receipt.jws": b"signed"}


def test_a_document_that_is_there_already_is_not_written_again(disk: DiskZone, root: Path) -> None:
    disk.write_documents(PLACE, {"manifest.json": b"{}"})
    path = root / "acme" / "flights" / "bat_1" / "manifest.json"
    first = path.stat()
    disk.write_documents(PLACE, {"manifest.json": b"{}"})
    assert path.stat().st_ino == first.st_ino


def test_a_symlink_in_place_of_a_document_is_replaced_not_followed(
    disk: DiskZone, root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"theirs")
    place = root / "acme" / "flights" / "bat_1"
    place.mkdir(parents=True)
    (place / "manifest.json").symlink_to(outside)
    disk.write_documents(PLACE, {"manifest.json": b"{}"})
    assert outside.read_bytes() == b"theirs"
    assert not (place / "manifest.json").is_symlink()


def test_a_batch_is_removed_whole_and_its_neighbours_stay(zone: Zone, lying: Lying) -> None:
    publish(zone)
    zone.write_documents(PLACE, {"manifest.json": b"{}"})
    zone.write_documents(BatchPath("acme", "flights", "bat_2"), {"manifest.json": b"{}"})
    zone.remove_batch(PLACE)
    zone.remove_batch(PLACE)
    assert lying.batches("acme", "flights") == ["bat_2"]
    publish(zone)
    assert read(zone) == CONTENT


def test_a_directory_among_the_files_does_not_stop_a_removal(disk: DiskZone, root: Path) -> None:
    publish(disk)
    (files(root) / "stranger").mkdir()
    (files(root) / "stranger" / "theirs").write_bytes(b"theirs")
    disk.remove_batch(PLACE)
    assert not (root / "acme" / "flights" / "bat_1").exists()
    kept = list((root / ".quarantine").rglob("theirs"))
    assert [each.read_bytes() for each in kept] == [b"theirs"]


def test_walking_finds_published_files_and_passes_strangers_over(zone: Zone, lying: Lying) -> None:
    publish(zone, "b.csv")
    publish(zone, "a.csv")
    zone.write_documents(PLACE, {"manifest.json": b"{}"})
    for path in ("stranger.txt", "acme/UPPER/stranger", "acme/flights/bat_9"):
        lying.put(path)
    found = [(each.batch, each.name, each.size_bytes) for each in zone.walk()]
    assert found == [(PLACE, "a.csv", len(CONTENT)), (PLACE, "b.csv", len(CONTENT))]


def test_a_file_that_goes_away_while_walking_hides_no_other(zone: Zone, lying: Lying) -> None:
    for name in ("a.csv", "b.csv", "c.csv"):
        publish(zone, name)
    walking = zone.walk()
    first = next(walking)
    lying.take_away(PLACE, "b.csv")
    found = [first.name, *(each.name for each in walking)]
    assert [name for name in found if name != "b.csv"] == ["a.csv", "c.csv"]


def test_a_root_that_is_gone_is_said_at_once(disk: DiskZone, root: Path) -> None:
    for each in (".parts", ".quarantine"):
        (root / each).rmdir()
    root.rmdir()
    with pytest.raises(UnavailableError):
        disk.check()
    with pytest.raises(UnavailableError):
        disk.open_part("upl_1")
    with pytest.raises(UnavailableError):
        disk.write_documents(PLACE, {"manifest.json": b"{}"})


def test_a_root_that_is_none_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(UnavailableError):
            DiskZone(path)


def test_room_that_is_left_to_others_is_not_taken(root: Path) -> None:
    room = os.statvfs(root)
    free = room.f_bavail * room.f_frsize
    zone = DiskZone(root, min_free_bytes=free + 2**40)
    with pytest.raises(InsufficientStorageError):
        zone.check()
    with pytest.raises(InsufficientStorageError):
        zone.open_part("upl_1")
    zone.close()
    zone = DiskZone(root)
    with pytest.raises(InsufficientStorageError):
        zone.open_part("upl_1", free + 2**40)
    assert not list((root / ".parts").iterdir())
    zone.close()


def test_a_part_is_locked_by_the_one_who_receives(disk: DiskZone, root: Path) -> None:
    part = disk.open_part("upl_1")
    with (root / ".parts" / "upl_1").open("rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    part.abort()
