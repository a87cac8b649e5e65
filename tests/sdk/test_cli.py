"""The commands: exit codes, what is printed where, and what they may import."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from gateway.sdk import cli
from tests.fakes.gateway_api import PASSWORD, USER, Fault, State

Write = Callable[[str, bytes], Path]
Run = Callable[..., Result]
SEND = ("send", "--project", "flights", "--reference", "2013-01")
MAIN = "from gateway.sdk.cli import app; app(prog_name='gateway')"
REJECT = {"file": "a.csv", "line": 3, "column": "dep", "rule": "required", "value": "\x1b[2J"}
PARTIAL = {"state": "partially_succeeded", "rows": {"read": 9, "loaded": 8, "rejected": 1}}


@pytest.fixture
def environment(api: State, tmp_path: Path) -> dict[str, str]:
    account = {"GATEWAY_USER": USER, "GATEWAY_PASSWORD": PASSWORD}
    return {"GATEWAY_URL": api.url, **account, "XDG_STATE_HOME": str(tmp_path / "state")}


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """Return a function that runs a command as a client's machine would."""

    def run_command(*arguments: object, **changes: str) -> Result:
        words = [str(argument) for argument in arguments]
        return CliRunner().invoke(cli.app, words, env=environment | changes)

    return run_command


def test_files_are_sent_followed_and_proven(api: State, run: Run, write: Write) -> None:
    api.job_script = [
        {"state": "queued"},
        {"state": "running", "steps": [{"name": "process", "state": "running", "done": 1}]},
        {"state": "succeeded", "rows": {"read": 9, "loaded": 9, "rejected": 0}},
    ]
    result = run(*SEND, write("a.csv", b"1"), write("b.csv", b"2"), "--follow")
    assert result.exit_code == 0, result.stderr
    assert "2 files, 2 B, receipt verified" in result.stdout
    assert "succeeded" in result.stdout
    assert "rows: 9 read, 9 loaded, 0 rejected" in result.stdout
    assert "process running 1" in result.stderr


def test_json_is_one_object_alone_on_standard_output(api: State, run: Run, write: Write) -> None:
    api.job_script, api.rejects = [PARTIAL], [REJECT]
    result = run(*SEND, write("a.csv", b"1"), "--follow", "--json", "--metadata", "source=crm=1")
    body = json.loads(result.stdout)
    assert (body["outcome"], body["job"]["rows"]["rejected"]) == ("partially_succeeded", 1)
    assert body["rejects"] == [REJECT]
    assert body["receipt"]["verified"] is True
    assert [file["name"] for file in body["files"]] == ["a.csv"]
    assert api.batches[body["batch"]]["metadata"] == {"source": "crm=1"}


@pytest.mark.parametrize(
    ("job", "options", "code"),
    [
        ({"state": "succeeded"}, (), 0),
        ({"state": "succeeded"}, ("--strict",), 0),
        (PARTIAL, (), 0),
        (PARTIAL, ("--strict",), 1),
        ({"state": "failed", "error": "too many rejects"}, (), 1),
        ({"state": "canceled"}, (), 1),
    ],
)
def test_exit_code_says_what_became_of_the_job(
    api: State, run: Run, write: Write, job: dict[str, Any], options: tuple[str, ...], code: int
) -> None:
    api.job_script, api.rejects = [job], [REJECT]
    assert run(*SEND, write("a.csv", b"1"), "--follow", *options).exit_code == code


def test_rejected_rows_are_shown_and_cannot_steer_the_terminal(
    api: State, run: Run, write: Write
) -> None:
    api.job_script, api.rejects = [PARTIAL], [REJECT]
    result = run(*SEND, write("a.csv", b"1"), "--follow")
    assert "warning: 1 rows were rejected" in result.stderr
    assert "a.csv:3 dep: required" in result.stderr
    assert "\x1b" not in result.stderr


def test_send_without_follow_ends_at_the_seal(api: State, run: Run, write: Write) -> None:
    api.job_script = [{"state": "failed"}]
    result = run(*SEND, write("a.csv", b"1"))
    assert result.exit_code == 0
    assert api.count("GET /v1/jobs/.*") == 0


def test_impatient_follow_fails_and_says_how_to_go_on(api: State, run: Run, write: Write) -> None:
    api.job_script = [{"state": "blocked", "waiting_reason": "the DAG is paused"}]
    result = run(*SEND, write("a.csv", b"1"), "--follow", "--timeout", "0.2")
    assert result.exit_code == 1
    assert "the DAG is paused" in result.stderr
    assert f"gateway status {next(iter(api.jobs))} --follow" in result.stderr


def test_failure_is_told_in_json_too(api: State, run: Run, write: Write) -> None:
    api.faults.append(Fault("POST", ".*/seal", "refuse", status=409, slug="batch-incomplete"))
    result = run(*SEND, write("a.csv", b"1"), "--json")
    assert result.exit_code == 1
    body = json.loads(result.stdout)
    assert (body["outcome"], body["problem"]["slug"]) == ("failed", "batch-incomplete")
    assert "req-1" in result.stderr


def test_gateway_that_is_away_is_a_failure(run: Run, write: Write) -> None:
    path = write("a.csv", b"1")
    result = run(*SEND, path, "--retry-for", "0", GATEWAY_URL="http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "did not answer" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "changes", "word"),
    [
        ((*SEND,), {}, "FILES"),
        ((*SEND, "absent.csv"), {}, "absent.csv"),
        ((*SEND, "--mode", "guess", __file__), {}, "mode"),
        ((*SEND, "--metadata", "novalue", __file__), {}, "novalue"),
        ((*SEND, "--period-start", "2013-01-01", __file__), {}, "period"),
        (
            (*SEND, "--period-start", "2013-02-01", "--period-end", "2013-01-01", __file__),
            {},
            "ends before",
        ),
        ((*SEND, __file__), {"GATEWAY_URL": ""}, "GATEWAY_URL"),
        ((*SEND, __file__), {"GATEWAY_USER": ""}, "GATEWAY_USER"),
        ((*SEND, __file__), {"GATEWAY_PASSWORD": ""}, "GATEWAY_PASSWORD"),
        ((*SEND, __file__), {"GATEWAY_URL": "http://gateway.example"}, "unencrypted"),
        ((*SEND, __file__, "--password", "x"), {}, "--password"),
        (("status",), {}, "BATCH"),
        (("status", "upl_1"), {}, "upl_1"),
        (("status", "--reference", "2013-01"), {}, "--project"),
        (("receipt", "verify"), {}, "BATCH"),
        (("receipt", "verify", "--file", __file__), {}, "--jwks"),
    ],
)
def test_misuse_exits_with_two_and_asks_the_gateway_nothing(
    api: State, run: Run, arguments: tuple[str, ...], changes: dict[str, str], word: str
) -> None:
    result = run(*arguments, **changes)
    assert result.exit_code == 2, result.output
    assert word in result.stderr
    assert not api.requests


def test_password_is_read_from_a_file(run: Run, write: Write) -> None:
    path = write("secret", f"{PASSWORD}\n".encode())
    changes = {"GATEWAY_PASSWORD": "", "GATEWAY_PASSWORD_FILE": str(path)}
    assert run(*SEND, write("a.csv", b"1"), **changes).exit_code == 0


def test_status_is_found_by_batch_job_or_reference(run: Run, write: Write) -> None:
    sent = json.loads(run(*SEND, write("a.csv", b"1"), "--json").stdout)
    by_reference = ("--project", "flights", "--reference", "2013-01")
    for target in ((sent["batch"],), (sent["job"]["id"],), by_reference):
        result = run("status", *target)
        assert result.exit_code == 0, result.stderr
        assert f"{sent['job']['id']} succeeded" in result.stdout
    listed = run("status", "--project", "flights")
    assert sent["batch"] in listed.stdout
    body = json.loads(run("status", sent["batch"], "--json").stdout)
    assert (body["batch"]["state"], body["job"]["state"]) == ("sealed", "succeeded")


def test_status_of_a_failed_job_is_an_answer_unless_followed(
    api: State, run: Run, write: Write
) -> None:
    api.job_script = [{"state": "failed"}]
    run(*SEND, write("a.csv", b"1"))
    job_id = next(iter(api.jobs))
    assert run("status", job_id).exit_code == 0
    assert run("status", job_id, "--follow").exit_code == 1
    assert run("status", "bat_unknown").exit_code == 1


def test_kept_receipt_is_verified_without_the_gateway(
    api: State, run: Run, write: Write, tmp_path: Path
) -> None:
    paths = [write("data/a.csv", b"1"), write("data/b.csv", b"2")]
    run(*SEND, *paths)
    batch_id = next(iter(api.batches))
    proofs = tmp_path / "proofs"
    proofs.mkdir()
    assert run("receipt", "save", batch_id, "--dir", proofs).exit_code == 0
    assert run("receipt", "verify", batch_id, "--dir", tmp_path / "data").exit_code == 0

    offline = (
        "receipt",
        "verify",
        "--file",
        proofs / "receipt.jws",
        "--jwks",
        proofs / "jwks.json",
    )
    api.requests.clear()
    nowhere = {"GATEWAY_URL": "", "GATEWAY_USER": "", "GATEWAY_PASSWORD": ""}
    result = run(*offline, "--dir", tmp_path / "data", **nowhere)
    assert result.exit_code == 0, result.stderr
    assert "2 files" in result.stdout
    paths[0].write_bytes(b"3")
    assert run(*offline, "--dir", tmp_path / "data", **nowhere).exit_code == 1
    assert not api.requests


@pytest.mark.parametrize(
    "command", [["send"], ["status"], ["receipt", "verify"], ["receipt", "save"]]
)
def test_every_command_explains_itself_with_an_example(command: list[str]) -> None:
    result = CliRunner().invoke(cli.app, [*command, "--help"])
    assert result.exit_code == 0
    assert f"Example: gateway {' '.join(command)}" in result.stdout


def test_commands_can_be_mounted_in_another_application() -> None:
    operators = typer.Typer()
    operators.command("serve")(lambda: None)
    cli.add_commands(operators)
    result = CliRunner().invoke(operators, ["--help"])
    assert all(name in result.stdout for name in ("serve", "send", "status", "receipt"))


def test_interrupted_send_exits_with_130_and_says_how_to_go_on(
    api: State, environment: dict[str, str], write: Write
) -> None:
    api.faults.append(Fault("PUT", ".*", "stall", after_bytes=10))
    command = [sys.executable, "-c", MAIN, *SEND, str(write("a.csv", bytes(10_000)))]
    process = subprocess.Popen(
        command, env=os.environ | environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 20
    while not api.count("PUT .*") and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert "Run the same command again" in errors
    assert "Traceback" not in errors


def test_light_install_is_enough() -> None:
    program = f"{MAIN.split(';', maxsplit=1)[0]}; import sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    loaded = done.stdout.split()
    ours = {name for name in loaded if name.startswith("gateway")}
    assert all(name == "gateway" or name.startswith("gateway.sdk") for name in ours)
    server = {"sqlalchemy", "fastapi", "starlette", "ldap3", "jose", "pydantic", "psycopg2"}
    assert not server & {name.partition(".")[0] for name in loaded}
