"""What a task loads before it begins: a wide step does it many times."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

HEAVY = ("duckdb", "deltalake", "pyarrow.dataset")


def loaded(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint(*sys.modules)"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "airflow")},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_the_wide_step_does_not_load_what_only_the_last_one_needs() -> None:
    assert not loaded("import pipeline.tasks").intersection(HEAVY)
    published = loaded("import pipeline.tasks, pipeline.publish")
    assert published.intersection(HEAVY) == {"deltalake"}, "a query's engine comes with a query"
