from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from deploy.local import layout, processes, record
from deploy.local.programs import StackError

SHELL_WITH_CHILD = ["sh", "-c", "trap '' TERM; sleep 600 & wait; wait"]


def eventually_gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def first_child(pid: int) -> psutil.Process:
    while not (children := psutil.Process(pid).children()):
        time.sleep(0.02)
    return children[0]


def test_stop_ends_a_child_that_does_not_listen_and_its_children(tmp_path: Path) -> None:
    child = processes.start(SHELL_WITH_CHILD, tmp_path / "log")
    grandchild = first_child(child.pid)
    processes.stop(child, timeout_seconds=0.2)
    assert child.returncode == -signal.SIGKILL
    assert eventually_gone(grandchild.pid)


def test_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from deploy.local import processes\n"
        "child = processes.start(['sleep', '600'], Path(sys.argv[1]))\n"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "log"], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    # The kernel is told by a small program that then becomes the child itself.
    deadline = time.monotonic() + 10
    while psutil.Process(pid).name() != "sleep" and time.monotonic() < deadline:
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert eventually_gone(pid)


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(record, "RECORD", tmp_path / "processes.json")
    monkeypatch.setattr(record, "LOCK", tmp_path / "lock")
    return tmp_path


def test_sweep_ends_what_a_killed_supervisor_has_left(recorded: Path) -> None:
    child = processes.start(SHELL_WITH_CHILD, recorded / "log")
    grandchild = first_child(child.pid)
    record.note("service", child.pid)
    assert record.sweep() == 2
    child.wait()
    assert eventually_gone(child.pid)
    assert eventually_gone(grandchild.pid)


def test_sweep_ends_a_marked_orphan_whose_leader_is_gone(recorded: Path) -> None:
    name, value = layout.MARK
    command = ["sh", "-c", "sleep 600 & exit"]
    leader = processes.start(command, recorded / "log", env=os.environ | {name: value})
    stranger = processes.start(command, recorded / "log")
    record.note("service", leader.pid)
    record.note("service", stranger.pid)
    leader.wait()
    stranger.wait()
    (orphan,) = processes.descendants(leader.pid)
    (other,) = processes.descendants(stranger.pid)
    try:
        assert record.sweep() == 1
        assert eventually_gone(orphan.pid)
        assert other.is_running()
    finally:
        other.kill()


def test_sweep_spares_a_process_that_only_has_the_same_number(recorded: Path) -> None:
    child = processes.start(["sleep", "600"], recorded / "log")
    record.note("service", child.pid)
    entry = record.RECORD.read_text()
    born = psutil.Process(child.pid).create_time()
    record.RECORD.write_text(entry.replace(str(born), str(born - 60)))
    try:
        assert record.sweep() == 0
        assert child.poll() is None
    finally:
        processes.kill(child)


def test_second_stack_of_a_checkout_is_refused(recorded: Path) -> None:
    with (
        record.only_one(),
        pytest.raises(StackError, match="already running"),
        record.only_one(),
    ):
        pass
