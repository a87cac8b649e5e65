"""A gateway for these tests, run by the gateway's own environment: ends with its parent.

Says where it is and as whom to come; then takes a line of JSON for each job that is to end as if
its run in Airflow had, and answers with the job's state.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, sessionmaker

from deploy.local import directory, postgres
from deploy.local.directory import Directory
from gateway import database, settings
from gateway.identity import keys
from gateway.jobs import states
from gateway.jobs.model import Job
from tests import factories
from tests.jobs import making
from tests.nursery import REPOSITORY
from tests.parts import free_port, start_server


def main(folder: Path) -> None:
    """Start everything, say so, and do as told until standard input is closed."""
    with (
        postgres.start(folder / "postgres", free_port(), fsync=False) as server,
        directory.start(folder / "directory", free_port()) as accounts,
    ):
        url = server.create_database("gateway", "gateway", "gateway")
        _migrate(url)
        variables = _variables(folder, url, accounts)
        engine = database.connect(settings.load(variables).database)
        sessions = database.sessions(engine)
        factories.onboard(sessions, open_batches=500)
        running = start_server(variables, folder)
        _say({"url": running.url, "passwords": accounts.passwords})
        for line in sys.stdin:
            _say({"state": _end(sessions, **json.loads(line))})
        running.stop()
        engine.dispose()


def _end(
    sessions: sessionmaker[Session], job: str, *, rejected: int = 0, failed: bool = False
) -> str:
    found = making.now(sessions, Job(id=job))
    said: dict[str, Any] = {"rows": making.rows(100, 100 - rejected, rejected)}
    if failed:
        said |= {"state": "failed", "error": {"code": "corrupt-archive", "detail": "no archive"}}
    making.report(sessions, found, rejects=making.rejects(rejected, value="v\x1b[2J"), **said)
    if not failed:
        making.report(sessions, found, step="publish")
    with sessions.begin() as session:
        ended = states.finish(session, job, "failed" if failed else "success")
        return ended.state if ended else "?"


def _migrate(url: str) -> None:
    config = Config(REPOSITORY / "alembic.ini")
    engine = create_engine(url)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()


def _variables(folder: Path, url: str, accounts: Directory) -> dict[str, str]:
    for name in ("landing", "keys"):
        (folder / name).mkdir(mode=0o700)
    keys.rotate(folder / "keys")
    return {
        "GATEWAY_DATABASE_URL": url,
        "GATEWAY_LDAP_URL": accounts.url,
        "GATEWAY_LDAP_CA_PATH": str(accounts.ca_path),
        "GATEWAY_LDAP_BIND_DN": accounts.bind_dn,
        "GATEWAY_LDAP_BIND_PASSWORD": accounts.bind_password,
        "GATEWAY_LDAP_BASE_DN": accounts.base_dn,
        "GATEWAY_TOKENS_ISSUER": "http://gateway.test",
        "GATEWAY_TOKENS_KEYS_DIR": str(folder / "keys"),
        "GATEWAY_LANDING_ROOT": str(folder / "landing"),
        "GATEWAY_LANDING_MIN_FREE_BYTES": "0",
        "GATEWAY_AIRFLOW_URL": "http://127.0.0.1:9",
        "GATEWAY_AIRFLOW_REGISTRY_PATH": str(folder / "registry.json"),
        "GATEWAY_LOG_LEVEL": "warning",
    }


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # Alembic and the servers may talk; what is said here is for the parent alone.
    own = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(own, "w")
    main(Path(sys.argv[1]))
