"""The gateway's processes and the operator's commands that prepare them."""

from __future__ import annotations

from http import HTTPStatus

from deploy.local import environments, layout, processes, programs
from deploy.local.directory import Directory
from deploy.local.layout import Ports
from deploy.local.processes import LOOPBACK
from deploy.local.programs import ROOT

PROGRAM = environments.GATEWAY.path / "bin/gateway"
CLIENTS = [ROOT / "deploy/demo/acme.yaml", ROOT / "deploy/demo/globex.yaml"]


def environment(
    ports: Ports, directory: Directory, database_url: str, lessor_url: str
) -> dict[str, str]:
    """Return the variables of the gateway's processes.

    Parameters
    ----------
    lessor_url
        The Postgres that tasks get leases of, as the account that makes them.
    """
    password_file = layout.STACK / "ldap-bind.password"
    programs.write_secret(password_file, directory.bind_password)
    lessor_files = {name: layout.STACK / f"lessor-{name}.secret" for name in ("url", "ldap")}
    programs.write_secret(lessor_files["url"], lessor_url)
    programs.write_secret(lessor_files["ldap"], directory.lessor_password)
    given = {
        "DATABASE_URL": database_url,
        "LDAP_URL": directory.url,
        "LDAP_CA_PATH": directory.ca_path,
        "LDAP_BIND_DN": directory.bind_dn,
        "LDAP_BIND_PASSWORD_FILE": password_file,
        "LDAP_BASE_DN": directory.base_dn,
        "TOKENS_ISSUER": ports.gateway_url,
        "TOKENS_KEYS_DIR": layout.KEYS,
        "LANDING_ROOT": layout.LANDING,
        "AIRFLOW_URL": ports.airflow_url,
        "AIRFLOW_REGISTRY_PATH": layout.REGISTRY,
        "LEASES_LANDING": "path",
        "LEASES_POSTGRES_URL_FILE": lessor_files["url"],
        "LEASES_DIRECTORY_BIND_DN": directory.lessor_dn,
        "LEASES_DIRECTORY_BIND_PASSWORD_FILE": lessor_files["ldap"],
        "SERVER_HOST": LOOPBACK,
        "SERVER_PORT": ports.gateway,
        "LOG_LEVEL": "info",
    }
    variables = {f"GATEWAY_{name}": str(value) for name, value in given.items()}
    # This checkout's gateway, whichever checkout the environment was made from.
    return layout.clean_environment() | {"PYTHONPATH": str(ROOT)} | variables


def preparations() -> list[tuple[str, programs.Words]]:
    """Return the commands to run before the servers start, each with what it is for."""
    commands: list[tuple[str, programs.Words]] = [("database schema", [PROGRAM, "migrate"])]
    if not any(layout.KEYS.iterdir()):
        commands.append(("signing key", [PROGRAM, "keys", "rotate"]))
    commands.append(("clients acme and globex", [PROGRAM, "clients", "apply", *CLIENTS]))
    return commands


def is_ready(ports: Ports) -> bool:
    """Ask the gateway whether it and all it depends on are there."""
    status, _ = processes.get(ports.gateway, "/readyz")
    return status == HTTPStatus.OK
