"""The provider as Airflow finds it: installed as a client installs it, without this checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.local import client_side
from tests.provider.conftest import ENVIRONMENT

PROGRAM = """
import json
from airflow.providers_manager import ProvidersManager
found = ProvidersManager()
hook = found.hooks["ingestion_gateway"]
prefix = "extra__ingestion_gateway__"
print(json.dumps({
    "version": found.providers["ingestion-gateway"].version,
    "hook": hook and [hook.hook_class_name, hook.hook_name, hook.connection_testable],
    "fields": {
        name.removeprefix(prefix): each.field["schema"]["title"]
        for name, each in found.connection_form_widgets.items() if name.startswith(prefix)
    },
    "behaviour": found.field_behaviours["ingestion_gateway"],
    "links": [each for each in found.extra_links_class_names if each.startswith("gateway.")],
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Airflow says of it."""
    folder = tmp_path_factory.mktemp("client")
    client_side.install(folder / "packages")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=folder,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(folder / "packages")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "gateway.provider" not in done.stderr, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def test_airflow_finds_the_connection_type_with_its_hook(installed: dict[str, Any]) -> None:
    assert installed["version"] == "0.1.0"
    assert installed["hook"] == ["gateway.provider.hooks.GatewayHook", "Ingestion Gateway", True]


def test_the_connection_has_a_form_of_its_own(installed: dict[str, Any]) -> None:
    assert installed["fields"] == {
        "account": "Kind of account",
        "client": "Client",
        "ca_file": "Authorities",
        "page": "Page of a job",
        "allow_http": "Allow http",
    }
    assert installed["behaviour"]["relabeling"]["host"] == "Gateway's address"
    assert "extra" in installed["behaviour"]["hidden_fields"]


def test_airflow_knows_the_link_when_it_reads_a_task(installed: dict[str, Any]) -> None:
    assert installed["links"] == ["gateway.provider.links.GatewayJobLink"]


def test_the_light_install_alone_imports_nothing_of_airflow(tmp_path: Path) -> None:
    """Whoever has no Airflow has the package too: what Airflow reads must not need it."""
    program = (
        "import sys; sys.modules['airflow'] = None;"
        "from gateway.provider.get_provider_info import get_provider_info;"
        "import gateway.provider.connection, gateway.sdk.watching;"
        "print(get_provider_info()['package-name'])"
    )
    variables = {**os.environ, "PYTHONPATH": str(client_side.ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True
    )
    assert done.stdout == "ingestion-gateway\n"
