"""Where the stack keeps what, on which ports it listens, and its secrets."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from deploy.local import processes, programs
from deploy.local.processes import LOOPBACK
from deploy.local.programs import RUN_DIR, StackError

DEFAULT_PORT_BASE = 18800
# Another folder makes another stack, which can run beside this one on other ports.
STACK = Path(os.environ.get("STACK_DIR") or RUN_DIR / "stack").resolve()
LOGS = STACK / "logs"
LANDING = STACK / "landing"
STAGED = STACK / "staged"
CURATED = STACK / "curated"
KEYS = STACK / "keys"
REGISTRY = STACK / "registry.json"
STACK_ENV = STACK.parent / "stack.env"
# Environment variable that every process of this stack carries, so that a stray one is known.
MARK = ("INGESTION_STACK", str(STACK))


@dataclass(frozen=True)
class Ports:
    """The ports of one stack, all on loopback."""

    gateway: int
    airflow: int
    ldap: int
    postgres: int

    @classmethod
    def from_environment(cls) -> Self:
        """Take the ports that begin at ``PORT_BASE``.

        Raises
        ------
        StackError
            ``PORT_BASE`` is no usable port.
        """
        given = os.environ.get("PORT_BASE") or str(DEFAULT_PORT_BASE)
        if not given.isdecimal() or not 1024 <= int(given) <= 65_000:  # noqa: PLR2004
            message = f"PORT_BASE={given} is not a number from 1024 to 65000"
            raise StackError(message)
        return cls(*range(int(given), int(given) + 4))

    def require_free(self) -> None:
        """Refuse to go on when somebody else has one of them."""
        for port in (self.gateway, self.airflow, self.ldap, self.postgres):
            processes.require_free(port)

    @property
    def gateway_url(self) -> str:
        """Base URL of the gateway."""
        return f"http://{LOOPBACK}:{self.gateway}"

    @property
    def airflow_url(self) -> str:
        """Base URL of Airflow's API server."""
        return f"http://{LOOPBACK}:{self.airflow}"


@dataclass(frozen=True)
class Secrets:
    """Secrets of one stack, made once."""

    gateway_database: str
    airflow_database: str
    airflow_jwt: str
    airflow_session: str
    airflow_fernet: str
    lessor_database: str

    @classmethod
    def load(cls) -> Self:
        """Read the stack's secrets, making them first where there are none."""
        path = STACK / "secrets.json"
        known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        made = {name: secrets.token_urlsafe(48) for name in cls.__dataclass_fields__}
        made["airflow_fernet"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        # A stack of an earlier version may lack some.
        if not known.keys() >= made.keys():
            programs.write_secret(path, json.dumps(made | known, indent=2) + "\n")
        return cls(**json.loads(path.read_text()))


def empty() -> None:
    """Remove what clients delivered and what was made of it; accounts and secrets stay."""
    for folder in (LANDING, STAGED, CURATED):
        shutil.rmtree(folder, ignore_errors=True)
    REGISTRY.unlink(missing_ok=True)


def make_folders() -> None:
    """Make the stack's folders, closed to everybody else but for what Postgres must reach."""
    STACK.mkdir(parents=True, exist_ok=True)
    for folder in (LOGS, LANDING, STAGED, CURATED, KEYS):
        folder.mkdir(mode=0o700, exist_ok=True)


def clean_environment() -> dict[str, str]:
    """Return what every process of the stack starts with.

    Notes
    -----
    Nothing is taken over from the caller: proxies would be asked for loopback addresses, and
    a stray ``GATEWAY_*`` or ``AIRFLOW__*`` variable would change what is run.
    """
    name, value = MARK
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "HOME": str(STACK), "LC_ALL": "C.UTF-8", "TZ": "UTC", name: value}
