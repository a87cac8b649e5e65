"""The connection to Airflow's REST API: what happened to a request is told by the type of error.

Answers are read as plain JSON, without the library's response models: a new run state or field of
Airflow must not stop the worker.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar

import urllib3
from airflow_client.client import ApiClient, Configuration
from airflow_client.client.api.dag_api import DAGApi
from airflow_client.client.api.dag_run_api import DagRunApi
from airflow_client.client.api.monitor_api import MonitorApi
from airflow_client.client.api.pool_api import PoolApi
from airflow_client.client.api.task_instance_api import TaskInstanceApi
from airflow_client.client.exceptions import ApiException
from airflow_client.client.models.actions_inner3 import ActionsInner3
from airflow_client.client.models.bulk_action_on_existence import BulkActionOnExistence
from airflow_client.client.models.bulk_body_pool_body import BulkBodyPoolBody
from airflow_client.client.models.bulk_create_action_pool_body import BulkCreateActionPoolBody
from airflow_client.client.models.dag_run_mutable_states import DagRunMutableStates
from airflow_client.client.models.dag_run_patch_body import DAGRunPatchBody
from airflow_client.client.models.pool_body import PoolBody
from airflow_client.client.models.trigger_dag_run_post_body import TriggerDAGRunPostBody

from gateway import settings

RUN_PREFIX = "gw."
PAGE = 100
# A longer list of run ids would not fit into one request line.
IDS_PER_REQUEST = 50
# States worth a look; a queued run tells no more than the job's own `dispatched`.
MOVING = ("running", "success", "failed")

_THROTTLED = frozenset({408, 425, 429})


class AirflowError(Exception):
    """A request did not do what it was for. ``reason`` is what a job shows meanwhile."""

    reason: ClassVar[str] = "airflow-rejected"


class UnavailableError(AirflowError):
    """Airflow is away or overloaded: the same request later may succeed."""

    reason = "airflow-unavailable"


class OutcomeUnknownError(UnavailableError):
    """The request was sent and no answer came: look before repeating it."""


class RefusedError(AirflowError):
    """Airflow does not accept our token."""

    reason = "airflow-refused"


class RejectedError(AirflowError):
    """Airflow does not understand the request."""


class NotThereError(AirflowError):
    """Airflow has no such DAG, run or pool."""


class BadRequestError(AirflowError):
    """Airflow will not do it as things stand; for a run: its DAG has import errors."""


class ExistsError(AirflowError):
    """There is one of that name already."""


@dataclass(frozen=True, slots=True)
class Run:
    """A DAG run, as far as the gateway cares."""

    dag_id: str
    run_id: str
    state: str
    conf: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs, and what Airflow's own clock said before they were read (None: it did not say)."""

    found: list[Run]
    at: datetime | None


@dataclass(frozen=True, slots=True)
class _Answer:
    body: Any
    at: datetime | None


class AirflowApi:
    """One pool of kept connections; a token is given with each call. Safe between threads."""

    def __init__(self, config: settings.Airflow, *, connections: int = 16) -> None:
        self._timeout = float(config.timeout_seconds)
        connection = ApiClient(
            Configuration(
                host=config.url.rstrip("/"),
                # Repeating is the outbox's business; a redirect would carry a token elsewhere.
                retries=False,
                no_proxy="*",
                connection_pool_maxsize=connections,
            )
        )
        self._dags = DAGApi(connection)
        self._runs = DagRunApi(connection)
        self._tasks = TaskInstanceApi(connection)
        self._pools = PoolApi(connection)
        self._monitor = MonitorApi(connection)

    def trigger(self, token: str, dag_id: str, run_id: str, conf: dict[str, Any]) -> Run:
        """Start a run.

        Raises
        ------
        NotThereError, BadRequestError
            The DAG is unknown, or has import errors.
        ExistsError
            There is a run of this id, whosever it is.
        OutcomeUnknownError
            The run may have been started.
        UnavailableError, RefusedError, RejectedError
            It was not started.
        """
        body = TriggerDAGRunPostBody(dag_run_id=run_id, logical_date=None, conf=conf)
        call = self._runs.trigger_dag_run_without_preload_content
        return _run(self._ask(call, token, dag_id, body).body)

    def get_run(self, token: str, dag_id: str, run_id: str) -> Run | None:
        """Return a run; None when Airflow has no such run, or no such DAG."""
        call = self._runs.get_dag_run_without_preload_content
        try:
            return _run(self._ask(call, token, dag_id, run_id).body)
        except NotThereError:
            return None

    def cancel_run(self, token: str, dag_id: str, run_id: str) -> bool:
        """End a run and its tasks. False: Airflow has no such run."""
        call = self._runs.patch_dag_run_without_preload_content
        body = DAGRunPatchBody(state=DagRunMutableStates.FAILED)
        try:
            self._ask(call, token, dag_id, run_id, body, update_mask=["state"])
        except NotThereError:
            return False
        return True

    def runs_updated_since(self, token: str, since: datetime) -> Runs:
        """Return the gateway's runs that run or have ended and changed at ``since`` or later.

        Parameters
        ----------
        since
            On Airflow's clock: ``Runs.at`` of an earlier answer, less an overlap.
        """
        return self._list(token, RUN_PREFIX, updated_at_gte=since, state=list(MOVING))

    def runs_by_id(self, token: str, run_ids: Sequence[str]) -> Runs:
        """Return those of the runs that exist, in any state; at most ``IDS_PER_REQUEST`` ids."""
        runs = self._list(token, "|".join(run_ids[:IDS_PER_REQUEST]))
        return Runs([run for run in runs.found if run.run_id in run_ids], runs.at)

    def failed_tasks(self, token: str, dag_id: str, run_id: str) -> list[str]:
        """Return the names of a run's failed tasks, the first to fail first."""
        call = self._tasks.get_task_instances_without_preload_content
        answer = self._ask(
            call, token, dag_id, run_id, state=["failed"], order_by=["end_date"], limit=PAGE
        )
        return [str(each["task_id"]) for each in answer.body["task_instances"]]

    def is_paused(self, token: str, dag_id: str) -> bool:
        """Say whether a DAG is paused: its runs are accepted and wait."""
        call = self._dags.get_dag_without_preload_content
        return bool(self._ask(call, token, dag_id).body["is_paused"])

    def ensure_pool(self, token: str, name: str, slots: int) -> None:
        """Make a pool of this size, or change one to it.

        Notes
        -----
        By the bulk call, the only one that names the pool to Airflow's auth manager before it is
        made: a token of one client cannot be let make pools of any name. It answers 200 to what it
        did not do.
        """
        entity = PoolBody(name=name, slots=slots, description="One client's share of the workers")
        action = BulkCreateActionPoolBody(
            action="create",
            action_on_existence=BulkActionOnExistence.OVERWRITE,
            entities=[entity],
        )
        call = self._pools.bulk_pools_without_preload_content
        done = self._ask(call, token, BulkBodyPoolBody(actions=[ActionsInner3(action)])).body[
            "create"
        ]
        if done["errors"]:
            raise RefusedError

    def health(self) -> dict[str, str]:
        """Return the state of each of Airflow's parts by name; parts it does not run are left out."""
        body = self._ask(self._monitor.get_health_without_preload_content, "").body
        return {name: part["status"] for name, part in body.items() if part and part["status"]}

    def _list(self, token: str, prefix: str, **filters: Any) -> Runs:
        call = self._runs.get_dag_runs_without_preload_content
        found: list[Run] = []
        at, cursor = None, ""
        while True:
            answer = self._ask(
                call,
                token,
                "~",
                run_id_prefix_pattern=prefix,
                limit=PAGE,
                cursor=cursor,
                **filters,
            )
            at = at or answer.at
            found += [_run(each) for each in answer.body["dag_runs"]]
            cursor = answer.body.get("next_cursor") or ""
            if not cursor:
                return Runs(found, at)

    def _ask(self, call: Callable[..., Any], token: str, *arguments: Any, **named: Any) -> _Answer:
        bearer = {
            "type": "bearer",
            "in": "header",
            "key": "Authorization",
            "value": f"Bearer {token}",
        }
        try:
            answer = call(*arguments, **named, _request_auth=bearer, _request_timeout=self._timeout)
            body, status = answer.data, answer.status
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError):
            message = "no connection"
            raise UnavailableError(message) from None
        except (urllib3.exceptions.HTTPError, ApiException) as error:
            raise OutcomeUnknownError(type(error).__name__) from None
        if not 200 <= status < 300:  # noqa: PLR2004
            raise _failure(status)
        return _Answer(_json(body), _date(answer.headers))


def _failure(status: int) -> AirflowError:
    if status in _THROTTLED or status >= 500:  # noqa: PLR2004
        return UnavailableError(f"status {status}")
    known: dict[int, type[AirflowError]] = {
        400: BadRequestError,
        401: RefusedError,
        403: RefusedError,
        404: NotThereError,
        409: ExistsError,
    }
    return known.get(status, RejectedError)(f"status {status}")


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        # Some page of a proxy in front of Airflow; what happened behind it is anybody's guess.
        message = "not JSON"
        raise OutcomeUnknownError(message) from None


def _date(headers: Any) -> datetime | None:
    try:
        return parsedate_to_datetime(headers["date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return None


def _run(body: dict[str, Any]) -> Run:
    return Run(body["dag_id"], body["dag_run_id"], body["state"], body.get("conf") or {})
