"""Waiting in an event loop that others share."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path

import pytest

from gateway.provider.triggers import GatewayJobTrigger
from tests.fakes.proxy import Plan, Proxy
from tests.provider.conftest import Gateway
from tests.provider.running import Try, deferred, deliver, fired

CONN = "AIRFLOW_CONN_INGESTION_GATEWAY_DEFAULT"


def trigger(job: str, **fields: object) -> GatewayJobTrigger:
    given = {"gateway_conn_id": "ingestion_gateway_default", "until": time.time() + 60, **fields}
    return GatewayJobTrigger(job_id=job, **given)  # type: ignore[arg-type]


async def longest_gap(seconds: float) -> float:
    """Return the longest time for which the loop did not come back to us."""
    longest, ends = 0.0, time.monotonic() + seconds
    while (began := time.monotonic()) < ends:
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - began)
    return longest


def test_a_gateway_that_does_not_answer_holds_up_nobody_else(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def beside_many() -> float:
        tasks = [asyncio.ensure_future(anext(trigger(f"job_{n}").run())) for n in range(20)]
        try:
            return await longest_gap(1.0)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv(CONN, gateway.connection(host=address))
        # A question that is waited for takes half a minute to be given up.
        assert asyncio.run(beside_many()) < 0.5


def test_a_gateway_that_comes_back_is_asked_again(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,note\n1,one\n")
    monkeypatch.setenv(CONN, gateway.connection())
    attempt = Try()
    deferred(deliver(path, deferrable=True), attempt)
    job = attempt.xcoms["job_id"]
    gateway.end(job)

    # Nothing comes back, then the answer is lost, then the line breaks in its midst.
    harm = [Plan("reset"), Plan("drop_answer", after_bytes=1), Plan("cut", 20, "down")]
    line = Proxy([int(gateway.url.rpartition(":")[2])], plans=list(harm))
    try:
        monkeypatch.setenv(CONN, gateway.connection(host=line.url))
        assert fired(trigger(job))["outcome"] == "succeeded"
        assert line.acted == harm
    finally:
        line.close()


@pytest.mark.parametrize(
    ("job", "connection", "reason"),
    [
        ("job_" + "0" * 26, {}, "not-found"),
        ("job_1", {"password": "wrong"}, "invalid_client"),
        ("job_1", {"host": "http://gateway.example"}, "unencrypted"),
    ],
    ids=["no such job", "wrong password", "bad address"],
)
def test_what_waiting_does_not_mend_is_said_at_once(
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    job: str,
    connection: dict[str, str],
    reason: str,
) -> None:
    monkeypatch.setenv(CONN, gateway.connection(**connection))

    event = fired(trigger(job))
    assert event["outcome"] == "unknown"
    assert reason in event["reason"]
    # Airflow keeps it in its database.
    assert gateway.passwords["acme-uploader"] not in json.dumps([event, trigger(job).serialize()])
