"""``python -m deploy.local demo|up|down|clean``: what the Makefile's targets call."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import TextIO

import psutil

from deploy.local import demo, layout, postgres, processes, record
from deploy.local.layout import Ports
from deploy.local.programs import StackError
from deploy.local.stack import Stack

PR_SET_PDEATHSIG = 1
STOP_SECONDS = 60


class StopRequestedError(Exception):
    """Ctrl-C, SIGTERM or a closed terminal."""


def main(argv: list[str]) -> int:
    """Do what the one argument says."""
    actions = {"demo": run_demo, "up": up, "down": down, "clean": clean, "supervise": supervise}
    if len(argv) != 1 or argv[0] not in actions:
        print(f"usage: python -m deploy.local {'|'.join(actions)}", file=sys.stderr)
        return 2
    try:
        return actions[argv[0]]()
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def run_demo() -> int:
    """Start the stack, deliver real data through its API, stay until told to stop."""
    _end_with_parent()
    _listen_for_the_end()
    stays = os.environ.get("EXIT", "0") in {"", "0"}
    try:
        with record.only_one(), Stack(Ports.from_environment(), afresh=True) as stack:
            print("Starting the stack")
            stack.start()
            demo.deliver(stack)
            demo.show(stack)
            if stays:
                print("\nCtrl-C stops everything.", flush=True)
                stack.watch()
    except StopRequestedError:
        print("Stopped")
        return 0 if stays else 130
    return 0


def supervise() -> int:
    """Hold the stack of ``make up`` until told to stop."""
    _listen_for_the_end()
    with (
        contextlib.suppress(StopRequestedError),
        record.only_one(),
        Stack(Ports.from_environment()) as stack,
    ):
        stack.start()
        print(READY, flush=True)
        stack.watch()
    return 0


READY = "  ready; `make down` stops it"


def up() -> int:
    """Start the stack in the background and return when it is ready."""
    _listen_for_the_end()
    layout.make_folders()
    log = layout.LOGS / "supervisor.log"
    log.write_bytes(b"")
    print("Starting the stack in the background")
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-u", "-m", "deploy.local", "supervise"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with log.open() as lines:
            ready = _relay(lines, child)
    except StopRequestedError:
        processes.stop(child, timeout_seconds=STOP_SECONDS)
        return 130
    if ready:
        print(f"  where and as whom: {layout.STACK_ENV}")
    return 0 if ready else 1


def _relay(lines: TextIO, child: subprocess.Popen[bytes]) -> bool:
    """Print what the supervisor says until it is ready (True) or has ended (False)."""
    while True:
        ended = child.poll() is not None
        for line in lines:
            print(line, end="", flush=True)
            if line.rstrip() == READY:
                return True
        if ended:
            return False
        time.sleep(0.1)


def down() -> int:
    """Stop the stack of this checkout, also what a crash has left of it."""
    supervisor = record.supervisor()
    if supervisor is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor.terminate()
            with contextlib.suppress(psutil.TimeoutExpired):
                supervisor.wait(STOP_SECONDS)
    with record.only_one() as strays:
        record.forget()
        layout.STACK_ENV.unlink(missing_ok=True)
    state = "stopped" if supervisor or strays else "was not running"
    print(f"  {layout.STACK.name}: {state}")
    return 0


def clean() -> int:
    """Remove what the stack has stored."""
    with record.only_one():
        shutil.rmtree(layout.STACK)
    postgres.sweep_outside()
    return 0


def _end_with_parent() -> None:
    """Be told to stop when `make` dies, however it dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _listen_for_the_end() -> None:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise StopRequestedError

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
