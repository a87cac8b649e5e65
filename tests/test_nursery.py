"""Processes of the nursery begin and end as any other, and none outlives who asked for it."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from tests import nursery as nurseries
from tests.nursery import Nursery
from tests.parts import free_port


def serving(environment: dict[str, str], workers: int = 1) -> dict[str, str]:
    own = {"GATEWAY_SERVER_PORT": str(free_port()), "GATEWAY_SERVER_WORKERS": str(workers)}
    return {**environment, **own}


def is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def eventually(true: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--help"], 0), (["serve"], 1), (["no-such-command"], 2)]
)
def test_a_programs_exit_code_and_words_are_its_own(
    nursery: Nursery, arguments: list[str], code: int
) -> None:
    done = nursery.run(arguments, {})
    assert done.returncode == code
    assert ("Usage: python -m gateway" in done.stdout) is (code == 0)
    assert bool(done.stderr) is (code != 0)


def test_whoever_is_left_is_killed_with_its_children(
    session_nursery: Nursery, environment: dict[str, str], tmp_path: Path
) -> None:
    with session_nursery.brood() as mine:
        child = mine.start(["serve"], serving(environment, workers=2), tmp_path / "log")
        process = psutil.Process(child.pid)
        eventually(lambda: len(process.children()) == 2)
        family = [process, *process.children()]
    assert child.returncode == -9
    eventually(lambda: all(map(is_gone, family)))


def test_none_outlives_a_nursery_that_is_killed(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with nurseries.opened(tmp_path / "nursery.log") as nursery:
        child = nursery.start(["serve"], serving(environment), tmp_path / "log")
        process = psutil.Process(child.pid)
        parent = process.parent()
        assert parent is not None
        assert child.poll() is None
        child.returncode = -9  # as it will have when there is nobody to ask
        parent.kill()
        eventually(lambda: is_gone(process))
