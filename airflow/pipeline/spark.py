"""The second step on Spark, as the task that waits for it sees it: submits, listens, tells.

`pipeline.spark_application` is what is submitted. It runs in an environment of its own, so nothing
of Spark is needed here; the gateway's password stays with the task.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import tempfile
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pipeline.errors import DeliveryError, EngineError, WorkerError
from pipeline.outcome import FileRows
from pipeline.process import Processed
from pipeline.rejects import Reject
from pipeline.spark_application import MARK, Work

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import IO

    from pipeline.delivery import Delivery
    from pipeline.limits import Limits
    from pipeline.telling import Part

HERE = Path(__file__).parent
END_SECONDS = 20
# What Spark's own programs are told by; no variable of ours or of Airflow's is among them.
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "JAVA_HOME", "HADOOP_CONF_DIR")
_KEPT_TOO = ("SPARK_LOCAL_IP", "SPARK_CONF_DIR")
_MAIN = """\
import sys

from pipeline.spark_application import main

sys.exit(main(sys.argv[1:]))
"""
# Of the Java runtime itself, at each start.
_NOISE = ("WARNING: Using incubator modules",)

log = logging.getLogger("pipeline")


@dataclass(frozen=True)
class Cluster:
    """The Spark that the platform has, and how much of it one job may take.

    Parameters
    ----------
    master
        ``INGEST_SPARK_MASTER``, for example ``spark://spark:7077``.
    submit
        ``INGEST_SPARK_SUBMIT``: the program ``spark-submit``.
    configuration
        ``INGEST_SPARK_CONF``: a file of properties, where secrets belong.
    cores
        Tasks at a time; ``INGEST_SPARK_CORES`` bounds it too.
    patience_seconds
        ``INGEST_SPARK_PATIENCE_SECONDS``: how long a job may be without anybody at work on it.
    """

    master: str
    submit: str
    configuration: str | None
    cores: int
    patience_seconds: float

    @classmethod
    def of(cls, environment: Mapping[str, str], *, cores: int) -> Self:
        """Read what the environment says.

        Raises
        ------
        EngineError
            If there is no Spark.
        """
        master, submit = (environment.get(f"INGEST_SPARK_{n}") for n in ("MASTER", "SUBMIT"))
        if not master or not submit:
            msg = "INGEST_SPARK_MASTER and INGEST_SPARK_SUBMIT are not set: there is no Spark"
            raise EngineError(msg)
        most = int(environment.get("INGEST_SPARK_CORES") or cores)
        patience = float(environment.get("INGEST_SPARK_PATIENCE_SECONDS") or 600)
        configuration = environment.get("INGEST_SPARK_CONF") or None
        return cls(master, submit, configuration, max(1, min(cores, most)), patience)


def process(parts: Sequence[Part], limits: Limits, *, cores: int) -> None:
    """Have all parts of a plan processed, and tell the gateway of each as a task of its own would.

    Parameters
    ----------
    cores
        How many parts may be at work at a time.

    Raises
    ------
    DeliveryError
        The first part's that has one, when all others have ended too.
    EngineError
        The cluster is not there, or no longer.
    WorkerError
        Spark has given up a part that failed in each try.
    """
    follower = _Follower(parts)
    try:
        cluster = Cluster.of(os.environ, cores=min(cores, len(parts)))
        with _application(cluster, parts[0].delivery, len(parts), limits) as outcomes:
            follower.follow(outcomes)
    except (EngineError, WorkerError) as error:
        for index in sorted(follower.at_work) or [0]:
            parts[index].failed(error)
        raise
    if follower.faults:
        raise follower.faults[min(follower.faults)]


class _Follower:
    """Tells the gateway of parts: that they began, and how they ended."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self.begun: set[int] = set()
        self.at_work: set[int] = set()
        self.faults: dict[int, DeliveryError] = {}

    def follow(self, outcomes: Iterator[dict[str, Any]]) -> None:
        """Follow an application until every part has ended.

        The first part is told to begin before there is a cluster: a job that has ended ends it all.
        """
        self._begin([0])
        total, ended = len(self.parts), 0
        while ended < total:
            told = next(outcomes)
            if "began" in told:
                self._begin(range(told["began"]))
                continue
            ended += 1
            self._end(told["index"], told)
            log.info("part %d has ended, %d of %d", told["index"], ended, total)

    def _begin(self, indexes: Iterable[int]) -> None:
        for index in indexes:
            if index not in self.begun:
                self.parts[index].began()
                self.begun.add(index)
                self.at_work.add(index)

    def _end(self, index: int, told: dict[str, Any]) -> None:
        self._begin([index])
        self.at_work.discard(index)
        fault = _end_part(self.parts[index], told)
        if fault is not None:
            self.faults[index] = fault


@contextmanager
def _application(
    cluster: Cluster, delivery: Delivery, total: int, limits: Limits
) -> Iterator[Iterator[dict[str, Any]]]:
    """Have all parts of a plan processed; give what becomes of each as soon as it is known.

    The application ends with the block, and with this process, however that ends.
    """
    work = Work(delivery, total, limits, cluster.patience_seconds)
    with tempfile.TemporaryDirectory(prefix="ingest-spark-") as name:
        log.info("%d parts go to %s, up to %d at a time", total, cluster.master, cluster.cores)
        process = _start(cluster, work, Path(name))
        listener = threading.Thread(target=_log_lines, args=(process.stderr,), daemon=True)
        listener.start()
        try:
            yield _outcomes(process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
        finally:
            _end(process)
            listener.join(END_SECONDS)


def _end_part(part: Part, told: dict[str, Any]) -> DeliveryError | None:
    if "done" in told:
        part.step.take(_processed(told["done"]))
        part.succeeded()
        return None
    fault = told["fault"]
    rejects = [Reject(**each) for each in fault["rejects"]]
    error = DeliveryError(fault["code"], fault["detail"], rejects, fault["rows_rejected"])
    part.failed(error)
    return error


def _processed(value: dict[str, Any]) -> Processed:
    rejects = [Reject(**each) for each in value["rejects"]]
    files = [FileRows(**each) for each in value["files"]]
    return Processed(value["read"], value["rejected"], rejects, files)


def _start(cluster: Cluster, work: Work, folder: Path) -> subprocess.Popen[str]:
    _pack(folder / "pipeline.zip")
    program = folder / "process.py"
    program.write_text(_MAIN, encoding="utf-8")
    argv = [cluster.submit, "--master", cluster.master, "--name", f"gw.{work.delivery.job_id}"]
    argv += ["--conf", f"spark.cores.max={cluster.cores}"]
    if cluster.configuration is not None:
        argv += ["--properties-file", cluster.configuration]
    argv += ["--py-files", str(folder / "pipeline.zip"), str(program), work.as_text()]
    kept = {name: os.environ[name] for name in (*_KEPT, *_KEPT_TOO) if name in os.environ}
    # The kernel tells it when this process dies, even of a signal that nobody can catch.
    return subprocess.Popen(  # noqa: S603
        ["setpriv", "--pdeathsig", "TERM", "--", *argv],  # noqa: S607
        env={"SPARK_CONF_DIR": str(HERE / "spark_conf"), **kept, "SPARK_LOCAL_DIRS": str(folder)},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def _pack(path: Path) -> None:
    """Pack this very code for the executors, which so never run another than the plan's."""
    with zipfile.ZipFile(path, "w") as archive:
        for source in sorted(HERE.glob("*.py")):
            archive.write(source, f"{HERE.name}/{source.name}")


def _outcomes(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None  # noqa: S101 - it was started so
    for line in process.stdout:
        if not line.startswith(MARK):
            _log_line(line)
            continue
        told: dict[str, Any] = json.loads(line.removeprefix(MARK))
        if "stopped" in told:
            raise _failure(told["stopped"])
        yield told
    msg = f"the Spark application has ended with code {process.wait()}"
    raise EngineError(msg)


def _failure(text: str) -> EngineError | WorkerError:
    is_ours = "org.apache.spark.api.python.PythonException" in text
    return WorkerError(text) if is_ours else EngineError(text)


def _log_lines(lines: IO[str]) -> None:
    with lines:
        for line in lines:
            _log_line(line)


def _log_line(line: str) -> None:
    if line.strip() and not line.startswith(_NOISE):
        log.info("spark: %s", line.rstrip())


def _end(process: subprocess.Popen[str]) -> None:
    """End the program and whatever it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
            break
    assert process.stdout is not None  # noqa: S101 - it was started so
    process.stdout.close()
