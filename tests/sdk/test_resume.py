"""``gateway send`` killed in the midst of a large file, and run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.sdk import delivery, files
from gateway.sdk.client import GatewayClient
from gateway.sdk.delivery import Order
from gateway.sdk.files import LARGE_BYTES
from gateway.sdk.journal import Journal
from gateway.sdk.problems import GatewayProblem
from tests.fakes.gateway_api import PASSWORD, USER, Fault, State
from tests.sdk.test_delivery import Notes

Write = Callable[[str, bytes], Path]
SIZE = 24 * 1024 * 1024
STALLED = 15 * 1024 * 1024 + 5
SEND = ("send", "--project", "flights", "--reference", "2013-01", "--json")
# At its end the sender tells how many bytes it has read from files.
MAIN = (
    "import atexit; from pathlib import Path; from gateway.sdk.cli import app;"
    "atexit.register(lambda: print(Path('/proc/self/io').read_text()));"
    "app(prog_name='gateway')"
)


@pytest.fixture
def environment(api: State, tmp_path: Path) -> dict[str, str]:
    given = {"GATEWAY_URL": api.url, "GATEWAY_USER": USER, "GATEWAY_PASSWORD": PASSWORD}
    return os.environ | given | {"XDG_STATE_HOME": str(tmp_path / "state")}


@pytest.fixture
def start(environment: dict[str, str]) -> Callable[..., subprocess.Popen[str]]:
    def start_sending(*paths: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", MAIN, *SEND, *map(str, paths)]
        return subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start_sending


def read_bytes(output: str) -> int:
    line = next(line for line in output.splitlines() if line.startswith("rchar: "))
    return int(line.removeprefix("rchar: "))


def kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "state" / "ingestion-gateway").glob("*"))


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("signalled", [signal.SIGKILL, signal.SIGINT])
def test_killed_send_goes_on_without_hashing_or_sending_again(
    api: State,
    start: Callable[..., subprocess.Popen[str]],
    write: Write,
    tmp_path: Path,
    signalled: signal.Signals,
) -> None:
    large, small = write("large.bin", os.urandom(SIZE)), write("small.csv", b"1")
    api.faults.append(Fault("PATCH", ".*", "stall", after_bytes=STALLED))
    first = start(large, small)
    until(lambda: bool(api.uploads.received))
    first.send_signal(signalled)
    output, errors = first.communicate(timeout=20)
    assert first.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130}[signalled], errors
    assert PASSWORD not in "".join(path.read_text() for path in kept(tmp_path))

    second = start(large, small)
    output, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    told = json.loads(output[: output.rindex("}") + 1])
    assert told["receipt"]["verified"] is True
    assert api.contents[told["batch"], "large.bin"] == large.read_bytes()
    assert api.uploads.received == [(0, STALLED), (STALLED, SIZE - STALLED)]
    assert len(api.uploads.created) == 1
    assert kept(tmp_path) == []

    idle = start(small)
    nothing_read = read_bytes(idle.communicate(timeout=60)[0])
    assert read_bytes(output) - nothing_read < SIZE - STALLED + 1024 * 1024


def test_small_files_go_by_put_and_large_ones_in_pieces(
    api: State, gateway: GatewayClient, write: Write
) -> None:
    paths = [write("large", bytes(LARGE_BYTES + 1)), write("limit", bytes(LARGE_BYTES))]
    delivered = delivery.deliver(gateway, Order("flights", "2013-01", paths), Notes())
    assert delivered.receipt.files.keys() == {"large", "limit"}
    assert (api.count("PUT .*/large"), api.count("PUT .*/limit")) == (0, 1)
    assert [told["filename"] for told in api.uploads.created] == ["large"]


def test_gateway_without_resumable_uploads_gets_large_files_by_put(
    api: State, gateway: GatewayClient, write: Write
) -> None:
    api.mechanisms = ["put"]
    path = write("large", bytes(LARGE_BYTES + 1))
    delivery.deliver(gateway, Order("flights", "2013-01", [path]), Notes())
    assert (api.count("PUT .*/large"), api.count("POST .*/uploads")) == (1, 0)


def test_several_large_files_are_resumed_each_at_its_own_place(
    api: State, gateway: GatewayClient, write: Write, tmp_path: Path
) -> None:
    size = LARGE_BYTES + 1000
    paths = [write(f"{n}.bin", os.urandom(size)) for n in range(3)]
    order = Order("flights", "2013-01", paths)
    api.faults += [Fault("PATCH", ".*", "cut", after_bytes=n * 1_000_000) for n in (1, 2, 3)]
    api.faults.append(Fault("HEAD", ".*", "refuse", status=403, times=3))
    notes = Journal(tmp_path / "notes")
    with pytest.raises(GatewayProblem):
        delivery.deliver(gateway, order, Notes(), 3, notes)
    notes.close()
    arrived = sum(taken for _, taken in api.uploads.received)

    api.faults.clear()
    again = Journal(tmp_path / "notes")
    delivered = delivery.deliver(gateway, order, Notes(), 3, again)
    for path in paths:
        assert api.contents[delivered.batch, path.name] == path.read_bytes()
    assert sum(taken for _, taken in api.uploads.received) == 3 * size
    assert arrived > 0
    assert not (tmp_path / "notes").exists()


def test_noted_digest_that_deceives_stores_nothing_and_is_forgotten(
    api: State, gateway: GatewayClient, write: Write, tmp_path: Path
) -> None:
    path = write("large.bin", os.urandom(LARGE_BYTES + 1))
    order = Order("flights", "2013-01", [path])
    place = tmp_path / "notes"
    before = Journal(place)
    true = before.inspect(path)
    before.close()
    place.write_text(place.read_text().replace(true.sha256, "f" * 64))
    notes = Journal(place)
    with pytest.raises(GatewayProblem, match="digest-mismatch"):
        delivery.deliver(gateway, order, Notes(), journal=notes)
    assert not api.contents
    notes.close()
    delivered = delivery.deliver(gateway, order, Notes(), journal=Journal(place))
    assert delivered.files == (files.inspect(path),)
    assert not place.exists()


def test_sealed_delivery_is_recognized_by_noted_digests(
    api: State, gateway: GatewayClient, write: Write, tmp_path: Path
) -> None:
    path = write("large.bin", os.urandom(LARGE_BYTES + 1))
    order = Order("flights", "2013-01", [path])
    api.faults.append(Fault("GET", ".*/receipt", "refuse", status=403, slug="forbidden"))
    notes = Journal(tmp_path / "notes")
    with pytest.raises(GatewayProblem, match="forbidden"):
        delivery.deliver(gateway, order, Notes(), journal=notes)
    notes.close()
    api.requests.clear()
    again = delivery.deliver(gateway, order, Notes(), journal=Journal(tmp_path / "notes"))
    assert again.skipped == {"large.bin"}
    assert api.count("(PUT|PATCH|POST) .*(files|uploads).*") == 0
    assert not (tmp_path / "notes").exists()
