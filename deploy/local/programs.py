"""Run other programs and turn what goes wrong into one line for the person at the keyboard.

Standard library only: it is needed before any environment exists.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN_DIR = ROOT / ".run"

Words = list[str | Path]


class StackError(Exception):
    """Something the person at the keyboard has to know; the text is one line."""


def find(program: str) -> str:
    """Return the path of a program; system folders are searched even when not on PATH.

    Raises
    ------
    StackError
        There is none.
    """
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin:/usr/bin:/bin"
    found = shutil.which(program, path=path)
    if found is None:
        message = f"{program} is not installed"
        raise StackError(message)
    return found


def bound(signal_name: str = "TERM") -> list[str]:
    """Return the words to put before a command whose process must not outlive us.

    The kernel sends the signal when the *thread* that started the process ends.
    """
    return [find("setpriv"), "--pdeathsig", signal_name, "--"]


def run(
    argv: Sequence[str | Path],
    failure: str,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    text: str | None = None,
) -> str:
    """Run a program to its end and return what it printed.

    Parameters
    ----------
    failure
        Begins the message when the program fails; its last words end it.
    text
        Given to the program on standard input.

    Raises
    ------
    StackError
        The program ended with another code than 0.
    """
    done = subprocess.run(
        [*bound(), *map(str, argv)],
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        env=None if env is None else dict(env),
        cwd=cwd,
        check=False,
    )
    if done.returncode != 0:
        message = f"{failure}: {last_line(done.stderr) or last_line(done.stdout) or 'no output'}"
        raise StackError(message)
    return done.stdout


def last_line(text: str) -> str:
    """Return the last line that is not empty, or an empty text."""
    lines = (line.strip() for line in reversed(text.splitlines()))
    return next((line for line in lines if line), "")


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
