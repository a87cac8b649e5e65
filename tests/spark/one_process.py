"""A program that has one job's parts processed on Spark, as the process of an Airflow task does."""

from __future__ import annotations

import json
import sys

from pipeline import tasks
from pipeline.tasks import TaskRun

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    tasks.process_on_spark(given["entry"], given["conf"], TaskRun(**given["run"]))
