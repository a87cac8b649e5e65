"""Where a Java runtime is found, or how it is brought in without installing it.

An installed one is used where it is new enough. Otherwise Debian's package is downloaded and
unpacked below ``.run/``. Standard library only.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from deploy.local import debian
from deploy.local.programs import RUN_DIR, StackError

UNPACKED = RUN_DIR / "java"
PACKAGE = "openjdk-17-jre-headless"
LEAST_VERSION = 17
# What it needs for sound, printers, fonts and smart cards: nothing that runs here asks for them.
UNNEEDED = ("lib",)

_VERSION = re.compile(r'version "(\d+)')


def ensure() -> Path:
    """Return the home of a Java runtime, downloading it first where there is none.

    Raises
    ------
    StackError
        It cannot be downloaded, or does not run on this machine.
    """
    home = _installed() or _unpacked()
    if home is None:
        shutil.rmtree(UNPACKED, ignore_errors=True)
        debian.unpack([PACKAGE], UNPACKED, title="Java", unneeded=UNNEEDED)
        _bring_configuration_home()
        home = _unpacked()
    if home is None:
        message = "Java was downloaded but does not run"
        raise StackError(message)
    return home


def _installed() -> Path | None:
    program = shutil.which("java")
    return None if program is None else _usable(Path(program).resolve().parents[1])


def _unpacked() -> Path | None:
    found = (each.parents[1] for each in sorted(UNPACKED.glob("usr/lib/jvm/*/bin/java")))
    return next((home for each in found if (home := _usable(each.resolve()))), None)


def _usable(home: Path) -> Path | None:
    """Return a home whose Java runs and is new enough."""
    words = [str(home / "bin/java"), "-version"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError):
        return None
    version = _VERSION.search(said)
    return home if version is not None and int(version[1]) >= LEAST_VERSION else None


def _bring_configuration_home() -> None:
    """Point the links that lead to ``/etc`` to the files that were unpacked with them."""
    for link in UNPACKED.glob("usr/lib/jvm/*/**/*"):
        if link.is_symlink() and (target := link.readlink()).is_relative_to("/etc"):
            link.unlink()
            link.symlink_to(UNPACKED / target.relative_to("/"))
