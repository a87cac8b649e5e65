"""Programs of Debian's that this machine lacks, unpacked below a folder of ours.

No root needed, and no system service started.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from deploy.local import programs
from deploy.local.programs import StackError

IsWanted = Callable[[str], bool]


def unpack(name: str, packages: Sequence[str], target: Path, is_wanted: IsWanted) -> None:
    """Download packages and what they need of what this machine lacks, and unpack all.

    Parameters
    ----------
    name
        What it is, for messages.
    is_wanted
        Says of a needed package whether it is brought in.

    Raises
    ------
    StackError
        They cannot be downloaded or unpacked.
    """
    target.mkdir(parents=True, exist_ok=True)
    failure = f"{name} could not be downloaded"
    planned = ["--simulate", "--no-install-recommends", "install", *packages]
    try:
        answer = _apt(target, planned, failure)
    except StackError:
        _apt(target, ["update"], failure)
        answer = _apt(target, planned, failure)
    names = [line.split()[1] for line in answer.splitlines() if line.startswith("Inst ")]
    _apt(target, ["download", *filter(is_wanted, names)], failure)
    for archive in sorted(target.glob("*.deb")):
        words: programs.Words = [programs.find("dpkg"), "-x", archive, target]
        programs.run(words, f"{name} could not be unpacked")
        archive.unlink()


def _apt(target: Path, argv: Sequence[str], failure: str) -> str:
    """Run apt with lists and caches of our own, so that no privilege is needed."""
    state = target / "apt"
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
    return programs.run([programs.find("apt-get"), "-qq", *given, *argv], failure, cwd=target)
