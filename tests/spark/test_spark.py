"""The second step on a real Spark: what engine ``local`` gives, also when parts of it die."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
from airflow.sdk.exceptions import AirflowFailException

from pipeline import tasks
from pipeline.errors import DeliveryError, EngineError
from tests.pipeline.conftest import Stage
from tests.pipeline.inputs import FLIGHTS, GOOD, SHEET, parquet, workbook, zipped
from tests.spark import one_process
from tests.spark.conftest import ROOT, SparkStage, words_of

ROWS = 60_000
HEAD = b"flight,carrier,delay\n"
WRONG = b'x,AA,1\n3,"A,\n4,AAA,2\n5,AA\n6,AA,1,1\n,AA,1\n7,AA,n/a\n8,"UA",3\n'


def rows(first: int, count: int) -> bytes:
    return b"".join(b"%d,AA,%d\n" % (n, n % 90) for n in range(first, first + count))


def everything() -> dict[str, bytes]:
    """Files of many kinds, good, wrong in every way, and no tables at all."""
    large = HEAD + rows(1_000, ROWS) + b"x,AA,1\n" + rows(100_000, ROWS)
    return {
        "large.csv": large,
        **{f"small_{n:02}.csv": HEAD + rows(n * 2_000_000, 5_000) for n in range(1, 13)},
        "wrong.csv": HEAD + rows(300_000, 50) + WRONG,
        "good.csv.gz": gzip.compress(HEAD + rows(400_000, 500)),
        "more.zip": zipped({"a.csv": HEAD + rows(500_000, 9), "b/c.csv": GOOD + b"1,AAA,1\n"}),
        "table.parquet": parquet(FLIGHTS),
        "book.xlsx": workbook({"Flights": SHEET}),
        "lines.ndjson": b'{"flight": 9, "carrier": "AA"}\n{"flight": "no"}\n',
        "readme.txt": b"hello\nworld\n",
    }


def until(true: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def staged(stage: Stage, batch: str, attempt: int) -> dict[str, Any]:
    """Give what a job has staged: each file's rows in their order, or its text."""
    parts = stage.root / "staged/acme/flights" / batch / stage.conf(batch, attempt)["job_id"]
    files = sorted(each for each in (parts / "parts").rglob("*") if each.is_file())
    return {
        str(each.relative_to(parts)): (
            pl.read_parquet(each).rows() if each.suffix == ".parquet" else each.read_text()
        )
        for each in files
    }


def told(stage: Stage) -> list[dict[str, Any]]:
    """Give the last report of each part, without what differs between two attempts."""
    own = ("job_id", "run_id", "attempt")
    found = [{k: v for k, v in each.items() if k not in own} for each in stage.gateway.ended()]
    return sorted(found, key=lambda each: (each["step"], each["map_index"]))


def of_a_part(report: dict[str, Any]) -> bool:
    return report["step"] == "process"


def secret_of(on_spark: SparkStage) -> str:
    lines = on_spark.cluster.configuration.read_text().splitlines()
    return next(each.split()[1] for each in lines if each.startswith("spark.authenticate.secret"))


def test_rows_rejects_and_reports_are_those_of_engine_local_though_an_executor_is_killed(
    on_spark: SparkStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = on_spark.stage
    stage.on_reject = {"policy": "reject-file"}
    stage.properties[0] = {**stage.properties[0], "unique": True}
    monkeypatch.setenv("INGEST_CHUNK_BYTES", str(1 << 16))
    batch = stage.land(everything())
    counts = stage.run(batch)
    rows, reports = stage.curated(), told(stage)
    stage.gateway.reports.clear()
    seen: list[str] = []

    def kill_one() -> None:
        until(lambda: any(of_a_part(each) for each in stage.gateway.ended()))
        found = until(on_spark.executors)
        seen.extend(" ".join(words_of(process)) for process in psutil.process_iter())
        assert not any(name.startswith("INGEST_") for name in found[0].environ())
        found[0].kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    assert on_spark.run(batch, attempt=2) == counts
    killer.join()
    assert any(each.startswith("part") for each in staged(stage, batch, 1))
    assert staged(stage, batch, 2) == staged(stage, batch, 1)
    assert told(stage) == reports
    assert stage.curated().equals(rows)
    running = [r["map_index"] for r in stage.gateway.reports if r["state"] == "running"]
    parts = [r["map_index"] for r in reports if of_a_part(r)]
    assert sorted(i for i in running if i >= 0) == parts
    assert len(parts) > 20
    assert any("CoarseGrained" in each for each in seen)
    assert not any(secret_of(on_spark) in each for each in seen)
    for number in (1, 2):
        assert list(on_spark.cluster.run_dir.glob(f"spark-worker-{number}/app-*/*/pipeline.zip"))


def test_a_killed_task_takes_its_application_along_and_the_next_try_names_what_is_wrong(
    on_spark: SparkStage,
) -> None:
    stage = on_spark.stage
    broken = b'[{"flight": 1, "carrier": "AA"}, {"flight" 2}, {"flight": 3, "carrier": "AA"}]'
    files = {"a.json": broken, "b.csv": GOOD, "c.csv": HEAD + rows(10, ROWS) + b"x,AA,1\n"}
    batch = stage.land(files, mode="validate")
    conf = stage.conf(batch)
    parts = tasks.plan(stage.entry, conf, stage.task("plan", conf))
    for i, part in enumerate(parts[1:], 1):
        tasks.process(stage.entry, conf, stage.task("process", conf, i), part)
    with pytest.raises(DeliveryError, match="unreadable-file") as failure:
        tasks.process(stage.entry, conf, stage.task("process", conf, 0), parts[0])
    reports, found = told(stage), staged(stage, batch, 1)

    conf = stage.conf(batch, 2)
    stage.gateway.reports.clear()
    tasks.plan(stage.entry, conf, stage.task("plan", conf))
    _kill_at_work(on_spark, conf)
    with pytest.raises(AirflowFailException) as same:
        on_spark.process(conf)
    assert str(same.value) == str(failure.value)
    assert told(stage) == reports
    assert staged(stage, batch, 2) == found


def _kill_at_work(on_spark: SparkStage, conf: dict[str, Any]) -> None:
    """Kill the process of a task that waits for Spark, and see that nothing of it is left."""
    given = {"entry": on_spark.stage.entry, "conf": conf, "run": asdict(on_spark.task(conf))}
    words = [sys.executable, "-m", one_process.__name__, json.dumps(given)]
    process = subprocess.Popen(words, cwd=ROOT)
    (application,) = until(lambda: on_spark.cluster.state("activeapps"))
    assert application["name"] == f"gw.{conf['job_id']}"
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    until(lambda: not on_spark.cluster.state("activeapps"))
    until(lambda: not any(each.is_running() for each in family))
    until(lambda: all(each["coresused"] == 0 for each in on_spark.cluster.state("workers")))


def test_a_cluster_on_which_nobody_takes_a_part_is_a_failure_of_the_platforms(
    on_spark: SparkStage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stage = on_spark.stage
    batch = stage.land({"a.csv": GOOD})
    conf = stage.conf(batch)
    tasks.plan(stage.entry, conf, stage.task("plan", conf))
    held = on_spark.cluster.configuration.read_text()
    greedy = tmp_path / "greedy.properties"
    greedy.write_text(held.replace("executor.memory 512m", "executor.memory 4g"))
    monkeypatch.setenv("INGEST_SPARK_CONF", str(greedy))
    monkeypatch.setenv("INGEST_SPARK_PATIENCE_SECONDS", "1")
    with pytest.raises(EngineError, match="nobody took a part for 1 s"):
        tasks.process_on_spark(stage.entry, conf, on_spark.task(conf))
    assert stage.gateway.error() == {
        "code": "engine-unavailable",
        "detail": "the platform's cluster is not there; the delivery is kept",
    }


def test_a_platform_without_spark_says_so(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INGEST_SPARK_MASTER", raising=False)
    batch = stage.land({"a.csv": GOOD})
    conf = stage.conf(batch)
    tasks.plan(stage.entry, conf, stage.task("plan", conf))
    run = replace(stage.task("process", conf), is_last_try=True)
    with pytest.raises(EngineError, match="INGEST_SPARK_MASTER"):
        tasks.process_on_spark(stage.entry, conf, run)
    assert stage.gateway.error()["code"] == "engine-unavailable"
