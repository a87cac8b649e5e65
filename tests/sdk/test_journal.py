"""What a delivery notes on its machine: found again by its successor, and never in its way."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.sdk import files, journal
from gateway.sdk.files import LARGE_BYTES, LocalFile
from gateway.sdk.journal import Journal

Write = Callable[[str, bytes], Path]
BATCH = "bat_1"
FALSE = "f" * 64


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ingestion-gateway" / "delivery.jsonl"


@pytest.fixture
def path(write: Write) -> Path:
    return write("large.csv", os.urandom(LARGE_BYTES + 1))


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def noted(place: Path, path: Path) -> LocalFile:
    """Leave what a sender that was killed had noted."""
    notes = Journal(place)
    file = notes.inspect(path)
    notes.note_upload(BATCH, file, "upl_1")
    notes.close()
    return file


def doctor(place: Path, file: LocalFile) -> None:
    place.write_text(place.read_text().replace(file.sha256, FALSE))


def test_digest_and_upload_are_known_to_the_next_process(
    place: Path, path: Path, noted: LocalFile
) -> None:
    notes = Journal(place)
    assert notes.inspect(path) == noted
    assert notes.upload(BATCH, noted) == "upl_1"
    notes.close()
    doctor(place, noted)
    assert Journal(place).inspect(path).sha256 == FALSE, "it was read again"


@pytest.mark.parametrize("change", ["content", "length", "same-times", "other-file"])
def test_digest_of_a_file_that_changed_is_taken_again(
    place: Path, path: Path, noted: LocalFile, change: str
) -> None:
    doctor(place, noted)
    before = path.stat()
    if change == "other-file":
        other = path.with_name("other")
        other.write_bytes(path.read_bytes())
        other.replace(path)
    else:
        with path.open("ab" if change == "length" else "r+b") as target:
            target.write(b"new")
    if change == "same-times":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Journal(place).inspect(path) == files.inspect(path)


def test_upload_is_of_these_bytes_in_this_batch_or_none(
    place: Path, write: Write, noted: LocalFile
) -> None:
    notes = Journal(place)
    assert notes.upload("bat_2", noted) == ""
    changed = files.inspect(write("large.csv", b"other"))
    assert notes.upload(BATCH, changed) == ""
    notes.note_upload(BATCH, noted, "")
    assert notes.upload(BATCH, noted) == ""
    notes.note_upload(BATCH, noted, "upl_2")
    notes.forget(noted)
    notes.close()
    assert Journal(place).upload(BATCH, noted) == ""


def test_small_files_leave_no_trace(place: Path, write: Write) -> None:
    Journal(place).inspect(write("small.csv", bytes(LARGE_BYTES)))
    assert not place.parent.exists()


def test_notes_are_their_owners_alone_and_hold_no_more_than_needed(
    place: Path, noted: LocalFile
) -> None:
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    entries = [json.loads(line) for line in place.read_text().splitlines()]
    assert [sorted(entry) for entry in entries] == [
        ["name", "sha256", "stamp", "version"],
        ["batch", "name", "sha256", "upload", "version"],
    ]


def test_notes_are_removed_with_the_delivery(place: Path, noted: LocalFile) -> None:
    notes = Journal(place)
    notes.remove()
    notes.remove()
    assert list(place.parent.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b'{"version": 1, "name": "large.csv", "sha2',
        b"\x00" * 300,
        b"null\n[]\n\n",
        b'{"version": 2, "name": "large.csv"}\n',
        b'{"version": 1, "name": 7}\n{"version": 1, "name": "large.csv", "stamp": "x"}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_damage_is_told_and_costs_only_what_is_damaged(
    place: Path, path: Path, noted: LocalFile, warnings: list[str], damage: bytes
) -> None:
    with place.open("ab") as target:
        target.write(damage)
    notes = Journal(place, warnings.append)
    assert notes.upload(BATCH, noted) == "upl_1"
    assert [("damaged" in warning) for warning in warnings] == [True] * bool(damage)
    notes.note_upload(BATCH, noted, "upl_2")
    notes.close()
    assert Journal(place).upload(BATCH, noted) == "upl_2"


def test_second_sender_of_a_delivery_goes_without(
    place: Path, path: Path, noted: LocalFile, warnings: list[str]
) -> None:
    first = Journal(place)
    second = Journal(place, warnings.append)
    assert "another gateway send" in warnings[0]
    assert second.upload(BATCH, noted) == ""
    second.note_upload(BATCH, noted, "upl_2")
    second.remove()
    assert first.upload(BATCH, noted) == "upl_1"
    assert place.exists()
    assert len(warnings) == 1


def test_notes_that_turned_up_meanwhile_do_not_hide_newer_ones(place: Path, path: Path) -> None:
    late = Journal(place)
    early = Journal(place)
    file = early.inspect(path)
    early.note_upload(BATCH, file, "upl_1")
    early.close()
    late.note_upload(BATCH, file, "upl_2")
    assert late.upload(BATCH, file) == "upl_2"
    late.close()
    assert Journal(place).upload(BATCH, file) == "upl_2"


def test_notes_of_a_killed_sender_are_free(place: Path, path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from gateway.sdk.journal import Journal;"
        "Journal(Path(sys.argv[1])).inspect(Path(sys.argv[2])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(place), str(path)], check=False)
    assert killed.returncode == -9
    doctor(place, files.inspect(path))
    assert Journal(place).inspect(path).sha256 == FALSE


@pytest.mark.parametrize("obstacle", ["file", "folder", "link"])
def test_delivery_goes_on_where_no_notes_can_be_kept(
    place: Path, path: Path, warnings: list[str], obstacle: str
) -> None:
    if obstacle == "file":
        place.parent.parent.mkdir()
        place.parent.write_text("in the way")
    elif obstacle == "folder":
        place.mkdir(parents=True)
    else:
        place.parent.mkdir(parents=True)
        place.symlink_to(path)
    notes = Journal(place, warnings.append)
    file = notes.inspect(path)
    notes.note_upload(BATCH, file, "upl_1")
    assert notes.upload(BATCH, file) == "upl_1"
    assert len(warnings) == 1
    notes.remove()


def test_system_without_locks_has_notes_too(place: Path, path: Path, noted: LocalFile) -> None:
    program = (
        "import sys; sys.modules['fcntl'] = None; from pathlib import Path;"
        "from gateway.sdk.journal import Journal; notes = Journal(Path(sys.argv[1]), print);"
        "file = notes.inspect(Path(sys.argv[2])); print(notes.upload('bat_1', file))"
    )
    command = [sys.executable, "-c", program, str(place), str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "upl_1\n"


def test_place_tells_deliveries_apart_and_follows_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    usual = journal.place_of("https://a", "u", "p", "r")
    assert usual is not None
    assert usual.parent == tmp_path / ".local" / "state" / "ingestion-gateway"
    others = {journal.place_of("https://a", "u", "pr", ""), journal.place_of("https://b")}
    assert len(others | {usual}) == 3
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert journal.place_of("https://a", "u", "p", "r") == usual
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    moved = journal.place_of("https://a", "u", "p", "r")
    assert moved == tmp_path / "xdg" / "ingestion-gateway" / usual.name
