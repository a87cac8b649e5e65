"""Tables made again from landed files, and layers that retention takes."""

from __future__ import annotations

import io
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable

from pipeline import __main__ as program
from pipeline import purge, rebuild
from pipeline.errors import DeliveryError

if TYPE_CHECKING:
    from tests.pipeline.conftest import Stage

GOOD = b"flight,carrier,delay\n1,AA,2.5\n2,UA,NA\nx,UA,1\n"
OTHER = b"flight,carrier,delay\n7,DL,1\n8,DL,2\n"


def entry(stage: Stage, batch: str, attempt: int = 1) -> dict[str, Any]:
    return {
        "batch": batch,
        "job": stage.conf(batch, attempt)["job_id"],
        "attempt": attempt,
        "contract": stage.entry["contract"],
        "on_reject": stage.on_reject,
    }


def task(stage: Stage, *entries: dict[str, Any], **said: Any) -> dict[str, Any]:
    public = stage.gateway.key.as_dict(private=False)
    return {
        "client": "acme",
        "project": "flights",
        "batches": list(entries),
        "retired": [],
        "left_out": [],
        "jwks": {"keys": [{**public, "use": "sig", "alg": "ES256"}]},
        **said,
    }


def table(stage: Stage) -> DeltaTable:
    return DeltaTable(str(stage.root / "curated" / "acme" / "flights" / "flights"))


def test_a_rebuilt_table_equals_the_original_row_for_row(stage: Stage) -> None:
    first = stage.land({"a.csv": GOOD}, batch=1)
    second = stage.land({"b.csv": OTHER}, batch=2)
    stage.run(first)
    stage.run(second)
    stage.run(first, attempt=2)
    original, version = stage.curated(), table(stage).version()
    found = rebuild.run(task(stage, entry(stage, second), entry(stage, first, 2)), os.environ)
    assert found == {"tables": {"flights": 4}}
    assert stage.curated().equals(original)
    assert table(stage).version() == version + 1
    # Whoever reads the table as it was still can, and replays go on as before.
    assert DeltaTable(table(stage).table_uri, version=version).to_pyarrow_table().num_rows == 4
    with pytest.raises(DeliveryError, match="stale-attempt"):
        stage.run(first, attempt=1)
    assert stage.run(first, attempt=3)["loaded"] == 2
    assert stage.curated().equals(original)
    assert not list((stage.root / "staged").glob(".rebuild-*"))


def test_a_table_that_was_lost_is_made_again(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD})
    stage.run(batch)
    original = stage.curated()
    shutil.rmtree(stage.root / "curated" / "acme")
    rebuild.run(task(stage, entry(stage, batch)), os.environ)
    assert stage.curated().equals(original)


def test_damaged_rows_are_put_right_and_left_out_ones_go(stage: Stage) -> None:
    first, second = (stage.land({"a.csv": GOOD}, batch=i) for i in (1, 2))
    stage.run(first)
    stage.run(second)
    table(stage).delete(f"_batch_id = '{first}' AND flight = 1")
    rebuild.run(task(stage, entry(stage, first), left_out=[second]), os.environ)
    assert stage.curated().select("_batch_id", "flight").rows() == [(first, 1), (first, 2)]


def test_what_was_loaded_meanwhile_is_never_lost(stage: Stage) -> None:
    first, second = (stage.land({"a.csv": GOOD}, batch=i) for i in (1, 2))
    stage.run(first)
    stage.run(second)
    original = stage.curated()
    with pytest.raises(rebuild.ChangedError):
        rebuild.run(task(stage, entry(stage, first)), os.environ)
    stage.run(first, attempt=2)
    with pytest.raises(rebuild.ChangedError):
        rebuild.run(task(stage, entry(stage, first), entry(stage, second)), os.environ)
    assert stage.curated().equals(original)


def test_a_retired_batch_stays_retired_in_a_rebuilt_table(stage: Stage) -> None:
    older = stage.land({"a.csv": GOOD}, batch=1)
    newer = stage.land({"a.csv": OTHER}, batch=2, supersedes=older)
    stage.run(older)
    stage.run(newer)
    shutil.rmtree(stage.root / "curated" / "acme")
    rebuild.run(task(stage, entry(stage, newer), retired=[older]), os.environ)
    with pytest.raises(DeliveryError, match="stale-attempt"):
        stage.run(older, attempt=2)


def gone(batch: str, layer: str, *jobs: str) -> dict[str, Any]:
    named = {"client": "acme", "project": "flights", "batch": batch}
    return {"layers": [{**named, "layer": layer, "jobs": list(jobs)}]}


def test_purged_curated_rows_are_gone_from_the_table_and_from_the_disk(stage: Stage) -> None:
    first, second = (stage.land({"a.csv": GOOD}, batch=i) for i in (1, 2))
    stage.run(first)
    stage.run(second)
    job = stage.conf(first)["job_id"]
    for _ in range(2):
        purge.run(gone(first, "curated", job), os.environ)
    assert stage.curated()["_batch_id"].unique().to_list() == [second]
    directory = stage.root / "curated" / "acme" / "flights" / "flights"
    assert not list(directory.glob(f"_batch_id={first}*"))
    assert stage.run(first, attempt=2)["loaded"] == 2


def test_purged_staged_rows_are_those_of_the_jobs_that_are_named(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD})
    stage.run(batch)
    stage.run(batch, attempt=2)
    directory = stage.root / "staged" / "acme" / "flights" / batch
    for _ in range(2):
        purge.run(gone(batch, "staged", stage.conf(batch)["job_id"]), os.environ)
    assert [each.name for each in directory.iterdir()] == [stage.conf(batch, 2)["job_id"]]
    purge.run(gone(batch, "staged", stage.conf(batch, 2)["job_id"]), os.environ)
    assert not directory.exists()


def test_the_program_answers_in_json_and_says_what_is_wrong(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def asks(name: str, said: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(said)))
        code = program.main([name])
        return code, json.loads(capsys.readouterr().out)

    batch = stage.land({"a.csv": GOOD})
    stage.run(batch)
    assert asks("rebuild", task(stage, entry(stage, batch))) == (0, {"tables": {"flights": 2}})
    code, answer = asks("purge", gone("../..", "curated", stage.conf(batch)["job_id"]))
    assert (code, answer) == (1, {"error": "batch_id is not a valid id"})
    assert program.main([]) == 2
