"""The gateway's processes and the operator's commands that prepare them."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

from deploy.local import environments, layout, processes, programs, spark
from deploy.local.directory import Directory
from deploy.local.layout import Ports, Secrets
from deploy.local.processes import LOOPBACK
from deploy.local.programs import ROOT

PROGRAM = environments.GATEWAY.path / "bin/gateway"
CLIENTS = [ROOT / "deploy/demo/acme.yaml", ROOT / "deploy/demo/globex.yaml"]


def environment(
    ports: Ports, secrets: Secrets, directory: Directory, database_url: str, lessor_url: str
) -> dict[str, str]:
    """Return the variables of the gateway's processes.

    Parameters
    ----------
    lessor_url
        The Postgres that tasks get leases of, as the account that makes them.
    """
    password_file = layout.STACK / "ldap-bind.password"
    programs.write_secret(password_file, directory.bind_password)
    applications_file = layout.STACK / "applications.json"
    programs.write_secret(applications_file, json.dumps([_airflow(ports, secrets)]))
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
        "SIGNON_APPLICATIONS_FILE": applications_file,
        "LANDING_ROOT": layout.LANDING,
        "AIRFLOW_URL": ports.airflow_url,
        "AIRFLOW_REGISTRY_PATH": layout.REGISTRY,
        "LEASES_LANDING": "path",
        "LEASES_POSTGRES_URL_FILE": lessor_files["url"],
        "LEASES_DIRECTORY_BIND_DN": directory.lessor_dn,
        "LEASES_DIRECTORY_BIND_PASSWORD_FILE": lessor_files["ldap"],
        "PIPELINE_COMMAND": shlex.join(_pipeline()),
        "PIPELINE_ENGINES": "local,spark" if spark.is_wanted() else "local",
        "SERVER_HOST": LOOPBACK,
        "SERVER_PORT": ports.gateway,
        "LOG_LEVEL": "info",
    }
    variables = {f"GATEWAY_{name}": str(value) for name, value in given.items()}
    # This checkout's gateway, whichever checkout the environment was made from.
    return layout.clean_environment() | {"PYTHONPATH": str(ROOT)} | variables | _more()


def _more() -> dict[str, str]:
    """Return what ``STACK_GATEWAY_ENV`` adds: a file of ``GATEWAY_…=value`` lines."""
    path = os.environ.get("STACK_GATEWAY_ENV")
    lines = Path(path).read_text().splitlines() if path else []
    pairs = [line.partition("=") for line in lines if line.startswith("GATEWAY_")]
    return {name: value for name, _, value in pairs}


def _pipeline() -> list[str]:
    """Return what starts the pipeline's own programs, with the roots that its tasks have."""
    roots = {"LANDING": layout.LANDING, "STAGED": layout.STAGED, "CURATED": layout.CURATED}
    variables = [f"INGEST_{name}_DIR={root}" for name, root in roots.items()]
    path = f"PYTHONPATH={ROOT / 'airflow'}"
    return ["env", path, *variables, str(environments.AIRFLOW.python), "-m", "pipeline"]


def _airflow(ports: Ports, secrets: Secrets) -> dict[str, object]:
    """Return how the gateway knows Airflow as an application that people sign on to."""
    return {
        "client_id": "airflow",
        "name": "Airflow",
        "audience": "airflow",
        "secret": secrets.airflow_signon,
        "redirect_uris": [f"{ports.airflow_url}/auth/callback"],
    }


def preparations(clients: Sequence[Path]) -> list[tuple[str, programs.Words]]:
    """Return the commands to run before the servers start, each with what it is for."""
    commands: list[tuple[str, programs.Words]] = [("database schema", [PROGRAM, "migrate"])]
    if not any(layout.KEYS.iterdir()):
        commands.append(("signing key", [PROGRAM, "keys", "rotate"]))
    commands.append(("clients acme and globex", [PROGRAM, "clients", "apply", *clients]))
    return commands


def is_ready(ports: Ports) -> bool:
    """Ask the gateway whether it and all it depends on are there."""
    status, _ = processes.get(ports.gateway, "/readyz")
    return status == HTTPStatus.OK
