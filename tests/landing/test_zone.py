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
)

PLACE = BatchPath("acme", "flights", "bat_1")
CONTENT = b"id,note\n1,one\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "landing"
    path.mkdir()
    return path


@pytest.fixture
def zone(root: Path) -> Iterator[DiskZone]:
    built = DiskZone(root)
    yield built
    built.close()


def publish(
    zone: DiskZone, name: str = "a.csv", content: bytes = CONTENT, upload: str = "upl_1"
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


def read(zone: DiskZone, name: str = "a.csv") -> bytes:
    file, size = zone.open_file(PLACE, name)
    with file:
        content = file.read()
    assert len(content) == size
    return content


def test_a_part_has_no_published_name_until_it_is_published(zone: DiskZone, root: Path) -> None:
    part = zone.open_part("upl_1")
    part.write([CONTENT[:5]])
    part.write([CONTENT[5:], b""])
    assert not (root / "acme").exists()
    assert part.finish() == Stored(len(CONTENT), SHA256)
    assert not (root / "acme").exists()
    zone.publish(part, PLACE, "a.csv")
    part.abort()
    assert read(zone) == CONTENT
    assert not list((root / ".parts").iterdir())


def test_a_part_that_was_reserved_and_got_less_has_the_size_of_what_came(
    zone: DiskZone, root: Path
) -> None:
    part = zone.open_part("upl_1", 3_000_000)
    part.reserve()
    assert (root / ".parts" / "upl_1").stat().st_blocks * 512 >= 3_000_000
    part.write([CONTENT])
    part.finish()
    zone.publish(part, PLACE, "a.csv")
    assert read(zone) == CONTENT
    part.abort()


def test_many_and_large_chunks_arrive_in_order(zone: DiskZone) -> None:
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


def test_an_empty_file_is_a_file(zone: DiskZone) -> None:
    publish(zone, content=b"")
    assert read(zone) == b""


def test_a_taken_name_stays_with_the_first(zone: DiskZone, root: Path) -> None:
    publish(zone)
    with pytest.raises(NameTakenError):
        publish(zone, content=b"other")
    assert read(zone) == CONTENT
    assert not list((root / ".parts").iterdir())


def test_an_aborted_part_leaves_nothing_and_may_be_aborted_again(
    zone: DiskZone, root: Path
) -> None:
    part = zone.open_part("upl_1", 100)
    part.write([CONTENT])
    part.abort()
    part.abort()
    assert not list((root / ".parts").iterdir())


def test_aborting_after_publication_takes_nothing_away(zone: DiskZone) -> None:
    part = zone.open_part("upl_1")
    part.write([CONTENT])
    part.finish()
    zone.publish(part, PLACE, "a.csv")
    part.abort()
    part.abort()
    assert read(zone) == CONTENT


def test_a_retraction_takes_back_its_own_file_alone(zone: DiskZone) -> None:
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


def test_an_orphan_is_adopted_for_its_bytes_only(zone: DiskZone) -> None:
    publish(zone)
    assert zone.adopt(PLACE, "a.csv", Stored(len(CONTENT), SHA256))
    assert not zone.adopt(PLACE, "a.csv", Stored(len(CONTENT), "0" * 64))
    assert not zone.adopt(PLACE, "a.csv", Stored(1, SHA256))
    assert not zone.adopt(PLACE, "none.csv", Stored(len(CONTENT), SHA256))


def test_quarantine_keeps_the_bytes_and_frees_the_name(zone: DiskZone, root: Path) -> None:
    publish(zone)
    aside = zone.quarantine(PLACE, "a.csv")
    assert (root / ".quarantine" / aside).read_bytes() == CONTENT
    publish(zone, content=b"new")
    assert read(zone) == b"new"
    with pytest.raises(FileNotFoundError):
        zone.quarantine(PLACE, "none.csv")


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "𝒳" * 63])
def test_the_longest_names_can_be_published_and_set_aside(
    zone: DiskZone, root: Path, name: str
) -> None:
    publish(zone, name)
    aside = zone.quarantine(PLACE, name)
    assert (root / ".quarantine" / aside).exists()


def test_a_published_file_is_alive_until_its_part_is_let_go(zone: DiskZone) -> None:
    part = zone.open_part("upl_1")
    assert zone.is_receiving("upl_1", PLACE, "a.csv")
    part.write([CONTENT])
    part.finish()
    zone.publish(part, PLACE, "a.csv")
    assert zone.is_receiving("upl_1", PLACE, "a.csv")
    part.abort()
    assert not zone.is_receiving("upl_1", PLACE, "a.csv")
    assert not zone.is_receiving("upl_2", PLACE, "b.csv")


def test_a_part_dies_with_its_process(zone: DiskZone, root: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from gateway.landing.disk import DiskZone\n"
        "part = DiskZone(Path(sys.argv[1])).open_part('upl_9'); part.write([b'x'])\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        assert zone.is_receiving("upl_9", PLACE, "a.csv")
        assert zone.stale_parts(-1) == []
        process.kill()
        process.wait()
    assert not zone.is_receiving("upl_9", PLACE, "a.csv")
    assert zone.stale_parts(3600) == []
    assert zone.stale_parts(-1) == ["upl_9"]
    zone.remove_part("upl_9")
    assert not list((root / ".parts").iterdir())


def test_a_part_goes_on_where_it_was_made_durable_and_its_digest_is_that_of_all(
    zone: DiskZone, root: Path
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
    assert (root / ".parts" / "upl_1").read_bytes() == CONTENT * 2


def test_one_works_on_a_part_at_a_time_and_a_copy_frees_who_waits_for_it(
    zone: DiskZone, root: Path
) -> None:
    held = zone.open_part("upl_1")
    held.write([CONTENT])
    held.checkpoint()
    with pytest.raises(PartBusyError):
        zone.resume_part("upl_1", 0)
    zone.copy_part("upl_1", "upl_1.2", 3)
    held.write([b"late"])
    assert (root / ".parts" / "upl_1.2").read_bytes() == CONTENT[:3]
    held.release()
    zone.resume_part("upl_1", len(CONTENT)).abort()
    for gone in (lambda: zone.resume_part("upl_1", 0), lambda: zone.resume_part("upl_1.2", 4)):
        with pytest.raises(PartLostError):
            gone()
    with pytest.raises(PartLostError):
        zone.copy_part("upl_1.2", "upl_1.3", 4)
    assert [each.name for each in (root / ".parts").iterdir()] == ["upl_1.2"]


def test_sweeping_passes_over_what_is_young_alive_or_no_file(zone: DiskZone, root: Path) -> None:
    (root / ".parts" / "young").write_bytes(b"")
    old = root / ".parts" / "old"
    old.write_bytes(b"")
    (root / ".parts" / "stranger").mkdir()
    long_ago = time.time() - 7200
    os.utime(old, (long_ago, long_ago))
    os.utime(root / ".parts" / "stranger", (long_ago, long_ago))
    alive = zone.open_part("alive")
    os.utime(root / ".parts" / "alive", (long_ago, long_ago))
    assert zone.stale_parts(3600) == ["old"]
    alive.abort()


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_symlink_in_place_of_a_directory_is_not_followed(
    zone: DiskZone, root: Path, tmp_path: Path, depth: int
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.csv").write_bytes(b"theirs")
    components = ["acme", "flights", "bat_1", "files"][:depth]
    planted = root.joinpath(*components)
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.symlink_to(outside)
    with pytest.raises(UnavailableError):
        publish(zone)
    with pytest.raises(UnavailableError):
        zone.open_file(PLACE, "a.csv")
    with pytest.raises(UnavailableError):
        zone.remove_file(PLACE, "a.csv")
    with pytest.raises(UnavailableError):
        zone.remove_batch(PLACE)
    assert list(zone.walk()) == []
    assert [each.name for each in outside.iterdir()] == ["a.csv"]
    assert (outside / "a.csv").read_bytes() == b"theirs"
    assert not list((root / ".parts").iterdir())


def test_a_symlink_in_place_of_a_file_is_neither_read_nor_written_through(
    zone: DiskZone, root: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    files(root).mkdir(parents=True)
    (files(root) / "a.csv").symlink_to(secret)
    with pytest.raises(NameTakenError):
        publish(zone)
    with pytest.raises(FileNotFoundError):
        zone.open_file(PLACE, "a.csv")
    assert not zone.adopt(PLACE, "a.csv", Stored(6, hashlib.sha256(b"secret").hexdigest()))
    zone.quarantine(PLACE, "a.csv")
    publish(zone)
    assert read(zone) == CONTENT
    assert secret.read_bytes() == b"secret"


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_what_is_no_regular_file_is_absent(zone: DiskZone, root: Path, kind: str) -> None:
    files(root).mkdir(parents=True)
    place = files(root) / "a.csv"
    os.mkfifo(place) if kind == "fifo" else place.mkdir()
    with pytest.raises(FileNotFoundError):
        zone.open_file(PLACE, "a.csv")


@pytest.mark.parametrize(
    "place",
    [("..", "a1", "b1"), ("acme", "", "b1"), ("acme", "fl", "b/1"), ("acme", "fl", ".parts")],
)
def test_a_place_is_made_of_plain_components(place: tuple[str, str, str]) -> None:
    with pytest.raises(ValueError, match="not a place"):
        BatchPath(*place)


def test_a_removed_file_is_gone_and_may_be_removed_again(zone: DiskZone) -> None:
    publish(zone)
    zone.remove_file(PLACE, "a.csv")
    zone.remove_file(PLACE, "a.csv")
    zone.remove_file(BatchPath("globex", "weather", "bat_9"), "a.csv")
    with pytest.raises(FileNotFoundError):
        zone.open_file(PLACE, "a.csv")


def test_a_document_is_written_once_replaced_by_another_and_never_half(
    zone: DiskZone, root: Path
) -> None:
    zone.write_document(PLACE, "manifest.json", b"{}")
    path = root / "acme" / "flights" / "bat_1" / "manifest.json"
    first = path.stat()
    zone.write_document(PLACE, "manifest.json", b"{}")
    assert path.stat().st_ino == first.st_ino
    zone.write_document(PLACE, "manifest.json", b'{"a":1}')
    assert path.read_bytes() == b'{"a":1}'
    assert [each.name for each in path.parent.iterdir()] == ["manifest.json"]


def test_a_symlink_in_place_of_a_document_is_replaced_not_followed(
    zone: DiskZone, root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"theirs")
    place = root / "acme" / "flights" / "bat_1"
    place.mkdir(parents=True)
    (place / "manifest.json").symlink_to(outside)
    zone.write_document(PLACE, "manifest.json", b"{}")
    assert outside.read_bytes() == b"theirs"
    assert not (place / "manifest.json").is_symlink()


def test_a_batch_is_removed_whole_and_its_neighbours_stay(zone: DiskZone, root: Path) -> None:
    publish(zone)
    zone.write_document(PLACE, "manifest.json", b"{}")
    zone.write_document(BatchPath("acme", "flights", "bat_2"), "manifest.json", b"{}")
    zone.remove_batch(PLACE)
    zone.remove_batch(PLACE)
    assert [each.name for each in (root / "acme" / "flights").iterdir()] == ["bat_2"]
    publish(zone)
    assert read(zone) == CONTENT


def test_a_directory_among_the_files_does_not_stop_a_removal(zone: DiskZone, root: Path) -> None:
    publish(zone)
    (files(root) / "stranger").mkdir()
    (files(root) / "stranger" / "theirs").write_bytes(b"theirs")
    zone.remove_batch(PLACE)
    assert not (root / "acme" / "flights" / "bat_1").exists()
    kept = list((root / ".quarantine").rglob("theirs"))
    assert [each.read_bytes() for each in kept] == [b"theirs"]


def test_walking_finds_published_files_and_passes_strangers_over(
    zone: DiskZone, root: Path
) -> None:
    publish(zone, "b.csv")
    publish(zone, "a.csv")
    zone.write_document(PLACE, "manifest.json", b"{}")
    (root / "stranger.txt").write_bytes(b"")
    (root / "acme" / "UPPER").mkdir()
    (root / "acme" / "flights" / "bat_9").write_bytes(b"")
    found = [(each.batch, each.name, each.size_bytes) for each in zone.walk()]
    assert found == [(PLACE, "a.csv", len(CONTENT)), (PLACE, "b.csv", len(CONTENT))]


def test_a_file_that_goes_away_while_walking_hides_no_other(zone: DiskZone, root: Path) -> None:
    for name in ("a.csv", "b.csv", "c.csv"):
        publish(zone, name)
    walking = zone.walk()
    first = next(walking)
    (files(root) / "b.csv").unlink()
    assert [first.name, *(each.name for each in walking)] == ["a.csv", "c.csv"]


def test_a_root_that_is_gone_is_said_at_once(zone: DiskZone, root: Path) -> None:
    for each in (".parts", ".quarantine"):
        (root / each).rmdir()
    root.rmdir()
    with pytest.raises(UnavailableError):
        zone.check()
    with pytest.raises(UnavailableError):
        zone.open_part("upl_1")
    with pytest.raises(UnavailableError):
        zone.write_document(PLACE, "manifest.json", b"{}")


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


def test_a_part_is_locked_by_the_one_who_receives(zone: DiskZone, root: Path) -> None:
    part = zone.open_part("upl_1")
    with (root / ".parts" / "upl_1").open("rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    part.abort()
