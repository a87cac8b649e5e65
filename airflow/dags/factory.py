"""Every client's DAGs, built from the registry that onboarding exports.

One project of one client is one DAG, ``plan -> process (mapped) -> publish``; where the project's
engine is ``spark``, one task has the parts processed there. No database, no
Variable and no Connection is read while this file is parsed. A registry that cannot be read gives
no DAGs and one import error that says why; the file's other readers are not touched.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, get_current_context, get_parsing_context, task
from airflow.sdk.exceptions import AirflowFailException

REGISTRY_VERSION = 1
MAX_ACTIVE_RUNS = 16
# What is wrong with a delivery fails at once; these are for a platform that is away, and together
# outlast five minutes: a restart, or the lock-out after wrong passwords.
RETRIES = 6
# Not a stored connection: the gateway makes one for the task that asks.
CLIENT_DATABASE = "client_postgres"

_NAME = re.compile(r"[a-z][a-z0-9_-]{1,62}")
_TEXTS = ("dag_id", "client", "client_name", "project", "pool", "engine")
_MAPPINGS = ("on_reject", "retention", "contract", "load")
_ENGINES = ("local", "spark")

log = logging.getLogger(__name__)


class RegistryError(Exception):
    """The registry, or an entry of it, cannot be read."""


def read_registry(path: Path) -> list[dict[str, Any]]:
    """Read the registry's entries; an entry that makes no sense is logged and left out.

    Raises
    ------
    RegistryError
        If there is no registry, or it is of another version or no registry at all.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"the registry cannot be read: {error}"
        raise RegistryError(msg) from error
    if not isinstance(document, dict) or document.get("version") != REGISTRY_VERSION:
        msg = f"the registry is not of version {REGISTRY_VERSION}"
        raise RegistryError(msg)
    if not isinstance(document.get("projects"), list):
        msg = "the registry holds no list of projects"
        raise RegistryError(msg)
    return [entry for entry in map(_completed, document["projects"]) if _is_sound(entry)]


def _completed(entry: Any) -> Any:
    """Add what a registry that an earlier gateway wrote says nothing of."""
    return {"load": {}, **entry} if isinstance(entry, dict) else entry


def _is_sound(entry: Any) -> bool:
    problem = _problem_of(entry)
    if problem:
        log.error("registry entry left out: %s", problem)
    return problem is None


def _problem_of(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return "it is no mapping"
    name = entry.get("dag_id")
    if not all(isinstance(entry.get(key), str) and entry[key] for key in _TEXTS):
        return f"{name!r} lacks one of {', '.join(_TEXTS)}"
    if not all(isinstance(entry.get(key), dict) for key in _MAPPINGS):
        return f"{name!r} lacks one of {', '.join(_MAPPINGS)}"
    if not _NAME.fullmatch(entry["client"]) or not _NAME.fullmatch(entry["project"]):
        return f"{name!r} is of a client or project that cannot be"
    return _misfit(entry)


def _misfit(entry: dict[str, Any]) -> str | None:
    name = entry["dag_id"]
    if entry["engine"] not in _ENGINES:
        return f"{name!r} is for the engine {entry['engine']!r}, which is none we have"
    if name != f"{entry['client']}__{entry['project']}":
        return f"{name!r} is not named for its client and project"
    return None


def build_dag(entry: dict[str, Any]) -> DAG:
    """Build the DAG of one project.

    The pipeline itself is imported when a task runs: parsing stays cheap.
    """
    with DAG(
        entry["dag_id"],
        dag_display_name=f"{entry['client_name']}: {entry['project']}",
        description=f"Loads sealed batches of {entry['project']} into curated tables",
        schedule=None,
        catchup=False,
        is_paused_upon_creation=False,
        max_active_runs=MAX_ACTIVE_RUNS,
        tags={f"client:{entry['client']}"},
        default_args={
            "owner": entry["client"],
            "pool": entry["pool"],
            "retries": RETRIES,
            "retry_delay": timedelta(seconds=5),
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": timedelta(minutes=5),
        },
    ) as dag:
        _steps(entry)
    return dag


def _steps(entry: dict[str, Any]) -> None:
    @task(task_id="plan")
    def plan() -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = run_step("plan", entry, get_current_context())
        return parts

    @task(task_id="process", map_index_template="{{ task.op_kwargs['part']['label'] }}")
    def process(part: dict[str, Any]) -> dict[str, Any]:
        counts: dict[str, Any] = run_step("process", entry, get_current_context(), part)
        return counts

    @task(task_id="publish")
    def publish() -> dict[str, int]:
        context = get_current_context()
        counts: dict[str, int] = run_step("publish", entry, context, database_of(entry))
        return counts

    @task(task_id="process")
    def process_on_spark() -> dict[str, Any]:
        counts: dict[str, Any] = run_step("process_on_spark", entry, get_current_context())
        return counts

    if entry["engine"] == "spark":
        plan() >> process_on_spark() >> publish()
    else:
        process.expand(part=plan()) >> publish()


def database_of(entry: dict[str, Any]) -> Callable[[], Any] | None:
    """Give what asks for the client's database, for a project whose rows go there as well."""
    return client_database if entry["load"].get("postgres") is True else None


def client_database() -> Any:
    """Give the database of the running task's client, with a credential made in this moment.

    Raises
    ------
    PlatformError
        ``database-unavailable``: the gateway lends none now. Airflow tries again.
    """
    from airflow.sdk import Connection  # noqa: PLC0415 - not while the file is parsed
    from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError  # noqa: PLC0415

    from pipeline.errors import PlatformError  # noqa: PLC0415
    from pipeline.postgres_session import AWAY, Place  # noqa: PLC0415

    try:
        given = Connection.get(CLIENT_DATABASE)
    # A refusal is an OSError.
    except (AirflowException, AirflowRuntimeError, OSError) as error:
        detail = "there is no access to the client's database now; the delivery is kept"
        raise PlatformError(AWAY, detail) from error
    return Place(
        host=given.host or "",
        port=given.port or 5432,
        database=given.schema or "",
        user=given.login or "",
        password=given.password or "",
        more=given.extra_dejson,
    )


def run_step(name: str, entry: dict[str, Any], context: Any, *arguments: Any) -> Any:
    """Run one step of the pipeline for a task.

    Raises
    ------
    AirflowFailException
        If the delivery or the run's conf is at fault: trying again would change nothing. Any other
        exception lets Airflow try again.
    """
    from pipeline import tasks  # noqa: PLC0415 - not while the file is parsed
    from pipeline.delivery import ConfError  # noqa: PLC0415
    from pipeline.errors import DeliveryError  # noqa: PLC0415

    steps: dict[str, Callable[..., Any]] = {
        "plan": tasks.plan,
        "process": tasks.process,
        "process_on_spark": tasks.process_on_spark,
        "publish": tasks.publish,
    }
    instance = context["ti"]
    run = tasks.TaskRun(
        dag_id=instance.dag_id,
        run_id=instance.run_id,
        task_id=instance.task_id,
        map_index=-1 if instance.map_index is None else instance.map_index,
        try_number=instance.try_number,
        is_last_try=instance.try_number > (instance.max_tries or 0),
    )
    if run.dag_id != entry["dag_id"]:
        msg = "the task does not belong to this registry entry"
        raise AirflowFailException(msg)
    _let_the_pipeline_be_read()
    try:
        return steps[name](entry, context["dag_run"].conf, run, *arguments)
    except (ConfError, DeliveryError) as error:
        raise AirflowFailException(str(error)) from error


def _let_the_pipeline_be_read() -> None:
    """Have a task's log show what the pipeline says of its work, whatever the platform's level.

    Airflow's handler holds the level too, besides each logger; the other loggers keep theirs.
    """
    for handler in logging.getLogger().handlers:
        handler.setLevel(min(handler.level, logging.INFO))


def build_all(path: Path, only: str | None) -> dict[str, DAG]:
    """Build the DAGs of a registry, or the one that a worker needs.

    Raises
    ------
    RegistryError
        If the registry cannot be read.
    """
    entries = read_registry(path)
    wanted = [entry for entry in entries if only in (None, entry["dag_id"])]
    return {entry["dag_id"]: build_dag(entry) for entry in wanted}


if "INGEST_REGISTRY_PATH" not in os.environ:
    msg = "INGEST_REGISTRY_PATH is not set: there is no registry to read"
    raise RegistryError(msg)
globals().update(build_all(Path(os.environ["INGEST_REGISTRY_PATH"]), get_parsing_context().dag_id))
