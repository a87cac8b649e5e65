"""A private OpenLDAP server on a loopback port, TLS only, filled from `deploy/ldap/`."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import shutil
import signal
import socket
import ssl
import string
import subprocess
from dataclasses import dataclass
from pathlib import Path

from deploy.local import certificates, openldap, processes, programs
from deploy.local.lasting import Lasting
from deploy.local.processes import LOOPBACK

TEMPLATES = Path(__file__).parent.parent / "ldap"
BASE_DN = "dc=gateway,dc=test"
ROOT_DN = f"cn=root,{BASE_DN}"
GATEWAY_DN = f"cn=gateway,ou=services,{BASE_DN}"
LESSOR_DN = f"cn=lessor,ou=services,{BASE_DN}"
SERVICES = ("acme-uploader", "globex-uploader", "svc-airflow", "svc-airflow-api")
PEOPLE = ("acme-operator", "acme-viewer", "globex-operator", "auditor", "admin")


class _Template(string.Template):
    """``${name}``, where names may hold dashes, as accounts do."""

    braceidpattern = r"[a-z][a-z_-]*"


@dataclass
class Directory(Lasting):
    """A running directory.

    Attributes
    ----------
    bind_dn, bind_password
        The gateway's own account: reads everything but passwords.
    admin_dn, admin_password
        The server's root account: may change everything.
    lessor_dn, lessor_password
        The account that makes and ends the accounts of leases.
    passwords
        Password of every account in the seed, by ``uid``.
    """

    url: str
    ca_path: Path
    bind_password: str
    admin_password: str
    lessor_password: str
    passwords: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes]
    base_dn: str = BASE_DN
    bind_dn: str = GATEWAY_DN
    admin_dn: str = ROOT_DN
    lessor_dn: str = LESSOR_DN

    def stop(self) -> None:
        """End the server in order."""
        processes.stop(self.process)

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        processes.kill(self.process)

    def pause(self) -> None:
        """Freeze the server: connections are accepted by the kernel, nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on."""
        self.process.send_signal(signal.SIGCONT)


def start(run_dir: Path, port: int) -> Directory:
    """Start a directory whose data lies below `run_dir`, seeding it when it is new.

    Parameters
    ----------
    run_dir
        Kept between starts: data, certificates, passwords (mode 0600). Changed seed
        files replace the data.

    Raises
    ------
    StackError
        slapd is missing, the port is taken, or the server does not start.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    run_dir = run_dir.resolve()
    processes.require_free(port)
    software = openldap.find()
    passwords = _passwords(run_dir / "passwords.json")
    certificates.ensure(run_dir / "tls")
    _configure(run_dir, software, passwords["root"])
    _seed(run_dir, software, passwords)
    log = run_dir / "slapd.log"
    url = f"ldaps://{LOOPBACK}:{port}"
    # slapd reserves memory for every descriptor it may open: some machines allow a million.
    argv = [programs.find("prlimit"), "--nofile=4096:4096", "--", str(software.slapd)]
    argv += ["-f", str(run_dir / "slapd.conf"), "-h", f"{url}/", "-d", "none"]
    process = processes.start(argv, log, env=software.environment, cwd=run_dir)
    ca_path = run_dir / "tls" / "ca.pem"
    accounts = {uid: passwords[uid] for uid in (*SERVICES, *PEOPLE)}
    own = (passwords["gateway"], passwords["root"], passwords["lessor"])
    server = Directory(url, ca_path, *own, accounts, log, process)
    try:
        processes.wait_until(lambda: _answers(port, ca_path), process, name="slapd", log=log)
    except BaseException:
        server.kill()
        raise
    return server


def ssha(password: str) -> str:
    """Return a salted hash as OpenLDAP stores it."""
    salt = secrets.token_bytes(16)
    digest = hashlib.sha1(password.encode() + salt, usedforsecurity=False).digest()
    return "{SSHA}" + base64.b64encode(digest + salt).decode()


def _passwords(path: Path) -> dict[str, str]:
    known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    names = ("root", "gateway", "lessor", *SERVICES, *PEOPLE)
    missing = {name: secrets.token_urlsafe(15) for name in names if name not in known}
    if missing:
        programs.write_secret(path, json.dumps(known | missing, indent=2) + "\n")
    return known | missing


def _configure(run_dir: Path, software: openldap.Software, root_password: str) -> None:
    template = _Template((TEMPLATES / "slapd.conf.template").read_text())
    text = template.substitute(
        run_dir=run_dir,
        schema=software.schema_dir,
        modules=software.modules_dir,
        root_password_hash=ssha(root_password),
    )
    programs.write_secret(run_dir / "slapd.conf", text)


def _seed(run_dir: Path, software: openldap.Software, passwords: dict[str, str]) -> None:
    template = "\n".join(path.read_text() for path in sorted(TEMPLATES.glob("*.ldif")))
    version = hashlib.sha256(template.encode()).hexdigest()
    stamp = run_dir / "seeded"
    if stamp.exists() and stamp.read_text() == version:
        return
    shutil.rmtree(run_dir / "db", ignore_errors=True)
    (run_dir / "db").mkdir(mode=0o700)
    hashes = {name: ssha(password) for name, password in passwords.items()}
    programs.run(
        [software.slapadd, "-q", "-f", run_dir / "slapd.conf"],
        "the directory could not be seeded",
        text=_Template(template).substitute(hashes),
        env=software.environment,
    )
    stamp.write_text(version)


def _answers(port: int, ca_path: Path) -> bool:
    context = ssl.create_default_context(cafile=str(ca_path))
    try:
        with (
            socket.create_connection((LOOPBACK, port), timeout=2) as plain,
            context.wrap_socket(plain, server_hostname=LOOPBACK),
        ):
            return True
    except OSError:
        return False
