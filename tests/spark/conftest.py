"""A Spark cluster of two workers for all tests of the folder, and jobs that run on it."""

from __future__ import annotations

import json
import os
import runpy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from deploy.local import processes, spark
from deploy.local.spark import Cluster
from pipeline import tasks
from tests.pipeline.conftest import Stage, gateway, stage

__all__ = ["gateway", "stage"]

ROOT = Path(__file__).parents[2]
FACTORY = ROOT / "airflow" / "dags" / "factory.py"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with spark.start(tmp_path_factory.mktemp("spark"), workers=2) as started:
        started.wait()
        yield started


@dataclass
class SparkStage:
    """A stage whose second step runs on a cluster, as a task of the factory's DAG."""

    stage: Stage
    cluster: Cluster
    run_step: Any

    def land(self, files: dict[str, bytes], **options: Any) -> str:
        return self.stage.land(files, **options)

    def run(self, batch: str, attempt: int = 1, *, tries: int = 1) -> dict[str, int]:
        """Run the three steps, the second one on Spark."""
        self.stage.gateway.reports.clear()
        conf = self.stage.conf(batch, attempt)
        tasks.plan(self.stage.entry, conf, self.stage.task("plan", conf))
        self.process(conf, tries=tries)
        return tasks.publish(self.stage.entry, conf, self.stage.task("publish", conf))

    def process(self, conf: dict[str, Any], *, tries: int = 1) -> Any:
        return self.run_step("process_on_spark", self.stage.entry, context(conf, tries))

    def task(self, conf: dict[str, Any]) -> tasks.TaskRun:
        return replace(self.stage.task("process", conf), is_last_try=True)

    def executors(self) -> list[psutil.Process]:
        """Give the Java processes that the workers have started for an application."""
        below = (
            each
            for worker in self.cluster.daemons.values()
            for each in processes.descendants(worker.pid)
        )
        return [each for each in below if "CoarseGrained" in " ".join(words_of(each))]


def words_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def context(conf: dict[str, Any], tries: int) -> Any:
    instance = SimpleNamespace(
        dag_id="acme__flights",
        run_id=f"gw.{conf['job_id']}",
        task_id="process",
        map_index=-1,
        try_number=tries,
        max_tries=2,
    )
    return {"ti": instance, "dag_run": SimpleNamespace(conf=conf)}


@pytest.fixture
def on_spark(
    stage: Stage, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SparkStage:
    registry = tmp_path / "registry.json"
    registry.write_text(json.dumps({"version": 1, "projects": []}))
    monkeypatch.setenv("INGEST_REGISTRY_PATH", str(registry))
    for name, value in cluster.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMPDIR", os.environ.get("TMPDIR", str(tmp_path)))
    return SparkStage(stage, cluster, runpy.run_path(str(FACTORY))["run_step"])
