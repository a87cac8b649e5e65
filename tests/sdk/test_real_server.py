"""``gateway send`` and the real gateway: either is killed in the midst of a large file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from deploy.local.directory import Directory
from gateway.bootstrap import Services
from gateway.uploads import sweep
from tests import factories
from tests.nursery import Nursery
from tests.parts import REPOSITORY, GatewayServer, serve
from tests.sdk import valve
from tests.sdk.valve import Valve
from tests.uploads.sending import Books, eventually

MIB = 1024 * 1024
SIZE = 20 * MIB
HELD_AT = 11 * MIB
Start = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def line(server: GatewayServer, sessions: sessionmaker[Session]) -> Iterator[Valve]:
    factories.onboard_two(sessions)
    with valve.running(server.port) as running:
        yield running


@pytest.fixture
def books(sessions: sessionmaker[Session], environment: dict[str, str]) -> Books:
    return Books(sessions, Path(environment["GATEWAY_LANDING_ROOT"]))


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / "large.csv", tmp_path / "small.csv"]
    found[0].write_bytes(os.urandom(SIZE))
    found[1].write_bytes(b"id,note\n1,one\n")
    return found


@pytest.fixture
def start(
    line: Valve, directory_server: Directory, paths: list[Path], tmp_path: Path
) -> Iterator[Start]:
    """Return a function that starts ``gateway send``."""
    words = ["send", "--project", "flights", "--reference", "r", "--json", *map(str, paths)]
    variables = {
        "GATEWAY_URL": line.url,
        "GATEWAY_USER": "acme-uploader",
        "GATEWAY_PASSWORD": directory_server.passwords["acme-uploader"],
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    started: list[subprocess.Popen[str]] = []

    def start_sending() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", *words],
            env={**os.environ, **variables},
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start_sending
    for each in started:
        each.kill()
        each.communicate()


def check_delivered(
    process: subprocess.Popen[str], books: Books, paths: list[Path]
) -> dict[str, Any]:
    output, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    told = json.loads(output)
    assert told["receipt"]["verified"] is True
    assert books.on_disk(told["batch"]) == {path.name: path.read_bytes() for path in paths}
    books.check()
    return dict(told)


def test_sender_that_was_killed_sends_only_what_is_missing(
    line: Valve, start: Start, books: Books, paths: list[Path], tmp_path: Path
) -> None:
    line.close_after(HELD_AT)
    first = start()
    eventually(line.is_closed, 60)
    first.kill()
    first.communicate()
    line.open()
    before = line.passed
    check_delivered(start(), books, paths)
    assert line.passed - before < SIZE - HELD_AT + 3 * MIB
    assert list((tmp_path / "state" / "ingestion-gateway").iterdir()) == []


def test_line_that_breaks_again_and_again_costs_little(
    line: Valve, start: Start, books: Books, paths: list[Path]
) -> None:
    line.close_after(3 * MIB)
    sender = start()
    for _ in range(5):
        eventually(line.is_closed, 60)
        line.cut()
        line.close_after(3 * MIB)
    line.open()
    check_delivered(sender, books, paths)
    # What was under way when the line broke is lost with it.
    assert line.passed < 1.5 * SIZE


def test_two_senders_of_one_delivery_end_with_the_same_result(
    line: Valve, start: Start, books: Books, paths: list[Path], services: Services
) -> None:
    line.close_after(HELD_AT)
    first, second = start(), start()
    eventually(line.is_closed, 60)
    line.open()
    for each in (first, second):
        each.wait(150)  # what one has left is only known when both have ended
    # The part of an upload that lost its name lies there until then.
    sweep.run(services.sessions, services.zone, max_age_seconds=0)
    told = [check_delivered(each, books, paths) for each in (first, second)]
    assert told[0]["batch"] == told[1]["batch"]
    assert told[0]["job"]["id"] == told[1]["job"]["id"]


def test_sender_outlives_a_gateway_that_was_killed(
    line: Valve,
    start: Start,
    server: GatewayServer,
    nursery: Nursery,
    environment: dict[str, str],
    books: Books,
    paths: list[Path],
    tmp_path: Path,
) -> None:
    line.close_after(HELD_AT)
    sender = start()
    eventually(line.is_closed, 60)
    server.kill()
    successor = serve(nursery, environment, tmp_path)
    line.target = successor.port
    line.open()
    try:
        check_delivered(sender, books, paths)
    finally:
        successor.stop()
