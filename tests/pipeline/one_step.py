"""A program that carries out one step of a job, as a task's process does; a line says that it begins."""

from __future__ import annotations

import json
import sys

from pipeline import tasks
from pipeline.postgres_session import Place
from pipeline.tasks import TaskRun


def main() -> None:
    """Read what to do from standard input."""
    given = json.load(sys.stdin)
    run = TaskRun(**given["run"])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if given["run"]["task_id"] == "plan":
        tasks.plan(given["entry"], given["conf"], run)
    elif given["run"]["task_id"] == "process":
        tasks.process(given["entry"], given["conf"], run, {"index": run.map_index})
    else:
        place = Place(**given["database"]) if given.get("database") else None
        tasks.publish(given["entry"], given["conf"], run, (lambda: place) if place else None)


if __name__ == "__main__":
    main()
