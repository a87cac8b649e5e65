"""Debian's packages, downloaded and unpacked below ``.run/`` instead of installed.

No root is needed, and no system service is started. Standard library only.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from deploy.local import programs


def unpack(
    wanted: Sequence[str], into: Path, *, title: str, unneeded: tuple[str, ...] = ()
) -> None:
    """Unpack packages, and the libraries they need of what this machine lacks.

    Parameters
    ----------
    title
        What a message calls the software.
    unneeded
        Beginnings of names of libraries that can be left out.

    Raises
    ------
    StackError
        They cannot be downloaded or unpacked.
    """
    into.mkdir(parents=True, exist_ok=True)
    _apt(["download", *_packages(wanted, into, title, unneeded)], into, title, cwd=into)
    for archive in sorted(into.glob("*.deb")):
        command: programs.Words = [programs.find("dpkg"), "-x", archive, into]
        programs.run(command, f"{title} could not be unpacked")
        archive.unlink()


def environment(root: Path) -> dict[str, str]:
    """Return the variables that programs below `root` need to find their libraries."""
    variables = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
    if root != Path("/"):
        triplet = f"{platform.machine()}-linux-gnu"
        folders = [root / folder / triplet for folder in ("usr/lib", "lib")]
        variables["LD_LIBRARY_PATH"] = ":".join(map(str, [*folders, root / "usr/lib"]))
    return variables


def _packages(
    wanted: Sequence[str], into: Path, title: str, unneeded: tuple[str, ...]
) -> list[str]:
    planned = ["--simulate", "--no-install-recommends", "install", *wanted]
    try:
        answer = _apt(planned, into, title)
    except programs.StackError:
        _apt(["update"], into, title)
        answer = _apt(planned, into, title)
    names = [line.split()[1] for line in answer.splitlines() if line.startswith("Inst ")]
    needed = [name for name in names if name in wanted or name.startswith("lib")]
    return [name for name in needed if not name.startswith(unneeded)]


def _apt(argv: list[str], into: Path, title: str, *, cwd: Path | None = None) -> str:
    """Run apt with lists and caches of our own, so that no privilege is needed."""
    state = into / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    options = {
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state,
        "Dir::Log": state,
        "Debug::NoLocking": 1,
        "APT::Sandbox::User": "root",
    }
    given = [text for name, value in options.items() for text in ("-o", f"{name}={value}")]
    command = [programs.find("apt-get"), "-qq", *given, *argv]
    return programs.run(command, f"{title} could not be downloaded", cwd=cwd)
