"""Delivers files, and waits until they are rows."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, conf
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from gateway.provider import telling
from gateway.provider.hooks import GatewayHook
from gateway.provider.links import GatewayJobLink
from gateway.provider.triggers import GatewayJobTrigger
from gateway.sdk import delivery, problems, records
from gateway.sdk import follow as following
from gateway.sdk.client import GatewayClient
from gateway.sdk.delivery import Order
from gateway.sdk.display import describe
from gateway.sdk.problems import AbortedError, ClientError, GatewayProblem
from gateway.sdk.records import Job
from gateway.sdk.watching import UNHURRIED

_ENDED_WELL = frozenset({records.SUCCEEDED, records.PARTIALLY_SUCCEEDED})
_ENDED_BADLY = records.ENDED - _ENDED_WELL
# In the log; the XCom has more of them.
_SHOWN_REJECTS = 20


class GatewayDeliverOperator(BaseOperator):
    """Delivers files as one batch, has it sealed, and waits for the job that loads it.

    Repeating it is harmless: a later try of the task, on whatever worker, finds the delivery by
    its reference, sends what is missing and goes on waiting. What is wrong with the files or
    their rows fails the task at once, with no retries; whatever may pass is left to them.

    Cleared after its job has failed or was canceled, the task has the batch processed once more,
    if the account may (``jobs:write``). A job that is still being canceled is waited for, and
    ends this try too.

    Parameters
    ----------
    project, reference
        The feed, and the client's own name for this delivery: the same in each try, another in
        each run. Both are templates.
    paths
        The files, or one of them; templates, or the result of another task.
    gateway_conn_id
        A connection of the type *Ingestion Gateway*.
    mode
        ``validate`` loads nothing and reports everything.
    period, metadata
        What the data is about, and what else is kept in the manifest. Templates.
    replace
        Whether an earlier try's files of an open batch may be removed where they are not, or no
        longer, the ones to send.
    parallel
        Files to send at a time.
    patience
        How long a call is repeated within one try of the task while the gateway is away.
    wait_for_job
        Whether to wait at all; without, the task succeeds once the batch is sealed.
    deferrable
        Whether to wait in the triggerer, without a worker; default: Airflow's own setting.
    wait_timeout
        How long to wait. The job goes on; a later try waits anew.
    fail_on_rejects
        Whether rows that were rejected within the project's tolerance fail the task.
    max_rejects
        How many of them the XCom names; all are counted.
    cancel_on_kill
        Whether to cancel the job, if the account may, when the task is ended from outside.

    Notes
    -----
    XComs: ``batch_id``, ``job_id``, ``receipt`` and, when the job has ended, ``rows`` and
    ``rejects`` (``{"total": 1, "shown": [{"file", "line", "column", "rule", "value"}]}``); the
    result is ``{"batch_id", "job_id", "state", "rows"}``.

    What large files need to go on in the middle is noted below ``XDG_STATE_HOME`` of the worker;
    a try on another one sends anew those that were not complete.
    """

    template_fields: Sequence[str] = (
        "project",
        "reference",
        "paths",
        "gateway_conn_id",
        "mode",
        "period",
        "metadata",
    )
    template_fields_renderers = {"period": "json", "metadata": "json"}  # noqa: RUF012 - Airflow's
    operator_extra_links = (GatewayJobLink(),)
    ui_color = "#dcebf7"

    _hook: GatewayHook

    def __init__(  # noqa: PLR0913
        self,
        *,
        project: str,
        reference: str,
        paths: str | Sequence[str],
        gateway_conn_id: str = GatewayHook.default_conn_name,
        mode: str = "load",
        period: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        replace: bool = True,
        parallel: int = delivery.PARALLEL,
        patience: timedelta = timedelta(minutes=5),
        wait_for_job: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        wait_timeout: timedelta = timedelta(days=1),
        fail_on_rejects: bool = False,
        max_rejects: int = 100,
        cancel_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.project = project
        self.reference = reference
        self.paths = paths
        self.gateway_conn_id = gateway_conn_id
        self.mode = mode
        self.period = period
        self.metadata = metadata
        self.replace = replace
        self.parallel = parallel
        self.patience = patience
        self.wait_for_job = wait_for_job
        self.deferrable = deferrable
        self.wait_timeout = wait_timeout
        self.fail_on_rejects = fail_on_rejects
        self.max_rejects = max_rejects
        self.cancel_on_kill = cancel_on_kill
        self.job_page = ""
        self._gateway: GatewayClient | None = None

    def execute(self, context: Any) -> dict[str, Any] | None:
        """Deliver, and wait or have it waited."""
        with self._speaking() as gateway:
            job = self._deliver(context, gateway)
            if not self.wait_for_job:
                return telling.outcome_value(job)
            if not job.has_ended and self.deferrable:
                self._defer(context, job)
            if not job.has_ended:
                job = self._waited_for(gateway, job)
            return self._conclude(context, gateway, job)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """Go on once the trigger has fired; what became of the job is asked anew."""
        with self._speaking() as gateway:
            job = gateway.get_job(event["job_id"])
            self._tell(job)
            self._show_page(job)
            if not job.has_ended:
                raise AirflowException(event["reason"])
            return self._conclude(context, gateway, job)

    def on_kill(self) -> None:
        """End what is under way; what has arrived stays there, for a later try to go on.

        Notes
        -----
        A signal handler: the interrupted thread may hold any lock, and goes on when it returns.
        """
        gateway = self._gateway
        if gateway is not None:
            threading.Thread(target=gateway.transport.abort, daemon=True).start()

    @contextmanager
    def _speaking(self) -> Iterator[GatewayClient]:
        """Give a client for as long as the block lasts, and tell failures as Airflow does."""
        self._hook = GatewayHook(self.gateway_conn_id, retry_seconds=self.patience.total_seconds())
        try:
            with self._hook.get_conn() as gateway:
                self._gateway = gateway
                yield gateway
        except AbortedError as error:
            raise AirflowException("stopped; what has arrived is kept for the next try") from error
        except ClientError as error:
            kind = AirflowFailException if problems.is_final(error) else AirflowException
            raise kind(str(error)) from error
        except ValueError as error:
            raise AirflowFailException(str(error)) from error
        finally:
            self._gateway = None

    def _deliver(self, context: Any, gateway: GatewayClient) -> Job:
        """Deliver, leave the proof behind, and return the job there is for it."""
        paths = [self.paths] if isinstance(self.paths, str) else self.paths
        order = Order(
            project=self.project,
            reference=self.reference,
            paths=[Path(path) for path in paths],
            mode=self.mode,
            period=self.period,
            metadata=self.metadata or {},
            replace=self.replace,
        )
        watcher = telling.LogWatcher(self.log)
        with closing(self._hook.notes(self.project, self.reference)) as notes:
            delivered = delivery.deliver(gateway, order, watcher, self.parallel, notes)
        self.log.info("sealed: %d files, receipt verified", len(delivered.files))
        job = gateway.get_job(delivered.job)
        if watcher.was_sealed and job.state in _ENDED_BADLY:
            job = self._once_more(gateway, job)
        compact = gateway.receipt(delivered.batch)
        self._push(context, "batch_id", delivered.batch)
        self._push(context, "receipt", telling.receipt_value(delivered.receipt, compact))
        self._push(context, "job_id", job.id)
        self._tell(job)
        self._show_page(job)
        return job

    def _once_more(self, gateway: GatewayClient, job: Job) -> Job:
        """Have a batch processed again whose job an earlier try of this task has seen end."""
        self.log.info("%s; it is to be processed once more", describe(job))
        try:
            return gateway.replay(job.batch, f"Airflow runs {self.dag_id}.{self.task_id} again")
        except GatewayProblem as problem:
            if problem.slug != "forbidden":
                raise
            self.log.warning("%s may not ask for that", self._hook.way.account.user)
            return job

    def _defer(self, context: Any, job: Job) -> None:
        # Airflow writes links down when a task has ended; this one is of use before that.
        self._push(context, GatewayJobLink().xcom_key, self.job_page)
        self.defer(
            trigger=GatewayJobTrigger(
                gateway_conn_id=self.gateway_conn_id,
                job_id=job.id,
                until=time.time() + self.wait_timeout.total_seconds(),
                cancel_on_kill=self.cancel_on_kill,
            ),
            method_name="execute_complete",
        )

    def _waited_for(self, gateway: GatewayClient, job: Job) -> Job:
        timeout_seconds = self.wait_timeout.total_seconds()
        try:
            return following.follow(
                gateway, job.id, self._tell, timeout_seconds=timeout_seconds, pace=UNHURRIED
            )
        except AbortedError:
            if self.cancel_on_kill:
                self._cancel(gateway, job)
            raise

    def _cancel(self, gateway: GatewayClient, job: Job) -> None:
        gateway.transport.resume()
        try:
            self._tell(gateway.cancel_job(job.id))
        except ClientError as error:
            self.log.warning("%s could not be canceled: %s", job.id, error)

    def _conclude(self, context: Any, gateway: GatewayClient, job: Job) -> dict[str, Any]:
        """Show what was rejected, and fail where that, or the job's end, is a failure."""
        total = job.rows.rejected
        found = gateway.iter_rejects(job.id) if total else iter(())
        rejects = list(itertools.islice(found, self.max_rejects))
        self._push(context, "rows", asdict(job.rows))
        self._push(context, "rejects", telling.rejects_value(rejects, total))
        if total:
            for line in telling.reject_lines(rejects[:_SHOWN_REJECTS], total):
                self.log.warning("%s", line)
        if job.state not in _ENDED_WELL or (total and self.fail_on_rejects):
            raise AirflowFailException(describe(job))
        return telling.outcome_value(job)

    def _show_page(self, job: Job) -> None:
        self.job_page = self._hook.way.page_of(job.id)

    def _tell(self, job: Job) -> None:
        self.log.info("%s", describe(job))

    def _push(self, context: Any, key: str, value: Any) -> None:
        context["ti"].xcom_push(key=key, value=value)
