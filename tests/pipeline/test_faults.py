"""Tasks that die, and storage that fails: a named end, nothing half-written, right the next time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.errors import platform_failure
from tests.pipeline import one_step

if TYPE_CHECKING:
    from tests.pipeline.conftest import Stage

ROWS = 120_000
LARGE = b"flight,carrier,delay\n" + b"".join(b"%d,AA,%d\n" % (n, n % 90) for n in range(ROWS))
SMALL = b"flight,carrier,delay\n1,AA,2.5\n2,UA,NA\n"


def start(stage: Stage, conf: dict[str, Any], step: str, within: str = "") -> subprocess.Popen[str]:
    """Start a step's process; with ``within``, after a shell command in a mount namespace of its own."""
    run = replace(stage.task(step, conf, 0 if step == "process" else -1), is_last_try=True)
    argv = [sys.executable, "-m", one_step.__name__]
    if within:
        argv = ["unshare", "-rm", "sh", "-ec", f'{within}; exec "$@"', "sh", *argv]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        argv,
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    given = {"entry": stage.entry, "conf": conf, "run": asdict(run)}
    place = stage.database() if stage.database else None
    process.stdin.write(json.dumps({**given, "database": asdict(place) if place else None}))
    process.stdin.close()
    process.stdin = None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.stderr and process.stderr.read()
    return process


def ended(process: subprocess.Popen[str]) -> int:
    process.communicate(timeout=60)
    return process.returncode


@pytest.fixture
def own_mounts() -> None:
    done = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this machine lets nobody make a mount namespace")


def failure(stage: Stage) -> dict[str, Any]:
    error = stage.gateway.error()
    assert error is not None
    return error


def lying(folder: Path) -> list[str]:
    return [str(each) for each in folder.rglob("*") if each.is_file()]


@pytest.mark.parametrize("step", ["plan", "process", "publish"])
def test_a_step_that_is_killed_anywhere_is_right_the_next_time(stage: Stage, step: str) -> None:
    batch = stage.land({"a.csv": SMALL, "b.csv": LARGE})
    conf = stage.conf(batch)
    steps = ["plan", "process", "publish"]
    for earlier in steps[: steps.index(step)]:
        assert ended(start(stage, conf, earlier)) == 0
    for delay in (0.0, 0.04, 0.12):
        process = start(stage, conf, step)
        time.sleep(delay)
        process.kill()
        ended(process)
    assert stage.run(batch) == {"read": ROWS + 2, "loaded": ROWS + 2, "rejected": 0}
    found = stage.curated()
    assert found.height == found.select("_file", "_line").n_unique() == ROWS + 2


@pytest.mark.usefixtures("own_mounts")
def test_a_worker_whose_disk_is_full_says_so_and_leaves_nothing_to_load(stage: Stage) -> None:
    batch = stage.land({"b.csv": LARGE})
    conf = stage.conf(batch)
    assert ended(start(stage, conf, "plan")) == 0
    staged = stage.root / "staged"
    held = next(staged.glob("*/*/*/*"))
    full = f"cp -a {held} /tmp/held.$$; mount -t tmpfs -o size=160k none {staged}"
    full += f"; mkdir -p {held.parent}; cp -a /tmp/held.$$ {held}; rm -r /tmp/held.$$"
    assert ended(start(stage, conf, "process", full)) != 0
    assert failure(stage)["code"] == "storage-unavailable"
    assert failure(stage)["detail"] == "the platform's storage is full; the delivery is kept"
    assert list((held / "parts").glob("[0-9]*")) == []
    assert stage.run(batch, attempt=2)["loaded"] == ROWS


@pytest.mark.usefixtures("own_mounts")
def test_a_curated_folder_that_cannot_be_written_to_is_said_and_read_as_before(
    stage: Stage,
) -> None:
    stage.load({"a.csv": SMALL})
    batch = stage.land({"b.csv": LARGE}, batch=2)
    conf = stage.conf(batch)
    for step in ("plan", "process"):
        assert ended(start(stage, conf, step)) == 0
    curated = stage.root / "curated"
    before = lying(curated)
    fixed = f"mount --bind {curated} {curated}; mount -o remount,ro,bind {curated}"
    assert ended(start(stage, conf, "publish", fixed)) != 0
    assert failure(stage)["code"] == "storage-unavailable"
    assert "cannot be written to" in failure(stage)["detail"]
    assert lying(curated) == before
    assert stage.curated().height == 2
    assert stage.run(batch, attempt=2)["loaded"] == ROWS
    assert stage.curated().height == ROWS + 2


def test_what_is_no_storage_is_the_platforms_own_failure() -> None:
    code, detail = platform_failure(ValueError("/secret/path"))
    assert code == "internal-error"
    assert "/secret" not in detail
