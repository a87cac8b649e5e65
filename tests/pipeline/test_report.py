"""What the gateway hears, and what happens when it does not answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from pipeline import tasks
from pipeline.errors import DeliveryError
from pipeline.tasks import TaskRun
from tests.pipeline.conftest import GOLDEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.pipeline.conftest import Stage

GOOD = b"flight,carrier,delay\n1,AA,2.5\n2,UA,NA\n"


def shape(value: object) -> object:
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def test_reports_have_exactly_the_golden_shape(stage: Stage) -> None:
    golden = json.loads((GOLDEN / "progress.json").read_text())
    stage.load({"a.csv": GOOD + b"3,AA,n/a\n"})
    processed = next(r for r in stage.gateway.ended() if r["step"] == "process")
    assert processed.pop("job_id") == stage.conf(f"bat_{1:026d}")["job_id"]
    assert shape(processed) == shape(golden["request"])
    planned = next(r for r in stage.gateway.ended() if r["step"] == "plan")
    del planned["job_id"]
    assert shape(planned) == shape(golden["planned"])
    (file,) = planned["plan"]["files"]
    assert (file["file"], file["table"], file["delimiter"]) == ("a.csv", "flights", ",")
    stage.on_reject = {"policy": "fail-batch"}
    with pytest.raises(DeliveryError):
        stage.load({"a.csv": GOOD + b"3,AA,n/a\n"}, batch=2)
    failed = next(r for r in stage.gateway.ended() if r["state"] == "failed")
    del failed["job_id"]
    assert shape(failed) == shape(golden["failed"])


def test_a_step_is_told_when_it_begins_and_when_it_ends(stage: Stage) -> None:
    stage.load({"a.csv": GOOD})
    told = [(r["step"], r["state"]) for r in stage.gateway.reports]
    steps = ("plan", "process", "publish")
    assert told == [(step, state) for step in steps for state in ("running", "succeeded")]


def test_one_token_serves_a_whole_process(stage: Stage) -> None:
    stage.load({"a.csv": GOOD})
    assert stage.gateway.tokens_issued == 1


def test_a_token_that_is_no_longer_good_is_renewed(stage: Stage) -> None:
    stage.load({"a.csv": GOOD}, batch=1)
    stage.gateway.valid_tokens.clear()
    stage.load({"a.csv": GOOD}, batch=2)
    assert stage.gateway.tokens_issued == 2
    assert len(stage.gateway.ended()) == 3


def test_a_gateway_that_stumbles_is_asked_again(stage: Stage) -> None:
    stage.gateway.faults = {"/progress": [503, 429, 500], "/token": [503], "/jwks.json": [502]}
    assert stage.load({"a.csv": GOOD})["loaded"] == 2
    assert len(stage.gateway.ended()) == 3


def test_a_report_that_cannot_be_told_fails_the_task_so_that_it_is_tried_again(
    stage: Stage,
) -> None:
    batch = stage.land({"a.csv": GOOD})
    stage.gateway.faults = {"/progress": [503] * 10}
    with pytest.raises(httpx.HTTPStatusError):
        stage.run(batch)
    stage.gateway.faults = {}
    assert stage.run(batch)["loaded"] == 2


def test_a_gateway_that_is_not_there_fails_the_task_so_that_it_is_tried_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = stage.land({"a.csv": GOOD})
    monkeypatch.setenv("INGEST_GATEWAY_URL", "http://127.0.0.1:9")
    with pytest.raises(httpx.ConnectError):
        stage.run(batch)


def test_a_job_that_was_closed_is_not_worked_on(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD})
    stage.gateway.faults = {"/progress": [409]}
    with pytest.raises(DeliveryError, match="job-closed"):
        stage.run(batch)
    assert not (stage.root / "curated" / "acme").exists()


def test_a_cleared_run_of_an_ended_job_loads_nothing_whichever_task_was_cleared(
    stage: Stage,
) -> None:
    batch = stage.land({"a.csv": GOOD})
    conf = stage.conf(batch)
    (part,) = tasks.plan(stage.entry, conf, stage.task("plan", conf))
    tasks.process(stage.entry, conf, stage.task("process", conf, 0), part)
    again: dict[str, Callable[[TaskRun], Any]] = {
        "plan": lambda run: tasks.plan(stage.entry, conf, run),
        "process": lambda run: tasks.process(stage.entry, conf, run, part),
        "publish": lambda run: tasks.publish(stage.entry, conf, run),
    }
    for name, step in again.items():
        stage.gateway.faults = {"/progress": [409]}
        run = TaskRun("acme__flights", f"gw.{conf['job_id']}", name, -1, 2)
        with pytest.raises(DeliveryError, match=r"the job of this run has ended.*replay"):
            step(run)
    assert not (stage.root / "curated" / "acme").exists()


def test_nothing_is_loaded_before_the_gateway_has_said_that_the_job_is_open(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD})
    conf = stage.conf(batch)
    (part,) = tasks.plan(stage.entry, conf, stage.task("plan", conf))
    tasks.process(stage.entry, conf, stage.task("process", conf, 0), part)
    stage.gateway.faults = {"/progress": [503] * 4}
    with pytest.raises(httpx.HTTPStatusError):
        tasks.publish(stage.entry, conf, stage.task("publish", conf))
    assert not (stage.root / "curated" / "acme").exists()
    assert tasks.publish(stage.entry, conf, stage.task("publish", conf))["loaded"] == 2


@pytest.mark.parametrize("is_last", [True, False])
def test_a_fault_of_ours_is_told_only_when_no_try_is_left(stage: Stage, *, is_last: bool) -> None:
    batch = stage.land({"a.csv": GOOD})
    conf = stage.conf(batch)
    (part,) = tasks.plan(stage.entry, conf, stage.task("plan", conf))
    (stage.root / "staged" / "acme" / "flights" / batch / conf["job_id"] / "parts").touch()
    run = TaskRun("acme__flights", f"gw.{conf['job_id']}", "process", 0, 3, is_last_try=is_last)
    with pytest.raises(OSError, match="parts"):
        tasks.process(stage.entry, conf, run, part)
    errors = [r["error"]["code"] for r in stage.gateway.reports if r["error"]]
    assert errors == (["internal-error"] if is_last else [])


def test_a_step_tried_again_after_it_was_done_gives_the_same(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD})
    stage.run(batch)
    conf = stage.conf(batch)
    part = {"index": 0, "total": 1, "label": "a.csv"}
    tasks.process(stage.entry, conf, stage.task("process", conf, 0), part)
    again = tasks.publish(stage.entry, conf, stage.task("publish", conf))
    assert again == {"read": 2, "loaded": 2, "rejected": 0}
    assert stage.curated().height == 2
