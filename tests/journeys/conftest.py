"""The whole stack, real: Postgres, OpenLDAP, Airflow, gateway and worker, as `make up` starts it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg2
import pytest
import sqlalchemy

from gateway.leases.resources.postgres import place_of
from tests.parts import REPOSITORY


@dataclass
class Stack:
    """A running stack: what `stack.env` says of it, and its processes."""

    values: dict[str, str]
    directory: Path

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def sign_in(self, who: str) -> dict[str, str]:
        """Return the Authorization header of ``ACME``, ``GLOBEX``, ``ADMIN`` …"""
        user, password = self[f"{who}_USER"], self[f"{who}_PASSWORD"]
        form = {"grant_type": "client_credentials"}
        answer = httpx.post(f"{self['GATEWAY_URL']}/v1/token", data=form, auth=(user, password))
        if answer.status_code != httpx.codes.OK:
            form = {"grant_type": "password", "username": user, "password": password}
            answer = httpx.post(f"{self['GATEWAY_URL']}/v1/token", data=form)
        assert answer.status_code == httpx.codes.OK, answer.text
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    def send(self, who: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the client's command line as that client's machine would."""
        variables = {
            "GATEWAY_URL": self["GATEWAY_URL"],
            "GATEWAY_USER": self[f"{who}_USER"],
            "GATEWAY_PASSWORD": self[f"{who}_PASSWORD"],
        }
        return subprocess.run(
            [sys.executable, "-m", "gateway", *words],
            env={**os.environ, **variables},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def operate(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run an operator's command, configured as the running gateway is."""
        return subprocess.run(
            [sys.executable, "-m", "gateway", *words],
            env=self._process("gateway").environ(),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def _process(self, name: str) -> psutil.Process:
        noted = json.loads((self.directory / "processes.json").read_text())
        return psutil.Process([each["pid"] for each in noted if each["name"] == name][-1])

    def rows(self, client: str, project: str, table: str, query: str) -> Any:
        """Ask a curated table (``t``) something, with a reader that is not ours."""
        path = Path(self["CURATED_DIR"]) / client / project / table
        program = (
            "import sys, json, duckdb, deltalake;"
            "t = deltalake.DeltaTable(sys.argv[1]).to_pyarrow_table();"
            "print(json.dumps(duckdb.sql(sys.argv[2]).fetchall(), default=str))"
        )
        python = REPOSITORY / ".run" / "airflow-env" / "bin" / "python"
        done = subprocess.run(
            [python, "-c", program, path, query], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def client_rows(self, client: str, query: str) -> list[tuple[Any, ...]]:
        """Ask a client's own Postgres database something."""
        server = sqlalchemy.make_url(self["DATABASE_URL"])
        with (
            closing(
                psycopg2.connect(
                    host=server.host,
                    port=server.port,
                    dbname=place_of(client),
                    user="postgres",
                    password=(self.directory / "postgres" / "superuser.password").read_text(),
                )
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(query)
            return cursor.fetchall()

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Stop one part of the stack, and its children, for as long as the block lasts."""
        process = self._process(name)
        found = [process, *process.children(recursive=True)]
        for each in found:
            each.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for each in found:
                each.send_signal(signal.SIGCONT)


@pytest.fixture(scope="session")
def stack(run_dir: Path) -> Iterator[Stack]:
    """Start the stack on ports and in a folder of this session's own."""
    # The client's own DAG is there too, as if this were a client's Airflow as well.
    with started(run_dir / "stack", STACK_CLIENT_SIDE="1") as found:
        yield found


@contextmanager
def started(directory: Path, **more: str) -> Iterator[Stack]:
    """Run a stack for as long as the block lasts."""
    variables = {**os.environ, "PORT_BASE": str(_free_ports()), "STACK_DIR": str(directory)}
    # The factory's DAGs, and two whose tasks ask for connections.
    variables["STACK_DAGS_DIR"] = str(Path(__file__).parent / "dags")
    variables |= more
    command = [sys.executable, "-m", "deploy.local"]
    up = subprocess.run(
        [*command, "up"],
        env=variables,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        text = (directory.parent / "stack.env").read_text()
        values = dict(
            each.split("=", 1) for each in shlex.split(text, comments=True) if "=" in each
        )
        yield Stack(values, directory)
    finally:
        subprocess.run([*command, "down"], env=variables, cwd=REPOSITORY, check=True)


def _free_ports() -> int:
    """Return the first of four neighbouring free ports."""
    for base in range(21_000, 30_000, 50):
        try:
            for port in range(base, base + 4):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    raise AssertionError("no free ports")
