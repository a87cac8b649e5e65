"""The peers: how each is started, as shipped, and how a file is sent to it."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.bench import install, servers
from deploy.bench.driving import STORE
from deploy.bench.install import ENVIRONMENT
from deploy.bench.servers import Door, Server
from deploy.bench.wire import Request
from deploy.local import debian, programs
from deploy.local.processes import LOOPBACK
from deploy.local.programs import ROOT, StackError, Words

TUSPYSERVER = "tuspyserver"
TUS_NODE = "@tus/server"
SFTP = "OpenSSH sftp"
NGINX = "nginx DAV"
COPYPARTY = "copyparty"
UPLOAD_FILE = "FastAPI UploadFile"


@contextmanager
def tuspyserver() -> Iterator[Server]:
    """Start tuspyserver under uvicorn."""
    with _uvicorn("tuspyserver", "deploy.bench.apps.tus:app") as server:
        yield server


@contextmanager
def upload_file(database_url: str) -> Iterator[Server]:
    """Start the ``UploadFile`` endpoints under uvicorn."""
    app = "deploy.bench.apps.upload_file:app"
    with _uvicorn("upload-file", app, DATABASE_URL=database_url) as server:
        yield server


@contextmanager
def _uvicorn(name: str, app: str, **variables: object) -> Iterator[Server]:
    python, port = ENVIRONMENT.python, servers.free_port()
    _require(python, "the peers' Python environment")
    env = servers.environment(FILES_DIR=servers.files_folder(name), **variables)
    words: Words = [python, "-m", "uvicorn", app, "--host", LOOPBACK, "--port", str(port)]
    with servers.running(name, words, port, env=env, cwd=ROOT) as server:
        yield server


@contextmanager
def tus_node() -> Iterator[Server]:
    """Start @tus/server."""
    program, port = install.TUS_SERVER / "tus-server.mjs", servers.free_port()
    _require(install.TUS_SERVER / "node_modules", TUS_NODE)
    words: Words = [install.NODE, program, str(port), servers.files_folder("tus-node")]
    with servers.running("tus-node", words, port, cwd=install.TUS_SERVER) as server:
        yield server


@contextmanager
def copyparty() -> Iterator[Server]:
    """Start copyparty with one volume that anyone may write to."""
    port, folder = servers.free_port(), servers.files_folder("copyparty")
    _require(ENVIRONMENT.python, "the peers' Python environment")
    words: Words = [ENVIRONMENT.python, "-m", "copyparty", "-i", LOOPBACK, "-p", str(port)]
    words += ["-v", f"{folder}::rw", "-q"]
    with servers.running("copyparty", words, port, cwd=STORE) as server:
        yield server


NGINX_CONF = """\
daemon off; pid {store}/nginx.pid; worker_processes auto; {user}
events {{ worker_connections 768; }}
http {{
    access_log {store}/nginx-access.log;
    sendfile on; tcp_nopush on; default_type application/octet-stream;
    client_body_temp_path {store}/nginx-bodies;
    proxy_temp_path {store}/nginx-t1; fastcgi_temp_path {store}/nginx-t2;
    uwsgi_temp_path {store}/nginx-t3; scgi_temp_path {store}/nginx-t4;
    server {{
        listen {address};
        location / {{ root {folder}; dav_methods PUT DELETE; client_max_body_size 0; }}
    }}
}}
"""


@contextmanager
def nginx() -> Iterator[Server]:
    """Start nginx with its own DAV module."""
    program, port = install.program("nginx"), servers.free_port()
    user = "user root;" if getpass.getuser() == "root" else ""
    folder, conf = servers.files_folder("nginx"), STORE / "nginx.conf"
    address = f"{LOOPBACK}:{port}"
    text = NGINX_CONF.format(store=STORE, user=user, folder=folder, address=address)
    conf.write_text(text)
    words: Words = [program, "-p", STORE, "-e", STORE / "nginx-error.log", "-c", conf]
    with servers.running("nginx", words, port, env=_of_debian(program)) as server:
        yield server


SSHD_CONF = """\
ListenAddress {address}
HostKey {store}/ssh-host-key
AuthorizedKeysFile {store}/ssh-user-key.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
Subsystem sftp {sftp_server}
"""


@contextmanager
def sshd() -> Iterator[Server]:
    """Start OpenSSH's server with keys of its own."""
    program, port = install.program("sshd"), servers.free_port()
    _prepare_sshd()
    sftp_server = program.parents[1] / "lib/openssh/sftp-server"
    conf = STORE / "sshd.conf"
    address = f"{LOOPBACK}:{port}"
    conf.write_text(SSHD_CONF.format(store=STORE, address=address, sftp_server=sftp_server))
    words: Words = [program, "-D", "-e", "-f", conf]
    with servers.running("sftp", words, port, env=_of_debian(program)) as server:
        yield server


def _prepare_sshd() -> None:
    for name in ("ssh-host-key", "ssh-user-key"):
        (STORE / name).unlink(missing_ok=True)
        words: Words = ["-q", "-t", "ed25519", "-N", "", "-f", STORE / name]
        programs.run([install.program("ssh-keygen"), *words], "ssh-keygen failed")
    if getpass.getuser() == "root":
        # What the package's own installation does; an unprivileged sshd needs neither.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        if "\nsshd:" not in Path("/etc/passwd").read_text():
            words = ["--system", "--no-create-home", "--home-dir", "/run/sshd"]
            words += ["--shell", "/usr/sbin/nologin", "sshd"]
            programs.run([programs.find("useradd"), *words], "no user for sshd")


def _of_debian(program: Path) -> dict[str, str]:
    is_unpacked = program.is_relative_to(install.UNPACKED)
    root = install.UNPACKED if is_unpacked else Path("/")
    return {**servers.environment(), **debian.environment(root)}


def _require(path: Path, title: str) -> None:
    if not path.exists():
        message = f"{title} is not installed"
        raise StackError(message)


class UploadFile(Door):
    """A multipart form with one file."""

    def __init__(self, server: Server, path: str) -> None:
        super().__init__(server)
        self.path = path

    def requests(self, place: str, name: str, size_bytes: int) -> list[Request]:
        """Return the one POST."""
        parts = servers.multipart(name, size_bytes)
        headers = {"Content-Type": servers.MULTIPART}
        return [Request("POST", f"/{self.path}/{place}", headers, expected=200, **parts)]


class Put(Door):
    """A plain PUT to a path."""

    def requests(self, place: str, name: str, size_bytes: int) -> list[Request]:
        """Return the one PUT."""
        return [Request("PUT", f"/{place}/{name}", length=size_bytes)]


class PutThenPromise(Put):
    """A plain PUT, then ``sha256sum`` and fsync of what was stored."""

    def job(
        self, source: Path, place: str, names: Sequence[str], size_bytes: int
    ) -> dict[str, Any]:
        """Return the job with what the server left undone."""
        given = super().job(source, place, names, size_bytes)
        return {**given, "then": str(self.stored(place, names)[0])}


class Sftp(Door):
    """OpenSSH's own client: the one that does not speak HTTP."""

    def requests(self, place: str, name: str, size_bytes: int) -> list[Request]:
        """Return nothing: the other client makes its own."""
        raise NotImplementedError

    def job(
        self, source: Path, place: str, names: Sequence[str], size_bytes: int
    ) -> dict[str, Any]:
        """Return a job that runs ``sftp``."""
        if size_bytes < source.stat().st_size:  # it sends whole files only
            short = STORE / "sftp-short"
            with source.open("rb") as whole:
                short.write_bytes(whole.read(size_bytes))
            source = short
        script = STORE / "sftp-commands"
        puts = [f"put {source} {path}\n" for path in self.stored(place, names)]
        script.write_text("".join(puts))
        sftp = install.program("sftp")
        options: Words = [
            "-q",
            "-P",
            str(self.server.port),
            "-i",
            STORE / "ssh-user-key",
            "-b",
            script,
        ]
        for each in ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes"):
            options += ["-o", each]
        words: Words = [
            sftp,
            "-S",
            install.program("ssh"),
            *options,
            f"{getpass.getuser()}@{LOOPBACK}",
        ]
        return {"kind": "program", "argv": [str(word) for word in words]}
