"""What the gateway is told of a part of a step: that it began, and how it ended."""

from __future__ import annotations

import contextlib
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from pipeline import outcome
from pipeline.errors import DeliveryError, platform_failure
from pipeline.rejects import MAX_DETAIL_CHARS, printable
from pipeline.report import TRIES, Gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.delivery import Delivery
    from pipeline.outcome import FileRows
    from pipeline.process import Processed
    from pipeline.rejects import Reject


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

    def take(self, done: Processed) -> None:
        """Note what became of a part's rows."""
        self.files = done.files
        self.rows = Rows(read=done.read, rejected=done.rejected)
        self.rejects = done.rejects


@contextmanager
def gateway() -> Iterator[Gateway]:
    """Give the gateway that the environment names."""
    env = os.environ
    found = Gateway(
        env["INGEST_GATEWAY_URL"],
        env["INGEST_GATEWAY_USER"],
        env["INGEST_GATEWAY_PASSWORD_FILE"],
    )
    with contextlib.closing(found):
        yield found


@dataclass
class Part:
    """Tells the gateway of one part of a step.

    The end may not get lost: if it cannot be told, the task fails, and is tried again. Nor may the
    beginning of a part that ``asks``, because it loads: whoever clears a run of a job that has
    ended must not get rows loaded that no job tells of. Otherwise the beginning is a courtesy.
    """

    gateway: Gateway
    delivery: Delivery
    run: TaskRun
    name: str
    step: Step
    asks: bool = False

    def began(self) -> None:
        """Tell that it began.

        Raises
        ------
        DeliveryError
            ``job-closed``.
        """
        with contextlib.suppress(*([] if self.asks else [httpx.HTTPError])):
            self._tell("running", tries=TRIES if self.asks else 1)

    def succeeded(self) -> None:
        """Tell that it is done."""
        self._tell("succeeded")

    def failed(self, error: Exception) -> None:
        """Tell why it failed: for good with a delivery's fault, else only if no try is left."""
        if isinstance(error, DeliveryError):
            self.step.rows = Rows(rejected=error.rows_rejected)
            self.step.rejects = error.rejects
            detail = printable(error.detail, MAX_DETAIL_CHARS)
            self._tell("failed", {"code": error.code, "detail": detail})
        elif self.run.is_last_try:
            code, detail = platform_failure(error)
            with contextlib.suppress(httpx.HTTPError, DeliveryError):
                self._tell("failed", {"code": code, "detail": detail})

    def _tell(self, state: str, error: dict[str, str] | None = None, *, tries: int = TRIES) -> None:
        body = body_of(self.delivery, self.run, self.name, state, self.step, error)
        self.gateway.progress(self.delivery.job_id, body, tries=tries)


@contextmanager
def reported(part: Part) -> Iterator[None]:
    """Tell of a part for as long as the block takes."""
    part.began()
    try:
        yield
    except Exception as error:
        part.failed(error)
        raise
    part.succeeded()


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
