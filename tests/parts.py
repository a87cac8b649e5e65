"""Real parts for every test: Postgres, OpenLDAP, the application and its landing zone.

Servers are started once a session; each test gets a database of its own, cloned from a migrated
template, and an empty landing zone. Nothing of ours is patched.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import psycopg2
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from deploy.local import directory as local_directory
from deploy.local import postgres as local_postgres
from deploy.local.directory import Directory as DirectoryServer
from deploy.local.postgres import Postgres
from gateway import database, settings
from gateway.identity import keys
from tests import nursery as nurseries
from tests.nursery import REPOSITORY, Child, Nursery

if TYPE_CHECKING:
    from gateway.bootstrap import Services

MEMORY = Path("/dev/shm")
MEMORY_BYTES = 1024**3
_numbers = itertools.count(1)


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def run_dir() -> Iterator[Path]:
    """A short path: socket names below it are limited to about a hundred characters."""
    with tempfile.TemporaryDirectory(prefix="gw-test-") as path:
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.fixture(scope="session")
def quick_dir(run_dir: Path) -> Iterator[Path]:
    """A folder for what no test asks to be durable: in memory, where the machine has enough."""
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < MEMORY_BYTES:
        yield run_dir
        return
    for left in MEMORY.glob("gw-test-*-*"):  # memory is not given back by the killed
        if not psutil.pid_exists(int(left.name.split("-")[2])):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"gw-test-{os.getpid()}-", dir=MEMORY) as path:
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.fixture(scope="session")
def postgres_server(quick_dir: Path) -> Iterator[Postgres]:
    """A private Postgres, without fsync."""
    with local_postgres.start(quick_dir / "postgres", free_port(), fsync=False) as server:
        yield server


@pytest.fixture(scope="session")
def directory_server(quick_dir: Path) -> Iterator[DirectoryServer]:
    """A private slapd with the demo's accounts and groups. Tests leave it as they found it."""
    with local_directory.start(quick_dir / "directory", free_port()) as server:
        yield server


@pytest.fixture(scope="session")
def template_database(postgres_server: Postgres) -> str:
    """The name of a migrated, empty database."""
    url = postgres_server.create_database("template", "gateway", "gateway")
    config = Config(REPOSITORY / "alembic.ini")
    engine = create_engine(url)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()
    return "template"


class Databases:
    """Makes copies of the template.

    Postgres waits a tenth of a second before it drops a database whose last connections are just
    being closed: each is dropped when the next is asked for.
    """

    def __init__(self, server: Postgres, template: str, strategy: str) -> None:
        self._server = server
        self._how = f"TEMPLATE {template} OWNER gateway STRATEGY {strategy}"
        self._connection = psycopg2.connect(server.superuser_url.replace("+psycopg2", ""))
        self._connection.autocommit = True
        self._ended: list[str] = []

    @contextmanager
    def one(self) -> Iterator[str]:
        """Make a database that lasts as long as the block, and yield its URL."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        with self._connection.cursor() as cursor:
            while self._ended:
                cursor.execute(f"DROP DATABASE {self._ended.pop()} WITH (FORCE)")
            cursor.execute(f"CREATE DATABASE {name} {self._how}")
        yield local_postgres.url("gateway", "gateway", self._server.port, name)
        self._ended.append(name)

    @contextmanager
    def away(self, url: str) -> Iterator[None]:
        """Let nobody into a database while the block runs, and who was in it out."""
        name = url.rsplit("/", 1)[1]
        with self._connection.cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
                [name],
            )
            try:
                yield
            finally:
                cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    def close(self) -> None:
        """Leave the rest to the server's own end."""
        self._connection.close()


@pytest.fixture(scope="session")
def databases(
    postgres_server: Postgres, template_database: str, quick_dir: Path
) -> Iterator[Databases]:
    """Where each test's database comes from."""
    # Copied files are quicker than a copied log, but where each has to be made on a disk.
    strategy = "FILE_COPY" if quick_dir.is_relative_to(MEMORY) else "WAL_LOG"
    made = Databases(postgres_server, template_database, strategy)
    yield made
    made.close()


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """The URL of a database of this test's own."""
    with databases.one() as url:
        yield url


@pytest.fixture(scope="session")
def keys_dir(run_dir: Path) -> Path:
    """A directory with one signing key."""
    path = run_dir / "keys"
    path.mkdir(mode=0o700)
    keys.rotate(path)
    return path


@pytest.fixture
def environment(
    database_url: str, directory_server: DirectoryServer, keys_dir: Path, tmp_path: Path
) -> dict[str, str]:
    """The variables a gateway of this test's own is configured by."""
    landing = tmp_path / "landing"
    landing.mkdir(mode=0o750)
    return {
        "GATEWAY_DATABASE_URL": database_url,
        "GATEWAY_DATABASE_POOL_SIZE": "10",
        "GATEWAY_LDAP_URL": directory_server.url,
        "GATEWAY_LDAP_CA_PATH": str(directory_server.ca_path),
        "GATEWAY_LDAP_BIND_DN": directory_server.bind_dn,
        "GATEWAY_LDAP_BIND_PASSWORD": directory_server.bind_password,
        "GATEWAY_LDAP_BASE_DN": directory_server.base_dn,
        "GATEWAY_TOKENS_ISSUER": "http://gateway.test",
        "GATEWAY_TOKENS_KEYS_DIR": str(keys_dir),
        "GATEWAY_LANDING_ROOT": str(landing),
        "GATEWAY_LANDING_MIN_FREE_BYTES": "0",
        "GATEWAY_AIRFLOW_URL": "http://127.0.0.1:9",
        "GATEWAY_AIRFLOW_REGISTRY_PATH": str(tmp_path / "registry.json"),
        "GATEWAY_LOG_LEVEL": "warning",
    }


@pytest.fixture
def config(environment: dict[str, str]) -> settings.Settings:
    """The settings read from ``environment``."""
    return settings.load(environment)


@pytest.fixture
def services(config: settings.Settings) -> Iterator[Services]:
    """The gateway's parts, as the worker and the commands have them."""
    from gateway import bootstrap

    built = bootstrap.build(config)
    yield built
    built.close()


@pytest.fixture
def sessions(config: settings.Settings) -> Iterator[sessionmaker[Session]]:
    """The factory of sessions on this test's database."""
    engine = database.connect(config.database)
    yield database.sessions(engine)
    engine.dispose()


@pytest.fixture
def client(config: settings.Settings) -> Iterator[TestClient]:
    """The application, spoken to in process."""
    from gateway.app import create_app

    with TestClient(create_app(config), raise_server_exceptions=False) as speaker:
        yield speaker


@pytest.fixture
def token(client: TestClient, directory_server: DirectoryServer) -> Callable[[str], str]:
    """Return a function that signs an account of the directory in, as it would itself."""

    def sign_in(user: str, **fields: str) -> str:
        password = directory_server.passwords[user]
        is_service = user in local_directory.SERVICES
        form = {"grant_type": "client_credentials"} if is_service else {"grant_type": "password"}
        person = {} if is_service else {"username": user, "password": password}
        basic = (user, password) if is_service else None
        answer = client.post("/v1/token", data={**form, **person, **fields}, auth=basic)  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        issued: str = answer.json()["access_token"]
        return issued

    return sign_in


@pytest.fixture
def bearer(token: Callable[[str], str]) -> Callable[[str], dict[str, str]]:
    """Return a function that gives an account's Authorization header."""
    return lambda user: {"Authorization": f"Bearer {token(user)}"}


@pytest.fixture(scope="session")
def session_nursery(run_dir: Path) -> Iterator[Nursery]:
    """Where every process of the gateway is born."""
    with nurseries.opened(run_dir / "nursery.log") as opened:
        yield opened


@pytest.fixture
def nursery(session_nursery: Nursery) -> Iterator[Nursery]:
    """Start processes of the gateway; those left at the end of the test are killed."""
    with session_nursery.brood() as mine:
        yield mine


@dataclass
class GatewayServer:
    """A gateway in a process of its own, which may be killed, stopped and traced."""

    port: int
    process: subprocess.Popen[bytes] | Child
    log: Path

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self.process.pid

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in order; anything but a clean end is an error."""
        self.process.terminate()
        assert self.process.wait(timeout=30) in {0, -15}, self.log.read_text()


def serve(
    nursery: Nursery, environment: dict[str, str], directory: Path, *, port: int | None = None
) -> GatewayServer:
    """Start ``gateway serve`` and wait until it is alive."""
    port = port or free_port()
    log = directory / f"serve-{port}.log"
    process = nursery.start(["serve"], {**environment, "GATEWAY_SERVER_PORT": str(port)}, log)
    return _alive(GatewayServer(port, process, log))


def start_server(environment: dict[str, str], directory: Path) -> GatewayServer:
    """Start ``gateway serve`` as an operator does, with all its imports: it takes seconds."""
    port = free_port()
    log = directory / f"serve-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve"],
            env={**os.environ, **environment, "GATEWAY_SERVER_PORT": str(port)},
            cwd=REPOSITORY,
            stdout=output,
            stderr=output,
        )
    return _alive(GatewayServer(port, process, log))


def _alive(server: GatewayServer) -> GatewayServer:
    """Return a server once it answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.log.read_text()
        try:
            if httpx.get(f"{server.url}/healthz", verify=False).status_code == 200:
                return server
        except httpx.TransportError:
            time.sleep(0.02)
    server.kill()
    raise AssertionError(server.log.read_text())


@pytest.fixture
def server(
    nursery: Nursery, environment: dict[str, str], tmp_path: Path
) -> Iterator[GatewayServer]:
    """A real server on this test's own database and landing zone."""
    started = serve(nursery, environment, tmp_path)
    yield started
    if started.process.poll() is None:
        started.stop()
