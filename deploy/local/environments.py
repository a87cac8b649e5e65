"""Builds the two Python environments from their locks: the gateway's and Airflow's.

Airflow pins an older FastAPI than the gateway needs, so they cannot share one. Standard
library only; run as ``python3.11 -m deploy.local.environments``. An environment whose lock
has not changed is left as it is.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from deploy.local import node, openldap, programs
from deploy.local.programs import ROOT, RUN_DIR, StackError, Words

TOOLS = RUN_DIR / "tools"
TOOLS_LOCK = ROOT / "deploy/local/tools.lock"
# Whoever runs this has pip; environments of ours have none, but know whom they were made with.
IS_OURS = Path(sys.prefix).is_relative_to(RUN_DIR)
PYTHON = sys._base_executable if IS_OURS else sys.executable  # type: ignore[attr-defined]  # noqa: SLF001


@dataclass(frozen=True)
class Environment:
    """One environment: where it lies and what is in it.

    Attributes
    ----------
    editable
        Whether this project itself is installed too, from its own folder.
    """

    name: str
    path: Path
    lock: Path
    editable: bool = False

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.path / "bin/python"


GATEWAY = Environment("gateway", RUN_DIR / "gateway-env", ROOT / "dev.lock", editable=True)
AIRFLOW = Environment("Airflow", RUN_DIR / "airflow-env", ROOT / "airflow.lock")


def main() -> int:
    """Build what is missing or out of date."""
    try:
        _check_pip()
        RUN_DIR.mkdir(exist_ok=True)
        _ensure_tools()
        work: list[Callable[[], object]] = [
            _ensure_gateway,
            lambda: ensure(AIRFLOW),
            openldap.ensure,
        ]
        with ThreadPoolExecutor(len(work)) as pool:
            for each in [pool.submit(job) for job in work]:
                each.result()
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _ensure_gateway() -> None:
    ensure(GATEWAY)
    try:
        node.ensure(GATEWAY.path)
    except StackError as error:  # only tests need it, and they ask again
        print(f"  {error}", file=sys.stderr)


def pip(environment: Path, *argv: str | Path) -> Words:
    """Return pip's command for an environment, which needs no pip of its own."""
    return [PYTHON, "-m", "pip", "--python", environment / "bin/python", "-q", *argv]


def _check_pip() -> None:
    check = [PYTHON, "-m", "pip", "--version"]
    if subprocess.run(check, capture_output=True, check=False).returncode != 0:
        message = "pip is missing: install Debian's python3-pip"
        raise StackError(message)


def _ensure_tools() -> None:
    stamp = _stamp(TOOLS_LOCK)
    if _is_current(TOOLS, stamp):
        return
    _make_empty(TOOLS)
    command = pip(TOOLS, "install", "--require-hashes", "-r", TOOLS_LOCK)
    programs.run(command, "the installer could not be installed")
    _mark(TOOLS, stamp)


def ensure(environment: Environment) -> None:
    """Build an environment, unless it is there and its lock has not changed.

    Raises
    ------
    StackError
        It cannot be installed.
    """
    sources = [environment.lock, *([ROOT / "pyproject.toml"] if environment.editable else [])]
    stamp = _stamp(*sources)
    if _is_current(environment.path, stamp):
        return
    began = time.monotonic()
    try:
        _install_with_uv(environment)
    except StackError as error:
        print(f"  {error}; trying pip", file=sys.stderr)
        _install_with_pip(environment)
    _mark(environment.path, stamp)
    _say(f"{environment.name} environment installed", began)


def _install_with_uv(environment: Environment) -> None:
    uv = TOOLS / "bin/uv"
    settings = {**os.environ, **_uv_settings(), "UV_NO_PROGRESS": "1"}
    failure = f"the {environment.name} environment could not be installed by uv"
    if not environment.python.exists():
        create: Words = [uv, "venv", "--clear", "--python", PYTHON, environment.path]
        programs.run(create, failure, env=settings)
    target = ["--python", str(environment.python)]
    locked: Words = [uv, "pip", "sync", *target, "--require-hashes", environment.lock]
    programs.run(locked, failure, env=settings)
    if environment.editable:
        options = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
        own: Words = [uv, "pip", "install", *target, *options]
        programs.run(own, failure, env=settings)


def _install_with_pip(environment: Environment) -> None:
    failure = f"the {environment.name} environment could not be installed"
    _make_empty(environment.path)
    locked = pip(environment.path, "install", "--require-hashes", "-r", environment.lock)
    programs.run(locked, failure)
    if environment.editable:
        own: Words = ["install", "--no-deps", "--no-build-isolation", "--editable", ROOT]
        programs.run(pip(environment.path, *own), failure)


def _uv_settings() -> dict[str, str]:
    """Let uv ask the package index that pip is configured to ask."""
    listed = programs.run([PYTHON, "-m", "pip", "config", "list"], "pip does not run")
    known: dict[str, str] = {}
    for line in listed.splitlines():  # the environment's come first, and win
        key, _, value = line.partition("=")
        known.setdefault(key.rsplit(".", 1)[-1], ast.literal_eval(value))
    wanted = {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE"}
    found = {name: known[key] for key, name in wanted.items() if key in known}
    found["UV_SYSTEM_CERTS"] = "true"  # as pip does: the machine may have an authority of its own
    return {name: value for name, value in found.items() if name not in os.environ}


def _make_empty(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    create: Words = [PYTHON, "-m", "venv", "--without-pip", path]
    programs.run(create, "Python's venv module does not work")


def _stamp(*sources: Path) -> str:
    digest = hashlib.sha256(sys.version.encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _is_current(path: Path, stamp: str) -> bool:
    mark = path / ".stamp"
    return mark.exists() and mark.read_text() == stamp and (path / "bin/python").exists()


def _mark(path: Path, stamp: str) -> None:
    (path / ".stamp").write_text(stamp)


def _say(text: str, began: float) -> None:
    print(f"  {text} ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
