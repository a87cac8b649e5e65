"""From a task to its delivery."""

from __future__ import annotations

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.types import TaskInstanceKey


class GatewayJobLink(BaseOperatorLink):
    """Leads to the page of the task's job, where the connection says where pages are."""

    name = "Gateway job"

    def get_link(
        self,
        operator: BaseOperator,
        *,
        ti_key: TaskInstanceKey,  # noqa: ARG002 - the operator has just run as this one
    ) -> str:
        """Return the address; empty when there is none."""
        return str(getattr(operator, "job_page", ""))
