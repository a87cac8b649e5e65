"""Schemathesis against a real server: it does what its OpenAPI document says, whatever comes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from deploy.local.directory import Directory as DirectoryServer
from tests import factories
from tests.parts import REPOSITORY, GatewayServer
from tests.uploads.sending import CONTENT, Sender, signed_in

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "no_foreign_data",
)
EXAMPLES = os.environ.get("SCHEMA_EXAMPLES", "12")
OWNERS = {"acme": "flights", "globex": "weather"}


def stock(sender: Sender, owner: str) -> dict[str, list[str]]:
    """Give a client one of everything, with its own name in whatever it may name."""
    open_batch = sender.batch(f"{owner}-open", metadata={f"{owner}-key": f"{owner}-value"})
    sender.put(open_batch, f"{owner}-open.csv")
    sealed = sender.batch(f"{owner}-sealed")
    sender.put(sealed, f"{owner}-sealed.csv")
    job = sender.seal(sealed).json()["job"]["id"]
    headers = {
        "Tus-Resumable": "1.0.0",
        "Upload-Length": str(len(CONTENT)),
        "Upload-Metadata": "filename YS5jc3Y=",
    }
    begun = sender.ask("POST", f"/v1/batches/{open_batch}/uploads", headers=headers)
    upload = begun.headers["location"].rpartition("/")[2]
    return {
        "batch_id": [open_batch, sealed],
        "job_id": [job],
        "upload_id": [upload],
        "name": [f"{owner}-open.csv", f"{owner}-sealed.csv", "a.csv"],
    }


@pytest.fixture
def facts(
    server: GatewayServer, sessions: sessionmaker[Session], directory_server: DirectoryServer
) -> dict[str, Any]:
    """What both clients have, and the token of each."""
    found: dict[str, Any] = {"ids": {}, "tokens": {}, "own": {}}
    for owner, project in OWNERS.items():
        limits = {"requests_per_second": 100_000, "open_batches": 100_000}
        factories.onboard(sessions, owner, (project,), **limits)
        account = f"{owner}-uploader"
        headers = signed_in(server, account, directory_server.passwords[account])
        with httpx.Client(base_url=server.url, timeout=30, verify=False) as speaker:
            mine = stock(Sender(speaker, headers, project), owner)
        found["tokens"][owner] = headers["Authorization"]
        found["own"][owner] = [*mine["batch_id"], *mine["job_id"], *mine["upload_id"]]
        for name, values in mine.items():
            found["ids"].setdefault(name, []).extend(values)
    return found


def run(
    server: GatewayServer, token: str, told: dict[str, Any], folder: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    known = folder / "facts.json"
    known.write_text(json.dumps(told))
    command = [
        str(Path(sys.executable).with_name("st")),
        *("run", f"{server.url}/openapi.json", "--url", server.url),
        *("--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing"),
        *("--max-examples", EXAMPLES, "--seed", "1", "--workers", "1", "--no-shrink"),
        *("--header", f"Authorization:{token}"),
        *("--request-timeout", "20", "--max-redirects", "0", "--no-color"),
        *("--suppress-health-check", "all", "--generation-database", "none"),
        *("--continue-on-failure", "--warnings", "off"),
        *options,
    ]
    variables = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "tests.attacks.schema_hooks",
        "SCHEMA_FACTS": str(known),
        "PYTHONPATH": str(REPOSITORY),
    }
    return subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("owner", "other"), [("acme", "globex"), ("globex", "acme")])
def test_every_door_keeps_to_the_document_and_to_its_own_client(
    server: GatewayServer, facts: dict[str, Any], tmp_path: Path, owner: str, other: str
) -> None:
    told = {"ids": facts["ids"], "foreign": [f"{other}-", *facts["own"][other]]}
    # Revoking would end the session that the rest is asked with.
    token = facts["tokens"][owner]
    ended = run(server, token, told, tmp_path, "--exclude-path", "/v1/token/revoke")
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr[-5_000:]
    assert "request_failed" not in server.log.read_text()


def test_an_answer_that_tells_of_another_would_be_seen(
    server: GatewayServer, facts: dict[str, Any], tmp_path: Path
) -> None:
    told = {"ids": facts["ids"], "foreign": ["acme-sealed"]}
    ended = run(server, facts["tokens"]["acme"], told, tmp_path, "--include-path", "/v1/batches")
    assert ended.returncode == 1
    assert "acme-sealed is another client's" in ended.stdout
