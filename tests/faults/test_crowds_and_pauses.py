"""Many clients at once, servers told to end, and one that was stopped and wakes up too late."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.fakes.proxy import Plan, running
from tests.faults.conftest import Check
from tests.faults.history import STREAM, Client
from tests.nursery import Nursery
from tests.parts import GatewayServer, serve

CLIENTS = 200
AT_ONCE = 50
BYTES = 200_000
SMALL_BYTES = 20_000


@pytest.fixture
def bear(
    nursery: Nursery, environment: dict[str, str], tmp_path: object
) -> Callable[..., GatewayServer]:
    """Return a function that starts another server on the same database and landing zone."""
    return lambda: serve(nursery, environment, tmp_path)  # type: ignore[arg-type]


def plans() -> list[Plan]:
    """Return what befalls connections: about half of them come to harm, each at another byte."""
    chance = random.Random(7)
    acts = ("cut", "reset", "drop_answer", "pass", "pass", "pass")
    return [
        Plan(chance.choice(acts), chance.randrange(500, SMALL_BYTES)) for _ in range(6 * CLIENTS)
    ]


def persistently(act: Callable[[], bool]) -> None:
    """Try again whatever a line that fails makes of it."""
    for _ in range(60):
        try:
            if act():
                return
        except httpx.TransportError:
            pass
        time.sleep(random.uniform(0.05, 0.3))
    raise AssertionError("never came through")


@pytest.mark.parametrize("door", ["put", "tus"])
def test_two_hundred_clients_that_drop_and_resume_at_once(
    door: str, acme: Client, steady: GatewayServer, check: Check
) -> None:
    batch = acme.batch("crowd")
    with running([steady.port], *plans()) as proxy:
        line = acme.at(proxy.url)

        def put(number: int) -> None:
            content = random.Random(number).randbytes(SMALL_BYTES)
            name = f"{number}.bin"
            persistently(lambda: line.put(batch, name, content).is_success)

        def resume(number: int) -> None:
            content = random.Random(number).randbytes(SMALL_BYTES)
            name = f"{number}.bin"
            place = acme.create_upload(batch, name, content)

            def act() -> bool:
                try:
                    line.resume(place, batch, name, content)
                except AssertionError:
                    return False
                return True

            persistently(act)

        with ThreadPoolExecutor(AT_ONCE) as crowd:
            list(crowd.map(put if door == "put" else resume, range(CLIENTS)))
        assert len(proxy.acted) > CLIENTS // 10
    acme.seal(batch).raise_for_status()
    assert check() == []


def test_a_server_told_to_end_during_ten_uploads_loses_nothing(
    acme: Client, bear: Callable[..., GatewayServer], check: Check
) -> None:
    batch = acme.batch("term")
    ending = bear()
    slow = Plan(bytes_per_second=BYTES)
    with running([ending.port], *[slow] * 10) as proxy:
        line = acme.at(proxy.url)

        def send(number: int) -> tuple[str, bytes, str | None]:
            content, name = os.urandom(BYTES), f"{number}.bin"
            place = acme.create_upload(batch, name, content) if number % 2 else None
            try:
                if place is None:
                    line.put(batch, name, content)
                else:
                    line.patch(place, 0, content)
            except httpx.TransportError:
                pass
            return name, content, place

        with ThreadPoolExecutor(10) as crowd:
            sending = [crowd.submit(send, number) for number in range(10)]
            time.sleep(0.6)
            ending.stop()
            sent = [each.result() for each in sending]
    for name, content, place in sent:
        if place is None:
            acme.store(batch, name, content)
        else:
            acme.resume(place, batch, name, content)
    acme.seal(batch).raise_for_status()
    assert check() == []


def test_a_server_stopped_in_the_middle_of_a_patch_cannot_harm_what_came_after(
    acme: Client, bear: Callable[..., GatewayServer], check: Check
) -> None:
    batch, content = acme.batch("pause"), os.urandom(4 * BYTES)
    stopped = bear()
    place = acme.create_upload(batch, "a.bin", content)
    stream = {**acme.headers, **STREAM, "Upload-Offset": "0"}
    with ThreadPoolExecutor(1) as other, running([stopped.port], Plan(bytes_per_second=BYTES)) as p:
        late = other.submit(
            lambda: httpx.patch(
                f"{p.url}{place}", headers=stream, content=content, timeout=60, verify=False
            )
        )
        time.sleep(1.2)
        stopped.process.send_signal(signal.SIGSTOP)
        acme.resume(place, batch, "a.bin", content)
        acme.seal(batch).raise_for_status()
        stopped.process.send_signal(signal.SIGCONT)
        # What it had and what still comes it may write where it likes, but not into the file.
        with contextlib.suppress(httpx.TransportError):  # or its connection is ended
            assert late.result().status_code in {409, 410}
    assert check() == []


def test_a_server_stopped_in_the_middle_of_a_put_cannot_harm_what_came_after(
    acme: Client, bear: Callable[..., GatewayServer], check: Check
) -> None:
    batch, content = acme.batch("pause"), os.urandom(4 * BYTES)
    stopped = bear()
    path = f"{stopped.url}/v1/batches/{batch}/files/a.bin"
    with ThreadPoolExecutor(1) as other:

        def slowly() -> httpx.Response:
            def body() -> object:
                for start in range(0, len(content), BYTES):
                    yield content[start : start + BYTES]
                    time.sleep(0.5)

            return httpx.put(path, headers=acme.headers, content=body(), timeout=60, verify=False)  # type: ignore[arg-type]

        late = other.submit(slowly)
        time.sleep(0.8)
        stopped.process.send_signal(signal.SIGSTOP)
        # Its lock lives: the name is taken until it ends or goes on. Another name is free.
        answer = acme.put(batch, "a.bin", content)
        assert (answer.status_code, answer.json()["retryable"]) == (409, True)
        acme.store(batch, "b.bin", content)
        assert acme.delete(batch, "a.bin").is_success
        acme.store(batch, "a.bin", content[::-1])
        stopped.process.send_signal(signal.SIGCONT)
        assert late.result().status_code == 409, late.result().text
    acme.seal(batch).raise_for_status()
    assert check() == []
