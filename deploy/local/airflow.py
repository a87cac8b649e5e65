"""Airflow as separate processes: API server, scheduler, DAG processor, triggerer."""

from __future__ import annotations

import hashlib
import json
import os
from http import HTTPStatus
from pathlib import Path

from deploy.local import environments, layout, processes, programs
from deploy.local.layout import Ports, Secrets
from deploy.local.processes import LOOPBACK
from deploy.local.programs import ROOT

HOME = layout.STACK / "airflow"
# Other DAGs than the factory's, for whoever tries some.
DAGS = os.environ.get("STACK_DAGS_DIR") or str(ROOT / "airflow/dags")
PROGRAM = environments.AIRFLOW.path / "bin/airflow"
API_SERVER = "airflow-api"
COMPONENTS = {
    # Logs are read from the shared folder: a log server would listen beyond loopback.
    API_SERVER: ["api-server"],
    "airflow-scheduler": ["scheduler", "--skip-serve-logs"],
    "airflow-dags": ["dag-processor"],
    "airflow-triggerer": ["triggerer", "--skip-serve-logs"],
}


def environment(ports: Ports, secrets: Secrets, database_url: str) -> dict[str, str]:
    """Return the variables of Airflow's processes."""
    folder = environments.AIRFLOW.path / "bin"
    base = layout.clean_environment()
    base["PATH"] = f"{folder}:{base['PATH']}"
    base["PYTHONPATH"] = f"{ROOT / 'airflow'}:{ROOT / 'airflow/plugins'}"
    base["AIRFLOW_HOME"] = str(HOME)
    configured = _configuration(ports, secrets, database_url)
    return base | {f"AIRFLOW__{name}": value for name, value in configured.items()} | _ours(ports)


def _configuration(ports: Ports, secrets: Secrets, database_url: str) -> dict[str, str]:
    return {
        "CORE__DAGS_FOLDER": DAGS,
        "CORE__PLUGINS_FOLDER": str(ROOT / "airflow/plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "8",
        "CORE__AUTH_MANAGER": "ingest.auth_manager.GatewayAuthManager",
        "CORE__EXECUTION_API_SERVER_URL": f"{ports.airflow_url}/execution/",
        "CORE__FERNET_KEY": secrets.airflow_fernet,
        "DATABASE__SQL_ALCHEMY_CONN": database_url,
        "API_AUTH__JWT_SECRET": secrets.airflow_jwt,
        "API__SECRET_KEY": secrets.airflow_session,
        "API__BASE_URL": ports.airflow_url,
        "API__HOST": LOOPBACK,
        "API__PORT": str(ports.airflow),
        "API__WORKERS": "2",
        # Measured: from about 8 s to about 3 s for plan, ten mapped tasks and a finish.
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
        "LOGGING__LOGGING_LEVEL": "WARNING",
        "LOGGING__BASE_LOG_FOLDER": str(HOME / "logs"),
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def _ours(ports: Ports) -> dict[str, str]:
    return {
        "INGEST_GATEWAY_URL": ports.gateway_url,
        "INGEST_GATEWAY_ISSUER": ports.gateway_url,
        "INGEST_REGISTRY_PATH": str(layout.REGISTRY),
        "INGEST_LANDING_DIR": str(layout.LANDING),
        "INGEST_STAGED_DIR": str(layout.STAGED),
        "INGEST_CURATED_DIR": str(layout.CURATED),
        "INGEST_GATEWAY_USER": "svc-airflow",
        "INGEST_GATEWAY_PASSWORD_FILE": str(password_file("svc-airflow")),
    }


def password_file(account: str) -> Path:
    """Return where an account's password lies, for a process that acts as this account."""
    return layout.STACK / f"{account}.password"


# Only the API server hands credentials to tasks; the processes that run tasks have no account for it.
OWN_VARIABLES = {
    "AIRFLOW__SECRETS__BACKEND": "ingest.secrets_backend.ClientConnections",
    "INGEST_LEASES_USER": "svc-airflow-api",
    "INGEST_LEASES_PASSWORD_FILE": str(password_file("svc-airflow-api")),
}


def needs_migration() -> bool:
    """Say whether the metadata database was not yet migrated by this very Airflow."""
    return not _stamp().exists() or _stamp().read_text() != _version()


def mark_migrated() -> None:
    """Note that the metadata database fits this Airflow: asking it takes 14 s."""
    _stamp().write_text(_version())


def is_healthy(ports: Ports) -> bool:
    """Ask whether every component is at work."""
    status, body = processes.get(ports.airflow, "/api/v2/monitor/health")
    if status != HTTPStatus.OK:
        return False
    health = json.loads(body)
    parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
    return all((health.get(part) or {}).get("status") == "healthy" for part in parts)


def _stamp() -> Path:
    return HOME / "migrated"


def _version() -> str:
    return hashlib.sha256(environments.AIRFLOW.lock.read_bytes()).hexdigest()


def prepare(passwords: dict[str, str]) -> None:
    """Make Airflow's home and the files its tasks and its API server read their password from."""
    (HOME / "logs").mkdir(parents=True, exist_ok=True)
    for account in ("svc-airflow", "svc-airflow-api"):
        programs.write_secret(password_file(account), passwords[account])
