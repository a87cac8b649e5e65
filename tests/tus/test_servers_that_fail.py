"""Two unmodified clients at servers that die, are two, or say no."""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from tests.fakes.proxy import Plan
from tests.faults.conftest import Check
from tests.faults.history import STREAM, TUS
from tests.nursery import Nursery
from tests.parts import GatewayServer, serve, start_server
from tests.tus.driving import MIB, Delivery, TusJs, TusPy, Uploading

# Large files are resumed ten times: TUS_TEST_BYTES=5368709120 for the 5 GiB of a long line.
LARGE_BYTES = int(os.environ.get("TUS_TEST_BYTES", str(256 * MIB)))
RESUMPTIONS = 10


def test_a_server_killed_while_it_receives_is_gone_back_to(
    sender: Uploading,
    delivery: Delivery,
    nursery: Nursery,
    steady: GatewayServer,
    environment: dict[str, str],
    check: Check,
    tmp_path: Path,
) -> None:
    file = delivery.file()
    # Slow enough to be in the middle of the file when the server dies; then, when it is back.
    delivery.proxy.plan(*[Plan(bytes_per_second=2 * MIB)] * 2)
    with ThreadPoolExecutor(1) as other:
        sending = other.submit(delivery.send, sender, file)
        for _ in range(2):
            until(lambda: bool(parts(environment)) and max(parts(environment)) > MIB // 2)
            steady.kill()
            steady = serve(nursery, environment, tmp_path, port=steady.port)
        assert sending.result()["outcome"] == "success"
    delivery.check_stored(file)
    assert check() == []


def parts(environment: dict[str, str]) -> list[int]:
    place = Path(environment["GATEWAY_LANDING_ROOT"]) / ".parts"
    return [each.stat().st_size for each in place.iterdir()]


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_servers_take_turns_at_one_upload(
    sender: Uploading,
    delivery: Delivery,
    nursery: Nursery,
    environment: dict[str, str],
    check: Check,
    tmp_path: Path,
) -> None:
    other = serve(nursery, environment, tmp_path)
    delivery.proxy.targets.append(other.port)
    file = delivery.file()
    harm = (Plan("stall", MIB, stall_seconds=0.2), Plan("reset", MIB), Plan("cut", MIB))
    delivery.proxy.plan(*harm * 2)
    result = delivery.send(sender, file)
    assert result["outcome"] == "success", result
    assert delivery.proxy.connections >= 4
    delivery.check_stored(file)
    assert check() == []


def test_two_processes_behind_one_port_take_one_upload(
    delivery: Delivery, environment: dict[str, str], check: Check, tmp_path: Path
) -> None:
    server = start_server({**environment, "GATEWAY_SERVER_WORKERS": "2"}, tmp_path)
    try:
        delivery.proxy.targets[:] = [server.port]
        file = delivery.file()
        # A connection for each chunk: the kernel gives them to either process.
        result = delivery.send(TusPy(), file, chunk_bytes=200_000)
        assert result["outcome"] == "success", result
        delivery.check_stored(file)
    finally:
        server.stop()
    assert check() == []


def test_a_large_file_resumed_ten_times_has_the_right_digest(
    tus_js: TusJs, delivery: Delivery, check: Check
) -> None:
    file = delivery.file(size_bytes=LARGE_BYTES)
    # Of a plan more than is counted: one may meet a connection that carries little.
    step = LARGE_BYTES // (RESUMPTIONS + 3)
    acts = ("reset", "cut", "reset", "cut", "stall", "reset") * 2
    delivery.proxy.plan(*[Plan(act, step, stall_seconds=0.2) for act in acts])  # type: ignore[arg-type]
    result = delivery.send(tus_js, file, timeout=1200)
    assert result["outcome"] == "success", result
    assert len(delivery.proxy.acted) >= RESUMPTIONS
    delivery.check_stored(file)
    assert check() == []
    file.path.unlink()


def test_an_upload_that_is_aborted_leaves_nothing(
    tus_js: TusJs, delivery: Delivery, environment: dict[str, str], check: Check
) -> None:
    file = delivery.file()
    result = delivery.send(tus_js, file, chunk_bytes=MIB, javascript={"abortAfterBytes": MIB})
    assert result["outcome"] == "aborted", result
    path = f"/v1/batches/{delivery.batch}/files/{file.name}"
    assert delivery.client.ask("GET", path).status_code == 404
    place = result["url"].removeprefix(delivery.proxy.url)
    assert delivery.client.ask("HEAD", place, headers=TUS).status_code == 410
    assert parts(environment) == []
    assert check() == []


def test_an_upload_that_has_expired_is_gone_and_begun_again(
    tus_js: TusJs, delivery: Delivery, sessions: sessionmaker[Session], check: Check
) -> None:
    file = delivery.file()
    place = delivery.client.create_upload(delivery.batch, file.name, file.path.read_bytes())
    assert delivery.client.patch(place, 0, file.path.read_bytes()[:MIB]).status_code == 204
    with sessions.begin() as session:
        session.execute(text("UPDATE upload SET expires_at = now()"))
    answer = delivery.client.ask("HEAD", place, headers=TUS)
    assert answer.status_code == 410
    # The client knows its upload; told that it is gone, it begins another.
    javascript = {"uploadUrl": f"{delivery.proxy.url}{place}"}
    result = delivery.send(tus_js, file, javascript=javascript)
    assert result["outcome"] == "success", result
    assert result["url"] != javascript["uploadUrl"]
    delivery.check_stored(file)
    assert check() == []


def test_bytes_with_another_checksum_are_not_taken(delivery: Delivery, check: Check) -> None:
    content = bytes(MIB)
    place = delivery.client.create_upload(delivery.batch, "a.bin", content)
    wrong = base64.b64encode(bytes(32)).decode()
    headers = {"Upload-Checksum": f"sha256 {wrong}"}
    answer = delivery.client.patch(place, 0, content[:1000], **headers)
    assert answer.status_code == 460, answer.text
    assert delivery.client.offset(place) == 0
    delivery.client.resume(place, delivery.batch, "a.bin", content)
    assert check() == []


def test_the_same_bytes_sent_twice_at_once_are_there_once(delivery: Delivery, check: Check) -> None:
    content = os.urandom(2 * MIB)
    place = delivery.client.create_upload(delivery.batch, "a.bin", content)
    gate = threading.Barrier(4)

    def send(_: int) -> int:
        gate.wait()
        headers = {**delivery.client.headers, **STREAM, "Upload-Offset": "0"}
        with httpx.Client(timeout=30, verify=False) as speaker:
            url = f"{delivery.client.url}{place}"
            return speaker.patch(url, headers=headers, content=content).status_code

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(send, range(4)))
    assert set(statuses) <= {204, 409}, statuses
    delivery.client.resume(place, delivery.batch, "a.bin", content)
    assert check() == []
