"""Many files given their names at once, and directories that are kept open for it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.landing.disk import DiskZone
from gateway.landing.held import HELD
from gateway.landing.zone import BatchPath, Gathering, Part, StorageUnavailableError

BATCH = BatchPath("acme", "flights", "bat_1")


@pytest.fixture
def zone(tmp_path: Path) -> Iterator[DiskZone]:
    built = DiskZone(tmp_path)
    yield built
    built.close()


def part(zone: DiskZone, upload: str) -> Part:
    begun = zone.open_part(upload)
    begun.write([upload.encode()])
    begun.finish()
    return begun


def test_names_that_are_taken_are_told_and_the_others_given(zone: DiskZone, tmp_path: Path) -> None:
    assert isinstance(zone, Gathering)
    other = BatchPath("acme", "flights", "bat_2")
    zone.publish(part(zone, "upl_0"), BATCH, "b")
    places = [(BATCH, "a"), (BATCH, "b"), (other, "b"), (other, "b")]
    parts = [part(zone, f"upl_{number}") for number in range(1, 5)]
    wanted = [(each, *place) for each, place in zip(parts, places, strict=True)]
    assert zone.publish_all(wanted) == {1, 3}
    for each in parts:
        each.abort()
    found = {str(each.relative_to(tmp_path)): each.read_text() for each in tmp_path.rglob("*/?")}
    assert found == {
        "acme/flights/bat_1/files/a": "upl_1",
        "acme/flights/bat_1/files/b": "upl_0",
        "acme/flights/bat_2/files/b": "upl_3",
    }
    assert zone.publish_all([]) == set()


def test_a_directory_that_was_removed_or_exchanged_is_not_written_to(
    zone: DiskZone, tmp_path: Path
) -> None:
    zone.publish(part(zone, "upl_1"), BATCH, "a")
    zone.remove_batch(BATCH)
    zone.publish(part(zone, "upl_2"), BATCH, "a")
    client = tmp_path / "acme"
    client.rename(tmp_path / "moved")
    zone.publish(part(zone, "upl_3"), BATCH, "b")
    assert [each.name for each in (client / "flights/bat_1/files").iterdir()] == ["b"]
    shutil.rmtree(client)
    client.symlink_to(tmp_path / "moved")
    with pytest.raises(StorageUnavailableError):
        zone.publish(part(zone, "upl_4"), BATCH, "c")
    assert [each.name for each in (client / "flights/bat_1/files").iterdir()] == ["a"]


def test_only_so_many_directories_are_kept_open(zone: DiskZone) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(HELD + 20):
        each = part(zone, f"upl_{number}")
        zone.publish(each, BatchPath("acme", "flights", f"bat_{number}"), "a")
        each.release()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + HELD
