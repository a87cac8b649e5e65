"""The door of the pipeline: one function per step, each telling the gateway how it went."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline import overview, restage, spark
from pipeline.delivery import read_conf
from pipeline.limits import Limits
from pipeline.order import Order, read_order
from pipeline.plan import label_of, make_plan
from pipeline.staging import Plan
from pipeline.telling import Part, Rows, Step, TaskRun, gateway, reported

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.delivery import Delivery
    from pipeline.postgres_session import Place

# What a data engineer reads in a task's log is there, however little else the platform logs.
log = logging.getLogger("pipeline")
log.setLevel(logging.INFO)


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
    with gateway() as its, reported(Part(its, delivery, run, "plan", step)):
        keys = its.jwks()
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
    with gateway() as its, reported(Part(its, delivery, run, "process", step)):
        order, limits = Order.read(delivery), Limits.of(os.environ)
        done = restage.process_part(delivery, made, order, int(part["index"]), limits)
        step.take(done)
    return {"index": int(part["index"]), "read": done.read, "rejected": done.rejected}


def process_on_spark(entry: dict[str, Any], conf: Any, run: TaskRun) -> dict[str, int]:
    """Process every part of a plan on the platform's Spark; give the counts of all of them.

    The gateway is told of each part as if a task of its own had done it.

    Raises
    ------
    ConfError, DeliveryError
        As `plan`.
    EngineError, WorkerError
        The cluster did not do its part, or a part failed in each of Spark's tries.
    """
    delivery = _delivery(entry, conf, run)
    total = len(Plan.read(delivery).groups)
    with gateway() as its:
        parts = [
            Part(its, delivery, replace(run, map_index=i), "process", Step(total))
            for i in range(total)
        ]
        spark.process(parts, Limits.of(os.environ), cores=entry["pool_slots"])
    read = sum(part.step.rows.read for part in parts)
    rejected = sum(part.step.rows.rejected for part in parts)
    return {"parts": total, "read": read, "rejected": rejected}


def publish(
    entry: dict[str, Any],
    conf: Any,
    run: TaskRun,
    database: Callable[[], Place] | None = None,
) -> dict[str, int]:
    """Publish a processed batch; give the counts of the whole batch.

    Parameters
    ----------
    database
        Gives the client's own database, for a project whose rows go there as well.

    Raises
    ------
    ConfError, DeliveryError
        As `plan`.
    PlatformError
        The client's database is away.
    """
    delivery = _delivery(entry, conf, run)
    step = Step(1)
    # What commits is loaded by this step alone: the others, of which there are many, start sooner.
    from pipeline.publish import publish_batch  # noqa: PLC0415

    with gateway() as its, reported(Part(its, delivery, run, "publish", step, asks=True)):
        done = publish_batch(delivery, Plan.read(delivery), database)
        step.rows = Rows(loaded=done.loaded, rejected=done.rejected_here)
        step.rejects = done.rejects
        step.files = done.files
    return {"read": done.read, "loaded": done.loaded, "rejected": done.rejected}


def _delivery(entry: dict[str, Any], conf: Any, run: TaskRun) -> Delivery:
    return read_conf(
        conf,
        client=entry["client"],
        project=entry["project"],
        run_id=run.run_id,
        roots=os.environ,
    )
