"""The door of the pipeline: one function per step, each telling the gateway how it went."""

from __future__ import annotations

import contextlib
import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from pipeline import outcome, overview, restage
from pipeline.delivery import read_conf
from pipeline.errors import DeliveryError, platform_failure
from pipeline.limits import Limits
from pipeline.order import Order, read_order
from pipeline.plan import label_of, make_plan
from pipeline.process import process_group
from pipeline.rejects import MAX_DETAIL_CHARS, printable
from pipeline.report import TRIES, Gateway
from pipeline.staging import Plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.delivery import Delivery
    from pipeline.outcome import FileRows
    from pipeline.process import Processed
    from pipeline.rejects import Reject

# What a data engineer reads in a task's log is there, however little else the platform logs.
log = logging.getLogger("pipeline")
log.setLevel(logging.INFO)


@dataclass(frozen=True)
class TaskRun:
    """Which try of which task speaks."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    is_last_try: bool = False


@dataclass
class Rows:
    """Counts of one part of a step."""

    read: int = 0
    loaded: int = 0
    rejected: int = 0


@dataclass
class Step:
    """What is reported of one part of a step when it ends."""

    total: int
    rows: Rows = field(default_factory=Rows)
    rejects: list[Reject] = field(default_factory=list)
    files: list[FileRows] = field(default_factory=list)
    plan: dict[str, Any] | None = None


def plan(entry: dict[str, Any], conf: Any, run: TaskRun) -> list[dict[str, Any]]:
    """Plan a job; give one small description per task of the next step.

    Parameters
    ----------
    entry
        The project's entry in the registry.
    conf
        The run's conf, not yet trusted.

    Raises
    ------
    ConfError
        If the conf is not the gateway's for this project.
    DeliveryError
        If the delivery cannot be loaded; the gateway knows of it then.
    """
    delivery = _delivery(entry, conf, run)
    step = Step(1)
    with _gateway() as gateway, _reported(gateway, delivery, run, "plan", step):
        keys = gateway.jwks()
        order = read_order(delivery, entry, keys)
        if order.staged_job is not None:
            made = restage.take_over(delivery, order)
        else:
            limits = Limits.of(os.environ)
            made = make_plan(delivery, order.contract, order.on_reject, keys, limits=limits)
        order.write(delivery)
        step.plan = overview.as_json(made)
    log.info("%s", overview.table_of(made))
    total = len(made.groups)
    return [{"index": i, "total": total, "label": label_of(made, i)} for i in range(total)]


def process(entry: dict[str, Any], conf: Any, run: TaskRun, part: dict[str, Any]) -> dict[str, Any]:
    """Process one part of a plan.

    Raises
    ------
    ConfError, DeliveryError
        As `plan`.
    """
    delivery = _delivery(entry, conf, run)
    made = Plan.read(delivery)
    step = Step(len(made.groups))
    with _gateway() as gateway, _reported(gateway, delivery, run, "process", step):
        done = _process(delivery, made, int(part["index"]))
        step.files = done.files
        step.rows = Rows(read=done.read, rejected=done.rejected)
        step.rejects = done.rejects
    return {"index": int(part["index"]), "read": done.read, "rejected": done.rejected}


def publish(entry: dict[str, Any], conf: Any, run: TaskRun) -> dict[str, int]:
    """Publish a processed batch; give the counts of the whole batch.

    Raises
    ------
    ConfError, DeliveryError
        As `plan`.
    """
    delivery = _delivery(entry, conf, run)
    step = Step(1)
    # What commits is loaded by this step alone: the others, of which there are many, start sooner.
    from pipeline.publish import publish_batch  # noqa: PLC0415

    with _gateway() as gateway, _reported(gateway, delivery, run, "publish", step, asks=True):
        done = publish_batch(delivery, Plan.read(delivery))
        step.rows = Rows(loaded=done.loaded, rejected=done.rejected_here)
        step.rejects = done.rejects
        step.files = done.files
    return {"read": done.read, "loaded": done.loaded, "rejected": done.rejected}


def _process(delivery: Delivery, made: Plan, index: int) -> Processed:
    order = Order.read(delivery)
    if order is not None and order.staged_job is not None:
        return restage.take_part(delivery, order, index)
    return process_group(delivery, made, index, Limits.of(os.environ))


def _delivery(entry: dict[str, Any], conf: Any, run: TaskRun) -> Delivery:
    return read_conf(
        conf,
        client=entry["client"],
        project=entry["project"],
        run_id=run.run_id,
        roots=os.environ,
    )


@contextmanager
def _gateway() -> Iterator[Gateway]:
    env = os.environ
    gateway = Gateway(
        env["INGEST_GATEWAY_URL"],
        env["INGEST_GATEWAY_USER"],
        env["INGEST_GATEWAY_PASSWORD_FILE"],
    )
    with contextlib.closing(gateway):
        yield gateway


@contextmanager
def _reported(
    gateway: Gateway,
    delivery: Delivery,
    run: TaskRun,
    name: str,
    step: Step,
    *,
    asks: bool = False,
) -> Iterator[None]:
    """Tell the gateway that a part began, and how it ended.

    The end may not get lost: if it cannot be told, the task fails, and is tried again. Nor may the
    beginning of a part that ``asks``, because it loads: whoever clears a run of a job that has
    ended must not get rows loaded that no job tells of. Otherwise the beginning is a courtesy.
    """
    body = body_of(delivery, run, name, "running", step)
    with contextlib.suppress(*([] if asks else [httpx.HTTPError])):
        gateway.progress(delivery.job_id, body, tries=TRIES if asks else 1)
    try:
        yield
    except DeliveryError as error:
        step.rows = Rows(rejected=error.rows_rejected)
        step.rejects = error.rejects
        failure = {"code": error.code, "detail": printable(error.detail, MAX_DETAIL_CHARS)}
        gateway.progress(delivery.job_id, body_of(delivery, run, name, "failed", step, failure))
        raise
    except Exception as error:
        if run.is_last_try:
            code, detail = platform_failure(error)
            failure = {"code": code, "detail": detail}
            with contextlib.suppress(httpx.HTTPError, DeliveryError):
                gateway.progress(
                    delivery.job_id, body_of(delivery, run, name, "failed", step, failure)
                )
        raise
    gateway.progress(delivery.job_id, body_of(delivery, run, name, "succeeded", step))


def body_of(
    delivery: Delivery,
    run: TaskRun,
    name: str,
    state: str,
    step: Step,
    error: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Give the report as the gateway reads it."""
    return {
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "batch_id": delivery.batch_id,
        "attempt": delivery.attempt,
        "task_id": run.task_id,
        "map_index": run.map_index,
        "try_number": run.try_number,
        "step": name,
        "state": state,
        "total": step.total,
        "rows": {
            "read": step.rows.read,
            "loaded": step.rows.loaded,
            "rejected": step.rows.rejected,
        },
        "files": outcome.as_json(step.files),
        "rejects": [reject.as_json() for reject in step.rejects],
        "plan": step.plan,
        "error": error,
    }
