"""Runs the gateway and kills it (SIGKILL) at the n-th step that leaves a trace outside.

``python -m tests.faults.crashing <n> <arm> <gateway arguments …>``: steps are counted once the file
``<arm>`` exists. A step is a sync or a publication in the landing zone, a commit in Postgres, or a
request to Airflow; the process dies just before it. After a commit, and after Airflow's answer, it
dies too. The worker's other loops look and sweep all the time: their steps do not count.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.dialects.postgresql import psycopg2 as dialect

from gateway.landing import posix


class Countdown:
    """Counts steps down and ends the process at the chosen one."""

    def __init__(self, number: int, arm: Path) -> None:
        self.number = number
        self.arm = arm
        self.seen = 0

    def step(self, name: str) -> None:
        """Pass a step, or die at it."""
        if not self.arm.exists() or threading.current_thread().name in {"Watch", "Sweep"}:
            return
        if self.seen == self.number:
            with self.arm.open("a") as log:
                log.write(f"{name}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen += 1

    def around(self, owner: Any, name: str, *, and_after: bool = False) -> None:
        """Make a function a step, or two: before it is carried out, and after."""
        original: Callable[..., Any] = getattr(owner, name)

        def stepped(*arguments: Any, **named: Any) -> Any:
            self.step(f"before {name}")
            result = original(*arguments, **named)
            if and_after:
                self.step(f"after {name}")
            return result

        setattr(owner, name, stepped)


def main() -> None:
    """Run."""
    number, arm, *arguments = sys.argv[1:]
    countdown = Countdown(int(number), Path(arm))
    countdown.around(os, "fsync")
    countdown.around(posix, "rename_without_replacing")
    countdown.around(dialect.PGDialect_psycopg2, "do_commit", and_after=True)
    if "worker" in arguments:
        from gateway.dispatch.airflow_api import AirflowApi

        countdown.around(AirflowApi, "trigger", and_after=True)
    from gateway import cli

    sys.argv = ["gateway", *arguments]
    cli.main()


if __name__ == "__main__":
    main()
