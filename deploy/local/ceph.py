"""A private object store that speaks S3: Ceph's monitor, one OSD in memory, and its gateway.

Debian's packages are unpacked below ``.run/``, or the installed ones used. Everything listens on the
loopback interface and ends with the process that started it; what was stored is gone then.
"""

from __future__ import annotations

import platform
import secrets
import shutil
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

from obstore import sign
from obstore.store import S3Store

from deploy.local import debian, processes, programs
from deploy.local.lasting import Lasting
from deploy.local.processes import LOOPBACK
from deploy.local.programs import RUN_DIR, StackError

UNPACKED = RUN_DIR / "ceph"
PACKAGES = ("ceph-mon", "ceph-osd", "radosgw")
# The daemons run without these: they serve installed systems and Ceph's own tools in Python.
UNNEEDED = ("libblockdev", "libdevmapper", "liblvm", "libparted", "libnvme", "libpopt", "libinih")
REGION = "us-east-1"
ACCOUNT = "gateway"
LESSOR = "lessor"
MEMORY_BYTES = 4 * 1024**3

# No authentication within the cluster: it is alone on its loopback ports, and lives for a test. The
# short intervals make it ready in seconds.
_CONFIGURATION = """\
[global]
fsid = {cluster}
mon host = [v2:{host}:{monitor_port}/0]
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
run dir = {run_dir}
log file = {run_dir}/$name.log
mon cluster log file =
admin socket =
plugin dir = {libraries}/ceph
erasure code dir = {libraries}/ceph/erasure-code
osd class dir = {libraries}/rados-classes
public addr = {host}
osd objectstore = memstore
memstore device bytes = {memory_bytes}
osd data = {run_dir}/osd
mon data = {run_dir}/mon
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
paxos propose interval = 0.05
paxos min wait = 0.01
mon tick interval = 1
rgw thread pool size = 64
"""


@dataclass(frozen=True)
class Software:
    """The programs of Ceph, and what they need around them."""

    programs_dir: Path
    libraries: Path
    environment: dict[str, str] = field(default_factory=dict)


def ensure() -> Software:
    """Find the programs, downloading them first where there are none.

    Raises
    ------
    StackError
        They cannot be downloaded, or do not run on this machine.
    """
    for root in (Path("/"), UNPACKED):
        software = _below(root)
        if all((software.programs_dir / each).exists() for each in PACKAGES):
            return software
    wanted = [*PACKAGES, "ceph-base", "ceph-common"]
    debian.unpack(wanted, UNPACKED, title="Ceph", unneeded=UNNEEDED)
    failure = "Ceph was downloaded but does not run"
    programs.run(
        [software.programs_dir / "radosgw", "--version"], failure, env=software.environment
    )
    return software


def _below(root: Path) -> Software:
    machine = f"{platform.machine()}-linux-gnu"
    libraries = root / "usr/lib" / machine
    environment = debian.environment(root)
    if "LD_LIBRARY_PATH" in environment:
        environment["LD_LIBRARY_PATH"] += f":{libraries / 'ceph'}"
    return Software(root / "usr/bin", libraries, environment)


@dataclass
class ObjectStore(Lasting):
    """A running store with one account.

    The gateway alone can be killed and started again: what is stored lies in the OSD.
    """

    port: int
    access_key_id: str
    secret_access_key: str
    run_dir: Path
    software: Software
    cluster: list[subprocess.Popen[bytes]]
    gateway: subprocess.Popen[bytes] | None = None
    # With it the store seals the session tokens it gives out.
    token_key: str = field(default_factory=lambda: secrets.token_hex(8))
    _lessor: tuple[str, str] | None = None

    @property
    def endpoint(self) -> str:
        """Base URL of the S3 API."""
        return f"http://{LOOPBACK}:{self.port}"

    def create_bucket(self, name: str) -> None:
        """Make a bucket."""
        store = S3Store(
            name,
            endpoint=self.endpoint,
            region=REGION,
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
            client_options={"allow_http": True},
        )
        address = sign(store, "PUT", "", timedelta(minutes=1))
        with build_opener(ProxyHandler({})).open(Request(address, method="PUT"), timeout=30):  # noqa: S310
            pass

    def lessor(self) -> tuple[str, str]:
        """Return the keys of the account that makes leases, and the users their roles trust."""
        if self._lessor is None:
            self._lessor = (secrets.token_hex(10).upper(), secrets.token_urlsafe(30))
            keys = [f"--access-key={self._lessor[0]}", f"--secret={self._lessor[1]}"]
            words = [f"--uid={LESSOR}", "--display-name=lessor", "--caps=users=*;roles=*"]
            self._administer("user", "create", *words, *keys)
        return self._lessor

    def limit(self, size_bytes: int | None) -> None:
        """Give the account a quota, or none; the store may notice after a moment."""
        scope = ["--quota-scope=user", f"--uid={ACCOUNT}"]
        if size_bytes is None:
            self._administer("quota", "disable", *scope)
        else:
            self._administer("quota", "set", *scope, f"--max-size={size_bytes}")
            self._administer("quota", "enable", *scope)

    def serve(self) -> None:
        """Start the gateway, or start it again."""
        log = self.run_dir / "gateway.log"
        argv: programs.Words = [self.software.programs_dir / "radosgw", "-f", "-n", "client.rgw"]
        # Without tcp_nodelay every answer waits 40 ms for an acknowledgement.
        front = f"beast endpoint={LOOPBACK}:{self.port} tcp_nodelay=1"
        quota = ["--rgw-bucket-quota-ttl=0", "--rgw-user-quota-bucket-sync-interval=1"]
        sts = ["--rgw-s3-auth-use-sts=true", f"--rgw-sts-key={self.token_key}"]
        argv += [f"--conf={self.run_dir / 'ceph.conf'}", f"--rgw-frontends={front}", *quota, *sts]
        process = processes.start(
            argv, log, env=self.software.environment, cwd=self.run_dir, death_signal="KILL"
        )
        self.gateway = process
        processes.wait_until(
            lambda: processes.get(self.port, "/")[0] != 0, process, name="radosgw", log=log
        )

    def kill(self) -> None:
        """End the gateway at once, as a crash would."""
        if self.gateway is not None:
            processes.kill(self.gateway)

    def pause(self) -> None:
        """Freeze the gateway: connections are accepted by the kernel, nothing answers."""
        if self.gateway is not None:
            self.gateway.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen gateway go on."""
        if self.gateway is not None:
            self.gateway.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End everything; nothing in it is worth an orderly end."""
        self.kill()
        for process in self.cluster:
            processes.kill(process)
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def _administer(self, *words: str) -> None:
        argv: programs.Words = [self.software.programs_dir / "radosgw-admin", *words]
        argv.append(f"--conf={self.run_dir / 'ceph.conf'}")
        programs.run(argv, "radosgw-admin failed", env=self.software.environment)

    def _create_account(self) -> None:
        # On the command line of a short-lived process, in a store that lives for a test.
        keys = [f"--access-key={self.access_key_id}", f"--secret={self.secret_access_key}"]
        self._administer("user", "create", f"--uid={ACCOUNT}", "--display-name=gateway", *keys)


def start(run_dir: Path, port: int, monitor_port: int) -> ObjectStore:
    """Start an empty store below ``run_dir``.

    Raises
    ------
    StackError
        Ceph cannot be had, a port is taken, or it does not start.
    """
    software = ensure()
    for each in (port, monitor_port):
        processes.require_free(each)
    for folder in ("mon", "osd"):
        (run_dir / folder).mkdir(parents=True)
    key, secret = secrets.token_hex(10).upper(), secrets.token_urlsafe(30)
    store = ObjectStore(port, key, secret, run_dir, software, [])
    try:
        _start_cluster(store, monitor_port)
        store._create_account()  # noqa: SLF001 - same module
        store.serve()
    except BaseException:
        store.stop()
        raise
    return store


def _start_cluster(store: ObjectStore, monitor_port: int) -> None:
    run_dir, cluster = store.run_dir, str(uuid.uuid4())
    values = {"cluster": cluster, "host": LOOPBACK, "monitor_port": monitor_port}
    values |= {"run_dir": run_dir, "libraries": store.software.libraries}
    text = _CONFIGURATION.format(**values, memory_bytes=MEMORY_BYTES)
    (run_dir / "ceph.conf").write_text(text)
    address = f"[v2:{LOOPBACK}:{monitor_port}/0]"
    monitors = run_dir / "monmap"
    _run(store, "monmaptool", "--create", "--fsid", cluster, "--addv", "a", address, monitors)
    conf = f"--conf={run_dir / 'ceph.conf'}"
    _run(store, "ceph-mon", conf, "--mkfs", "-i", "a", "--monmap", monitors)
    _start(store, "ceph-mon", conf, "-i", "a", "-f")
    # The first OSD that comes with an id and a name of its own is taken in by the monitor.
    _run(store, "ceph-osd", conf, "-i", "0", "--mkfs", "--osd-uuid", str(uuid.uuid4()))
    _start(store, "ceph-osd", conf, "-i", "0", "-f")


def _run(store: ObjectStore, program: str, *words: str | Path) -> None:
    argv: programs.Words = [store.software.programs_dir / program, *words]
    programs.run(argv, f"{program} failed", env=store.software.environment)


def _start(store: ObjectStore, program: str, *words: str) -> None:
    argv: programs.Words = [store.software.programs_dir / program, *words]
    log = store.run_dir / f"{program}.out"
    environment = store.software.environment
    process = processes.start(argv, log, env=environment, cwd=store.run_dir, death_signal="KILL")
    store.cluster.append(process)


def main() -> None:
    """Bring the programs in, or say in one line why not."""
    try:
        ensure()
    except StackError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
