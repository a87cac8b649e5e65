"""The processing of a plan's parts as a Spark application: its driver, and what executors do.

``spark-submit`` starts it in Spark's own Python environment. There is one Spark task for each part,
which does what a task of Airflow's would: the same functions, on the same shared disk. Executors
need no account anywhere. What became of each part is a line of the driver's standard output, as soon
as it is known; `pipeline.spark` reads them.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pipeline import restage
from pipeline.delivery import Delivery
from pipeline.errors import DeliveryError
from pipeline.limits import Limits
from pipeline.order import Order
from pipeline.staging import Plan

if TYPE_CHECKING:
    from collections.abc import Iterator

# Before each line that tells of something; anything else may write to standard output too.
MARK = "\x1e"
_LOOK_SECONDS = 0.2
_ROOTS = ("landing", "staged", "curated")


@dataclass(frozen=True)
class Work:
    """What the application is to do, as it is handed over on its command line.

    ``patience_seconds`` is how long nobody may be at work on any part before it gives up.
    """

    delivery: Delivery
    total: int
    limits: Limits
    patience_seconds: float

    def as_text(self) -> str:
        """Give the text that `of_text` reads."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def of_text(cls, text: str) -> Self:
        """Read what `as_text` gave."""
        value = json.loads(text)
        roots = {name: Path(value["delivery"][name]) for name in _ROOTS}
        delivery = Delivery(**{**value["delivery"], **roots})
        return cls(delivery, value["total"], Limits(**value["limits"]), value["patience_seconds"])


class _Lines:
    """Collects lines of executors in the driver; Spark adds those of each task exactly once."""

    def zero(self, _value: list[str]) -> list[str]:
        return []

    def addInPlace(self, held: list[str], more: list[str]) -> list[str]:  # noqa: N802 - Spark's name
        held.extend(more)
        return held


def main(words: list[str]) -> int:
    """Process all parts; the exit code is 0 if each was told of."""
    from pyspark import SparkContext  # noqa: PLC0415 - only where Spark is

    work = Work.of_text(words[0])
    try:
        with SparkContext(appName=f"gw.{work.delivery.job_id}") as context:
            _run(context, work)
    except Exception as error:  # noqa: BLE001 - whatever ends it, the one who waits is told
        _tell(json.dumps({"stopped": str(error)}))
        return 1
    return 0


def _run(context: Any, work: Work) -> None:
    lines = context.accumulator([], _Lines())
    parts = context.parallelize(range(work.total), work.total)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(parts.foreachPartition, partial(_process, work, lines))
        try:
            _watch(context, work, job, lines.value)
        except BaseException:
            context.cancelAllJobs()  # or leaving the pool would wait for it
            raise
    job.result()


def _watch(context: Any, work: Work, job: Future[None], lines: list[str]) -> None:
    at_work, told = time.monotonic(), 0
    while not job.done():
        wait([job], _LOOK_SECONDS)
        active, done = _progress(context.statusTracker())
        if _drain(lines) or active:
            at_work = time.monotonic()
        if active + done > told:
            told = active + done
            _tell(json.dumps({"began": told}))
        if time.monotonic() > at_work + work.patience_seconds:
            msg = f"nobody took a part for {work.patience_seconds:.0f} s"
            raise TimeoutError(msg)
    _drain(lines)


def _drain(lines: list[str]) -> int:
    told = 0
    while lines:
        _tell(lines.pop(0))
        told += 1
    return told


def _progress(tracker: Any) -> tuple[int, int]:
    """Give how many parts are at work and how many are done; they are begun in their order."""
    stages = [tracker.getStageInfo(each) for each in tracker.getActiveStageIds()]
    found = [each for each in stages if each is not None]
    return sum(each.numActiveTasks for each in found), sum(each.numCompletedTasks for each in found)


def _tell(line: str) -> None:
    sys.stdout.write(f"{MARK}{line}\n")
    sys.stdout.flush()


def _process(work: Work, lines: Any, indexes: Iterator[int]) -> None:
    """Process parts in an executor.

    What is wrong with the delivery is told, for another try would find the same. Anything else
    fails the task, and Spark tries it again, elsewhere if it can.
    """
    plan, order = _planned(work.delivery)
    for index in indexes:
        try:
            done = restage.process_part(work.delivery, plan, order, index, work.limits)
            told = {"done": asdict(done)}
        except DeliveryError as error:
            rejects = [asdict(each) for each in error.rejects]
            fault = {"code": error.code, "detail": error.detail, "rejects": rejects}
            told = {"fault": {**fault, "rows_rejected": error.rows_rejected}}
        lines.add([json.dumps({"index": index, **told})])


@lru_cache(maxsize=1)
def _planned(delivery: Delivery) -> tuple[Plan, Order | None]:
    return Plan.read(delivery), Order.read(delivery)
