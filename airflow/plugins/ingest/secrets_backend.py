"""The secrets backend of Airflow's API server: ``ingest.secrets_backend.ClientConnections``.

A task asks for ``client_postgres`` and is given a credential of its own client, made for it alone.
Which client that is, the registry says by the DAG, and the gateway once more by the run; a name
proves nothing. Outside a request for a task (in workers, the scheduler, the interface) it knows
nothing and says so, and Airflow looks elsewhere.
"""

from __future__ import annotations

import json
import logging
from functools import cached_property
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowSecretsBackendAccessDenied
from airflow.secrets import BaseSecretsBackend
from fastapi import HTTPException
from sqlalchemy import select

from ingest import settings
from ingest.asking import task_instance
from ingest.lease_api import (
    Account,
    LeaseApi,
    LeaseRefusedError,
    LeaseRequest,
    LeaseUnavailableError,
)
from ingest.registry import Registry

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Row

PREFIX = "client_"

log = logging.getLogger(__name__)


class DeniedError(AirflowSecretsBackendAccessDenied, HTTPException):
    """The task does not get this connection, from here or from anywhere else.

    Airflow lets no other exception out of a lookup: it would ask the next backend. The execution
    API answers with the status, and the worker asks again where that makes sense.
    """

    def __init__(self, status_code: int, detail: str) -> None:
        HTTPException.__init__(self, status_code, detail)


class ClientConnections(BaseSecretsBackend):
    """Hands running tasks the connections of their client."""

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:
        """Return a connection as JSON; None outside a request for a task.

        Raises
        ------
        DeniedError
            403: it is not for this task. 503: the gateway cannot be asked, or has no room.
        """
        asking = task_instance.get()
        if asking is None:
            return None
        try:
            return self._for_task(asking, conn_id, team_name)
        except DeniedError:
            raise
        except LeaseRefusedError as error:
            log.warning("No %s for task instance %s: %s", conn_id, asking, error)
            raise DeniedError(403, "This task has no such connection") from None
        except LeaseUnavailableError:
            raise DeniedError(503, "The gateway is not available") from None
        except Exception as error:
            # Whatever it is: Airflow would ask the next backend, which asks nobody.
            log.exception("The lookup of %s failed", conn_id)
            raise DeniedError(503, "The lookup failed") from error

    def get_variable(self, key: str, team_name: str | None = None) -> str | None:
        """Know no variable."""
        del key, team_name

    def _for_task(self, asking: UUID, conn_id: str, team_name: str | None) -> str | None:
        if not conn_id.startswith(PREFIX):
            if conn_id in self._account.shared:
                return None
            raise DeniedError(403, "This task has no such connection")
        task = _running(asking)
        client = self._registry.current().client_by_dag.get(task.dag_id) if task else None
        if task is None or client is None or team_name not in {None, client}:
            raise DeniedError(403, "This task has no such connection")
        wanted = LeaseRequest(
            resource=conn_id.removeprefix(PREFIX),
            dag_id=task.dag_id,
            run_id=task.run_id,
            task_id=task.task_id,
            map_index=task.map_index,
            try_number=task.try_number,
        )
        return json.dumps(self._gateway.connection(wanted))

    @cached_property
    def _settings(self) -> settings.Settings:
        return settings.from_environment()

    @cached_property
    def _account(self) -> Account:
        return Account.from_environment()

    @cached_property
    def _registry(self) -> Registry:
        return Registry(self._settings.registry_path)

    @cached_property
    def _gateway(self) -> LeaseApi:
        return LeaseApi(self._settings.gateway_url, self._account)


def _running(asking: UUID) -> Row[tuple[str, str, str, int, int]] | None:
    """Return who a task instance is, if it runs at this moment."""
    # Airflow makes its backends while it reads its configuration: before there are models.
    from airflow.models.taskinstance import TaskInstance  # noqa: PLC0415
    from airflow.utils.session import create_session  # noqa: PLC0415

    query = select(
        TaskInstance.dag_id,
        TaskInstance.run_id,
        TaskInstance.task_id,
        TaskInstance.map_index,
        TaskInstance.try_number,
    ).where(TaskInstance.id == asking, TaskInstance.state == "running")
    with create_session() as session:
        return session.execute(query).one_or_none()
