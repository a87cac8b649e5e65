"""What Airflow loads from this folder for the views: their names, and the way to them from a run.

Schedulers and workers load it too, so that what only the API server needs is imported when used.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from airflow.sdk.types import TaskInstanceKey

# The gateway names its runs for their jobs.
_RUN_ID = re.compile(r"gw\.(job_[0-9a-z]{26})")


async def names(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    """Serve Airflow's words, and the names of the views among them."""
    from ingest.labels import LABELS  # noqa: PLC0415

    await LABELS(scope, receive, send)


class Delivery(BaseOperatorLink):
    """Leads from a task to the delivery that it works on."""

    @property
    def name(self) -> str:
        """What the link is called."""
        return "Delivery"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return where the job is shown; nothing for runs that the gateway did not start."""
        from ingest import view_pages  # noqa: PLC0415

        found = _RUN_ID.fullmatch(ti_key.run_id)
        return f"{view_pages.PATH}/jobs/{found[1]}" if found else ""


class Views(AirflowPlugin):
    """Gives the views names, and runs a way to them."""

    name = "ingest_views"
    fastapi_apps = [  # noqa: RUF012 - Airflow's shape
        {"name": "names of views", "app": names, "url_prefix": "/static/i18n/locales"}
    ]
    global_operator_extra_links = [Delivery()]  # noqa: RUF012 - Airflow's shape
