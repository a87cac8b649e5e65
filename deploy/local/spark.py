"""Spark as a cluster of its own on loopback: a master, some workers, and what applications need.

Its Python environment and a Java runtime are brought in when it is first asked for. Everything ends
with the process that started it.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from deploy.local import environments, java, processes, programs
from deploy.local.environments import Environment
from deploy.local.processes import LOOPBACK
from deploy.local.programs import ROOT, RUN_DIR

ENVIRONMENT = Environment("Spark", RUN_DIR / "spark-env", ROOT / "spark.lock")
HOME = ENVIRONMENT.path / "lib/python3.11/site-packages/pyspark"
SUBMIT = HOME / "bin/spark-submit"
LOGGING = ROOT / "airflow/pipeline/spark_conf"
START_SECONDS = 90
MASTER = "spark-master"

# Quick to start, and content with little: what is computed is computed in Python.
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"

# Of daemons and applications alike. Each application's page would be a server more.
_PROPERTIES = """\
spark.authenticate true
spark.authenticate.secret {secret}
spark.network.crypto.enabled true
spark.master.rest.enabled false
spark.ui.enabled false
spark.ui.killEnabled false
spark.driver.host {host}
spark.driver.bindAddress {host}
spark.driver.memory 512m
spark.executor.cores 1
spark.executor.memory 512m
spark.executorEnv.POLARS_MAX_THREADS 1
spark.pyspark.python {python}
spark.driver.extraJavaOptions {java}
spark.executor.extraJavaOptions {java}
spark.worker.cleanup.enabled true
"""


@dataclass(frozen=True)
class Software:
    """The programs of Spark, and the Java that they run on."""

    java_home: Path

    @property
    def environment(self) -> dict[str, str]:
        """What every process of Spark starts with; nothing of the caller's is in it."""
        return {
            "PATH": os.defpath,
            "JAVA_HOME": str(self.java_home),
            "SPARK_HOME": str(HOME),
            "SPARK_CONF_DIR": str(LOGGING),
            "SPARK_LOCAL_IP": LOOPBACK,
            "SPARK_DAEMON_MEMORY": "256m",
            "SPARK_DAEMON_JAVA_OPTS": JAVA_OPTIONS,
            "SPARK_LAUNCHER_OPTS": JAVA_OPTIONS,
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
        }


def is_wanted() -> bool:
    """Say whether this stack is to have a cluster."""
    return os.environ.get("STACK_SPARK", "0") not in {"", "0"}


def ensure() -> Software:
    """Build Spark's environment, and bring Java in where there is none.

    Raises
    ------
    StackError
        They cannot be had.
    """
    environments.ensure(ENVIRONMENT)
    return Software(java.ensure())


@dataclass
class Cluster:
    """A standalone master and its workers, each of one core; leaving it ends them all.

    Attributes
    ----------
    run_dir
        Where executors have their folders, and the configuration lies.
    logs
        Where each daemon's log lies, under its name.
    mark
        Variables by which its processes are known.
    """

    run_dir: Path
    logs: Path
    software: Software
    port: int
    page_port: int
    mark: dict[str, str]
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where applications find the master."""
        return f"spark://{LOOPBACK}:{self.port}"

    @property
    def configuration(self) -> Path:
        """The properties of daemons and applications, with the secret that they share."""
        return self.run_dir / "spark.properties"

    @property
    def variables(self) -> dict[str, str]:
        """What Airflow's processes are told of it."""
        return {
            "INGEST_SPARK_MASTER": self.url,
            "INGEST_SPARK_SUBMIT": str(SUBMIT),
            "INGEST_SPARK_CONF": str(self.configuration),
            "JAVA_HOME": str(self.software.java_home),
            "SPARK_LOCAL_IP": LOOPBACK,
        }

    def start_master(self) -> None:
        """Start the master, or start it again."""
        words = ["--port", str(self.port), "--webui-port", str(self.page_port)]
        self._start("master.Master", MASTER, words)

    def start_worker(self) -> None:
        """Start one worker more."""
        name = f"spark-worker-{len(self.daemons)}"
        folder = str(self.run_dir / name)
        words = ["--cores", "1", "--memory", "768m", "--work-dir", folder, "--webui-port", "0"]
        self._start("worker.Worker", name, [*words, self.url])

    def wait(self) -> None:
        """Wait until every worker has come to the master.

        Raises
        ------
        StackError
            One of them has ended, or they take too long.
        """
        for name, process in self.daemons.items():
            processes.wait_until(
                lambda: len(self.state("workers")) == len(self.daemons) - 1,
                process,
                name=name,
                log=self.logs / f"{name}.log",
                timeout_seconds=START_SECONDS,
            )

    def state(self, name: str) -> list[dict[str, Any]]:
        """Return the ``workers`` that are alive, or the ``activeapps``, as the master has them."""
        status, body = processes.get(self.page_port, "/json/")
        if status != HTTPStatus.OK:
            return []
        found: list[dict[str, Any]] = json.loads(body)[name]
        return [each for each in found if each.get("state") != "DEAD"]

    def stop(self) -> None:
        """End every process, executors too."""
        for process in reversed(self.daemons.values()):
            processes.kill(process)
        self.daemons.clear()

    def _start(self, name: str, title: str, words: list[str]) -> None:
        given = ["--host", LOOPBACK, "--properties-file", str(self.configuration)]
        argv: programs.Words = [HOME / "bin/spark-class", f"org.apache.spark.deploy.{name}"]
        scratch = {"SPARK_LOCAL_DIRS": str(self.run_dir)}
        self.daemons[title] = processes.start(
            [*argv, *given, *words],
            self.logs / f"{title}.log",
            env=self.software.environment | self.mark | scratch,
            cwd=self.run_dir,
        )


def start(
    run_dir: Path,
    *,
    workers: int = 2,
    logs: Path | None = None,
    mark: tuple[str, str] | None = None,
) -> Cluster:
    """Start a cluster on free ports; `Cluster.wait` returns when it is ready.

    Raises
    ------
    StackError
        Spark or Java cannot be had.
    """
    software = ensure()
    run_dir.mkdir(parents=True, exist_ok=True)
    port, page_port = _free_ports(2)
    marked = dict([mark] if mark else [])
    cluster = Cluster(run_dir, logs or run_dir, software, port, page_port, marked)
    values = {"host": LOOPBACK, "python": ENVIRONMENT.python, "java": JAVA_OPTIONS}
    text = _PROPERTIES.format(**values, secret=secrets.token_urlsafe(48))
    programs.write_secret(cluster.configuration, text)
    cluster.start_master()
    for _ in range(workers):
        cluster.start_worker()
    return cluster


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
