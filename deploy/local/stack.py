"""The whole stack as children of one process: started, watched, ended together."""

from __future__ import annotations

import contextlib
import ctypes
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import psutil

from deploy.local import (
    airflow,
    client_side,
    directory,
    gateway,
    layout,
    postgres,
    processes,
    programs,
    record,
    spark,
)
from deploy.local.layout import Ports, Secrets
from deploy.local.programs import StackError

PR_SET_CHILD_SUBREAPER = 36
START_SECONDS = 240
STOP_SECONDS = 8
MIGRATED = "airflow_migrated"


class Stack:
    """Postgres, OpenLDAP, Airflow, gateway and worker.

    Use as a context manager: leaving it ends every process, however it is left.

    Parameters
    ----------
    afresh
        Begin with empty stores instead of what an earlier run has left in them.
    """

    def __init__(self, ports: Ports, *, afresh: bool = False) -> None:
        self.ports = ports
        self.afresh = afresh
        self.clients: Sequence[Path] = gateway.CLIENTS
        self.secrets = Secrets.load()
        self.services: dict[str, subprocess.Popen[bytes]] = {}
        self._spark: spark.Cluster | None = None
        self._directory: directory.Directory | None = None
        self._postgres: postgres.Postgres | None = None
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        # Orphans of our children become ours, so that none escapes the end.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self.stop()

    def start(self) -> None:
        """Start everything and return when all of it is ready.

        Raises
        ------
        StackError
            A part is missing, does not start, or its port is taken.
        """
        self.ports.require_free()
        self._start_stores()
        variables = airflow.environment(self.ports, self.secrets, self._airflow_database())
        if spark.is_wanted():
            variables |= self._start_spark()
        migration = self._begin_airflow_migration(variables)
        if migration is None:
            self._start_airflow(variables)
        self._start_gateway()
        if migration is not None:
            self._finish(migration, "airflow-migrate", "Airflow's database")
            self._keep_migrated()
            self._start_airflow(variables)
        self._wait("gateway", lambda: gateway.is_ready(self.ports))
        if self._spark is not None:
            self._spark.wait()
            self._say("Spark is ready")
        self._wait("airflow-api", lambda: airflow.is_healthy(self.ports), "Airflow")
        self._write_stack_env()

    def watch(self) -> None:
        """Stay until a part ends by itself.

        Raises
        ------
        StackError
            Naming the part that ended.
        """
        while True:
            self.check()
            time.sleep(0.5)

    def check(self) -> None:
        """Raise when a part has ended by itself."""
        for name, process in self.services.items():
            if process.poll() is not None:
                log = _log(name)
                message = f"{name} has ended: {processes.last_words(log)} (log: {log})"
                raise StackError(message)

    def stop(self) -> None:
        """End every process: those that use the stores first, the stores last."""
        if self._directory is not None:  # else another stack may have written it
            layout.STACK_ENV.unlink(missing_ok=True)
        users = [self.services.pop(name) for name in list(self.services) if name not in _STORES]
        family = {each for process in users for each in processes.descendants(process.pid)}
        for process in users:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in users:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            processes.kill(process, family)
        for store in (self._postgres, self._directory):
            if store is not None:
                store.stop()
        processes.end(psutil.Process().children(recursive=True))
        record.forget()

    def credentials(self, account: str) -> str:
        """Return the password of an account of the directory."""
        assert self._directory is not None  # noqa: S101 - set by start()
        return self._directory.passwords[account]

    def _start_stores(self) -> None:
        if self.afresh:
            layout.empty()
        layout.make_folders()
        self._postgres = postgres.start(layout.STACK / "postgres", self.ports.postgres)
        self._adopt("postgres", self._postgres.process)
        if self.afresh:
            for name in ("gateway", "airflow", *self._postgres.clients_databases()):
                self._postgres.drop_database(name)
        self._directory = directory.start(layout.STACK / "directory", self.ports.ldap)
        self._adopt("slapd", self._directory.process)
        airflow.prepare(self._directory.passwords, self.secrets)
        self._say("Postgres and OpenLDAP are ready")

    def _database(self, name: str, *, template: str = "template1") -> str:
        assert self._postgres is not None  # noqa: S101 - set by _start_stores()
        password = getattr(self.secrets, f"{name}_database")
        return self._postgres.create_database(name, name, password, template=template)

    def _airflow_database(self) -> str:
        """Return a URL of Airflow's database: the one there is, or a copy of the migrated one."""
        if airflow.needs_migration():
            return self._database("airflow")
        return self._database("airflow", template=MIGRATED)

    def _keep_migrated(self) -> None:
        """Keep a copy of Airflow's database: migrating one takes seconds, copying it none."""
        assert self._postgres is not None  # noqa: S101 - set by _start_stores()
        self._postgres.drop_database(MIGRATED)
        password = self.secrets.airflow_database
        self._postgres.create_database(MIGRATED, "airflow", password, template="airflow")
        airflow.mark_migrated()

    def _begin_airflow_migration(self, variables: dict[str, str]) -> subprocess.Popen[bytes] | None:
        if not airflow.needs_migration():
            return None
        return self._run("airflow-migrate", [airflow.PROGRAM, "db", "migrate"], variables)

    def _start_spark(self) -> dict[str, str]:
        """Start Spark; return what Airflow's processes are told of it."""
        self._spark = spark.start(layout.STACK / "spark", logs=layout.LOGS, mark=layout.MARK)
        for name, process in self._spark.daemons.items():
            self._adopt(name, process)
        return self._spark.variables

    def _start_airflow(self, variables: dict[str, str]) -> None:
        assert self._directory is not None  # noqa: S101 - set by _start_stores()
        if client_side.is_wanted():
            client_side.prepare()
            variables = client_side.added(variables, self.ports, self._directory.passwords)
        for name, words in airflow.COMPONENTS.items():
            own = airflow.OWN_VARIABLES if name == airflow.API_SERVER else {}
            self._spawn(name, [airflow.PROGRAM, *words], variables | own)

    def _start_gateway(self) -> None:
        assert self._directory is not None  # noqa: S101 - set by _start_stores()
        assert self._postgres is not None  # noqa: S101 - set by _start_stores()
        lessor_url = self._postgres.provide_lessor(self.secrets.lessor_database)
        variables = gateway.environment(
            self.ports, self.secrets, self._directory, self._database("gateway"), lessor_url
        )
        for purpose, command in gateway.preparations(self.clients):
            step = self._run("gateway-prepare", command, variables)
            self._finish(step, "gateway-prepare", purpose)
        self._spawn("gateway", [gateway.PROGRAM, "serve"], variables)
        self._spawn("worker", [gateway.PROGRAM, "worker"], variables)

    def _spawn(self, name: str, argv: programs.Words, variables: dict[str, str]) -> None:
        self._adopt(name, self._run(name, argv, variables))

    def _run(
        self, name: str, argv: programs.Words, variables: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        process = processes.start(argv, _log(name), env=variables, cwd=layout.STACK)
        record.note(name, process.pid)
        return process

    def _adopt(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.services[name] = process
        record.note(name, process.pid)

    def _finish(self, step: subprocess.Popen[bytes], name: str, purpose: str) -> None:
        if step.wait() != 0:
            message = f"{purpose}: {processes.last_words(_log(name))} (log: {_log(name)})"
            raise StackError(message)
        self._say(f"{purpose}: done")

    def _wait(self, name: str, ready: Callable[[], bool], title: str | None = None) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                message = (
                    f"{title or name} is not ready after {START_SECONDS} s (logs: {layout.LOGS})"
                )
                raise StackError(message)
            time.sleep(0.25)
        self._say(f"{title or name} is ready")

    def _write_stack_env(self) -> None:
        assert self._directory is not None  # noqa: S101 - set by start()
        database = self._database("gateway").replace("+psycopg2", "")
        values: dict[str, object] = {
            "GATEWAY_URL": self.ports.gateway_url,
            "AIRFLOW_URL": self.ports.airflow_url,
            "LDAP_URL": self._directory.url,
            "LDAP_CA_PATH": self._directory.ca_path,
            "DATABASE_URL": database,
            "LANDING_DIR": layout.LANDING,
            "CURATED_DIR": layout.CURATED,
        }
        for prefix, account in ACCOUNTS.items():
            values[f"{prefix}_USER"] = account
            values[f"{prefix}_PASSWORD"] = self.credentials(account)
        lines = [f"{name}={shlex.quote(str(value))}\n" for name, value in values.items()]
        programs.write_secret(layout.STACK_ENV, "".join(lines))

    def _say(self, text: str) -> None:
        print(f"  {time.monotonic() - self._began:4.0f} s  {text}", flush=True)


ACCOUNTS = {
    "ACME": "acme-uploader",
    "ACME_OPERATOR": "acme-operator",
    "ACME_VIEWER": "acme-viewer",
    "GLOBEX": "globex-uploader",
    "GLOBEX_OPERATOR": "globex-operator",
    "AUDITOR": "auditor",
    "ADMIN": "admin",
}
_STORES = ("postgres", "slapd")


def _log(name: str) -> Path:
    return layout.LOGS / f"{name}.log"
