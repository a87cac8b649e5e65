"""Orders: pinned contracts, replays from staged rows, and batches that take others' places."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.errors import DeliveryError

if TYPE_CHECKING:
    from tests.pipeline.conftest import Stage

GOOD = b"flight,carrier,delay\n1,AA,2.5\n2,UA,NA\nx,UA,1\n"


def order(stage: Stage, batch: str, attempt: int = 1, **said: Any) -> None:
    """Lay an order beside a batch's manifest, as the gateway does before it starts a run."""
    conf = stage.conf(batch, attempt)
    document = {
        "version": 1,
        "job": conf["job_id"],
        "batch": batch,
        "client": "acme",
        "project": "flights",
        "attempt": attempt,
        "contract": stage.entry["contract"],
        "contract_sha256": "0" * 64,
        "on_reject": stage.on_reject,
        "from": "staged" if said.get("staged_job") else "landing",
        "staged_job": None,
        "retires": [],
        **said,
    }
    signed = stage.gateway.sign(json.dumps(document).encode(), typ=said.pop("typ", "order+jws"))
    (stage.batch_dir(batch) / f"{conf['job_id']}.jws").write_bytes(signed)


def from_staged(stage: Stage, batch: str, attempt: int = 2) -> dict[str, int]:
    order(stage, batch, attempt, staged_job=stage.conf(batch, 1)["job_id"])
    return stage.run(batch, attempt)


def test_a_job_uses_the_contract_it_is_ordered_not_the_registrys(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD})
    order(stage, batch)
    stage.properties[2] = {**stage.properties[2], "required": True}
    assert stage.run(batch) == {"read": 3, "loaded": 2, "rejected": 1}
    assert stage.run(batch, attempt=2) == {"read": 3, "loaded": 1, "rejected": 2}


@pytest.mark.parametrize(
    "said", [{"job": "job_00000000000000000000000009"}, {"project": "weather"}, {"retires": ["x'"]}]
)
def test_an_order_for_another_job_is_refused(stage: Stage, said: dict[str, Any]) -> None:
    batch = stage.land({"a.csv": GOOD})
    order(stage, batch, **said)
    with pytest.raises(DeliveryError, match="bad-order"):
        stage.run(batch)


def test_a_receipt_cannot_stand_for_an_order(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD})
    job = stage.conf(batch)["job_id"]
    shutil.copy(stage.batch_dir(batch) / "receipt.jws", stage.batch_dir(batch) / f"{job}.jws")
    with pytest.raises(DeliveryError, match="bad-order"):
        stage.run(batch)


def test_a_replay_from_staged_replaces_the_rows_and_needs_no_landed_file(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD, "b.csv": GOOD})
    first = stage.run(batch)
    rows, told = stage.curated(), (stage.gateway.rows(), stage.gateway.rejects())
    shutil.rmtree(stage.batch_dir(batch) / "files")
    assert from_staged(stage, batch) == first
    assert stage.curated().equals(rows)
    assert (stage.gateway.rows(), stage.gateway.rejects()) == told


def test_a_replay_from_staged_judges_the_whole_under_the_tolerance_of_its_order(
    stage: Stage,
) -> None:
    batch = stage.land({"a.csv": GOOD})
    stage.run(batch)
    stage.on_reject = {"policy": "fail-batch"}
    with pytest.raises(DeliveryError, match="too-many-rejects"):
        from_staged(stage, batch)
    assert stage.curated().height == 2


def test_rows_staged_under_another_contract_are_not_taken(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD})
    stage.run(batch)
    stage.properties[2] = {**stage.properties[2], "required": True}
    with pytest.raises(DeliveryError, match="nothing-staged"):
        from_staged(stage, batch)


def test_staged_rows_that_are_gone_are_missed(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD})
    stage.run(batch)
    shutil.rmtree(stage.root / "staged" / "acme" / "flights" / batch)
    with pytest.raises(DeliveryError, match="nothing-staged"):
        from_staged(stage, batch)


def test_a_correction_of_a_correction_that_never_loaded_retires_both(stage: Stage) -> None:
    first = stage.land({"a.csv": GOOD}, batch=1)
    stage.run(first)
    second = stage.land({"a.csv": GOOD}, batch=2, supersedes=first)
    third = stage.land({"a.csv": b"flight,carrier,delay\n9,DL,1\n"}, batch=3, supersedes=second)
    order(stage, third, retires=[second, first])
    stage.run(third)
    assert stage.curated()["flight"].to_list() == [9]
    for late in (first, second):
        with pytest.raises(DeliveryError, match="stale-attempt"):
            stage.run(late, attempt=2)


def test_rows_of_each_file_are_told(stage: Stage) -> None:
    stage.properties[0] = {**stage.properties[0], "unique": True}
    stage.load({"a.csv": GOOD, "b.csv": b"flight,carrier,delay\n2,DL,1\n3,DL,1\n"})
    told: dict[str, list[int]] = {}
    for report in stage.gateway.ended():
        for each in report["files"]:
            sums = told.setdefault(each["file"], [0, 0, 0])
            for i, name in enumerate(("read", "loaded", "rejected")):
                sums[i] += each[name]
    assert told == {"a.csv": [3, 2, 1], "b.csv": [2, 1, 1]}


def test_curated_rows_carry_their_batch_file_and_line(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD})
    stage.run(batch)
    assert stage.curated().select("_batch_id", "_file", "_line").rows() == [
        (batch, "a.csv", 2),
        (batch, "a.csv", 3),
    ]
