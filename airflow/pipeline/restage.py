"""A replay that starts from what an earlier attempt staged: its rows are judged as a whole anew."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.errors import DeliveryError
from pipeline.process import Processed, process_group, results_of
from pipeline.rejects import Reject
from pipeline.staging import Plan, fresh_dir, part_dir, read_json, replace_dir, try_dir

if TYPE_CHECKING:
    from pipeline.delivery import Delivery
    from pipeline.limits import Limits
    from pipeline.order import Order


def take_over(delivery: Delivery, order: Order) -> Plan:
    """Plan a job whose rows an earlier attempt has staged, under the same contract.

    Raises
    ------
    DeliveryError
        ``nothing-staged`` if they are no longer there, or were staged under another contract.
    """
    earlier = _earlier(delivery, order)
    try:
        plan = Plan.read(earlier)
    except FileNotFoundError as error:
        raise _gone() from error
    if plan.contract != order.contract:
        detail = "the rows were staged under another contract; replay the batch from landing"
        raise DeliveryError("nothing-staged", detail)
    if not all((part_dir(earlier, i) / "result.json").exists() for i in range(len(plan.groups))):
        raise _gone()
    fresh_dir(delivery.staged_dir)
    mine = replace(plan, on_reject=order.on_reject)
    mine.write(delivery)
    return mine


def process_part(
    delivery: Delivery, plan: Plan, order: Order | None, index: int, limits: Limits
) -> Processed:
    """Process one part of a plan, or take its rows from the attempt that the order names.

    Raises
    ------
    DeliveryError
        As `process_group` and `take_part`.
    """
    if order is not None and order.staged_job is not None:
        return take_part(delivery, order, index)
    return process_group(delivery, plan, index, limits)


def take_part(delivery: Delivery, order: Order, index: int) -> Processed:
    """Give this job the rows of one part, as names of the very same files.

    Raises
    ------
    DeliveryError
        ``nothing-staged``.
    """
    source, final = part_dir(_earlier(delivery, order), index), part_dir(delivery, index)
    working = try_dir(final)
    try:
        for path in sorted(source.iterdir()):
            # Never rewritten once they have their name, so one file can bear two.
            (working / path.name).hardlink_to(path)
    except FileNotFoundError as error:
        raise _gone() from error
    replace_dir(working, final)
    return _processed(delivery, index)


def _processed(delivery: Delivery, index: int) -> Processed:
    results = results_of(delivery, index)
    told = part_dir(delivery, index) / "rejects.json"
    rejects = [Reject(**each) for each in read_json(told)] if told.exists() else []
    return Processed.of(results, rejects)


def _earlier(delivery: Delivery, order: Order) -> Delivery:
    if order.staged_job is None:
        raise _gone()
    return replace(delivery, job_id=order.staged_job)


def _gone() -> DeliveryError:
    return DeliveryError(
        "nothing-staged", "the staged rows are gone; replay the batch from landing"
    )
