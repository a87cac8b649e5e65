"""A Postgres with clients' databases, run by an interpreter that has the server: ends with its parent."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.local import postgres


def main(run_dir: str, port: str) -> None:
    """Start the server, say so, and stay until standard input is closed."""
    with postgres.start(Path(run_dir), int(port), fsync=False) as server:
        server.provide_lessor("lessor")
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
