"""Two unmodified clients over lines that fail: in the end the file is whole, and there once."""

from __future__ import annotations

import time

import pytest

from tests.fakes.proxy import PASS, Plan
from tests.faults.conftest import Check
from tests.tus.driving import MIB, Delivery, TusJs, TusPy, Uploading

HALF = MIB + MIB // 2
FAULTS = {
    "none": [],
    "cut": [Plan("cut", HALF), Plan("cut", MIB), Plan("cut", HALF)],
    "reset": [Plan("reset", HALF), Plan("reset", HALF), Plan("reset", HALF)],
    "answers cut": [PASS, Plan("cut", 5, way="down"), PASS, Plan("cut", 5, way="down")],
    "stall": [Plan("stall", HALF, stall_seconds=0.5)] * 3,
    "answer dropped": [Plan("drop_answer", MIB)] * 4,
    "duplicate": [Plan("duplicate", MIB)] * 4,
    "slow": [Plan(bytes_per_second=2 * MIB)] * 2,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_arrives_whole_over_a_line_with(
    fault: str, sender: Uploading, delivery: Delivery, check: Check
) -> None:
    file = delivery.file()
    delivery.proxy.plan(*FAULTS[fault])
    result = delivery.send(sender, file)
    assert result["outcome"] == "success", result
    if fault not in {"none", "slow", "answers cut"}:
        assert delivery.proxy.acted
    delivery.check_stored(file)
    assert check() == []


def test_a_half_dead_request_gives_way_within_two_seconds(
    sender: Uploading, delivery: Delivery, check: Check
) -> None:
    file = delivery.file()
    delivery.proxy.plan(*[Plan("stall", HALF, stall_seconds=0.1)] * 2)
    began = time.monotonic()
    result = delivery.send(sender, file)
    assert result["outcome"] == "success", result
    assert delivery.proxy.acted
    # Two stalls of 0.1 s, as many pauses of 0.3 s, a client's start and 3 MiB beside.
    assert time.monotonic() - began < 2 * 2 + 4
    delivery.check_stored(file)
    assert check() == []


@pytest.mark.parametrize("chunk_bytes", [MIB, 700_001])
def test_a_file_in_chunks_arrives_whole(
    chunk_bytes: int, sender: Uploading, delivery: Delivery, check: Check
) -> None:
    file = delivery.file()
    delivery.proxy.plan(PASS, Plan("reset", MIB // 2), PASS, Plan("drop_answer"))
    result = delivery.send(sender, file, chunk_bytes=chunk_bytes)
    assert result["outcome"] == "success", result
    delivery.check_stored(file)
    assert check() == []


def test_tuspys_own_checksums_are_taken(delivery: Delivery, check: Check) -> None:
    file = delivery.file()
    result = delivery.send(TusPy(), file, chunk_bytes=MIB, checksum=True)
    assert result["outcome"] == "success", result
    delivery.check_stored(file)
    assert check() == []


def test_the_first_bytes_come_with_the_creation(
    tus_js: TusJs, delivery: Delivery, check: Check
) -> None:
    file = delivery.file()
    javascript = {"uploadDataDuringCreation": True}
    result = delivery.send(tus_js, file, javascript=javascript)
    assert result["outcome"] == "success", result
    assert result["requests"] == 1
    delivery.check_stored(file)
    assert check() == []


def test_a_creation_with_bytes_that_is_cut_is_tried_again(
    tus_js: TusJs, delivery: Delivery, check: Check
) -> None:
    file = delivery.file()
    delivery.proxy.plan(Plan("reset", HALF), Plan("drop_answer", HALF))
    javascript = {"uploadDataDuringCreation": True, "overridePatchMethod": True}
    result = delivery.send(tus_js, file, chunk_bytes=2 * MIB, javascript=javascript)
    assert result["outcome"] == "success", result
    delivery.check_stored(file)
    assert check() == []


def test_an_empty_file_is_a_file(sender: Uploading, delivery: Delivery, check: Check) -> None:
    file = delivery.file(size_bytes=0)
    result = delivery.send(sender, file, chunk_bytes=MIB)
    assert result["outcome"] == "success", result
    delivery.check_stored(file)
    assert check() == []
