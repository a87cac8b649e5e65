"""The client's side in the same Airflow as the platform's: only where ``STACK_CLIENT_SIDE`` asks.

A client has an Airflow of its own. To try both sides, one plays both: beside the platform's DAGs it
is given a bundle of the client's, the light install as any client's machine has it, and the
connection of the demo's client.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from deploy.local import environments, layout, programs
from deploy.local.layout import Ports
from deploy.local.programs import ROOT

SOURCE = ROOT / "airflow/dags/client_side.py"
ACCOUNT = "acme-uploader"
FOLDER = layout.STACK / "client-side"
PACKAGES, DAGS, EXPORTS = FOLDER / "packages", FOLDER / "dags", FOLDER / "exports"

_OPTIONS: programs.Words = [
    *("--offline", "--no-deps", "--no-build-isolation", "--reinstall"),
    *("--python", environments.GATEWAY.python, "--target"),
]


def is_wanted() -> bool:
    """Say whether this stack is to have the client's side."""
    return os.environ.get("STACK_CLIENT_SIDE", "0") not in {"", "0"}


def prepare() -> None:
    """Install the package, and put the DAG where the client's bundle looks for it."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    DAGS.mkdir(parents=True)
    shutil.copy(SOURCE, DAGS)
    install(PACKAGES)


def install(target: Path) -> None:
    """Install this project's package into a folder, without what it depends on.

    Airflow's environment has that already, and its locked versions stay as they are.

    Raises
    ------
    StackError
    """
    # A build leaves things behind: not in the checkout, where another may be going on.
    with tempfile.TemporaryDirectory(prefix="gateway-build-") as name:
        source = Path(name)
        for each in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / each, source)
        left_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "gateway", source / "gateway", ignore=left_out)
        command = [environments.TOOLS / "bin/uv", "pip", "install", *_OPTIONS, target, source]
        programs.run(command, "the client's package could not be installed")


def added(variables: dict[str, str], ports: Ports, passwords: dict[str, str]) -> dict[str, str]:
    """Return the variables of Airflow's processes, with what the client's side needs."""
    connection = {
        "conn_type": "ingestion_gateway",
        "host": ports.gateway_url,
        "login": ACCOUNT,
        "password": passwords[ACCOUNT],
        "extra": {"page": f"{ports.airflow_url}/auth/views/jobs/{{job}}"},
    }
    bundles = [_bundle("dags-folder", {}), _bundle("client-side", {"path": str(DAGS)})]
    return {
        **variables,
        "PYTHONPATH": f"{variables['PYTHONPATH']}:{PACKAGES}",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        "AIRFLOW_CONN_INGESTION_GATEWAY_DEFAULT": json.dumps(connection),
        "CLIENT_SIDE_DIR": str(EXPORTS),
    }


def _bundle(name: str, fields: dict[str, str]) -> dict[str, object]:
    path = "airflow.dag_processing.bundles.local.LocalDagBundle"
    return {"name": name, "classpath": path, "kwargs": fields}
