"""What the views share: who may open one, whose rights it looks with, where its runs are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from airflow.api_fastapi.app import API_ROOT_PATH
from airflow.api_fastapi.common.types import ExtraMenuItem
from fastapi import Depends, HTTPException, Request
from pydantic import StringConstraints

from ingest import view_api, view_pages
from ingest.users import GatewayUser

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingest.gateway_api import GatewayApi
    from ingest.registry import Ownership
    from ingest.view_api import Viewer

# Each is an item of Airflow's menu, and a row of the rights table.
DELIVERIES, GATEWAY, AUDIT = "deliveries", "gateway", "audit"
MENU = {
    name: ExtraMenuItem(text=name.title(), href=f"{view_pages.PATH}/{name}")
    for name in (DELIVERIES, GATEWAY, AUDIT)
}
READ, OVERSEE, TRAIL = "batches:read", "admin:read", "audit:read"
BatchId = Annotated[str, StringConstraints(pattern=r"^bat_[0-9a-z]{26}\z")]
JobId = Annotated[str, StringConstraints(pattern=r"^job_[0-9a-z]{26}\z")]
Text = Annotated[str, StringConstraints(max_length=250)]
_NO_RIGHT = 403


class IntoShellError(Exception):
    """The view was opened by itself: it belongs into Airflow's page."""

    def __init__(self, item: str) -> None:
        super().__init__()
        self.item = item


@dataclass(frozen=True)
class Parts:
    """What the views are made of.

    Attributes
    ----------
    may_see
        Says whether a user may see a view, by its name.
    known_by
        Airflow's own dependency, which says who asks.
    """

    gateway: GatewayApi
    ownership: Callable[[], Ownership]
    may_see: Callable[[GatewayUser, str], bool]
    known_by: Callable[..., Any]

    def person(self, *views: str) -> Callable[..., Any]:
        """Return the dependency of a page: somebody who may see one of these views."""

        async def allowed(
            request: Request,
            user: GatewayUser = Depends(self.known_by),  # noqa: B008
        ) -> GatewayUser:
            seen = [view for view in views if self.may_see(user, view)]
            if not seen or not user.session:
                raise HTTPException(_NO_RIGHT)
            # Browsers say what a page is loaded for; the frame that Airflow shows is no document.
            if request.headers.get("sec-fetch-dest") == "document":
                raise IntoShellError(seen[0])
            return user

        return allowed

    def viewer(self, user: GatewayUser, scope: str) -> Viewer:
        """Return the person's look at the gateway."""
        return view_api.open_viewer(self.gateway, str(user.session), scope)

    def projects_of(self, user: GatewayUser) -> list[str]:
        """Return the names of the projects of the person's client."""
        return sorted(self.ownership().projects(user.client or ""))

    def run_of(self, client: str | None, project: str, job_id: str) -> str:
        """Return where Airflow shows a job's run; nothing for a project that is gone."""
        dag_id = self.ownership().dag_of(client or "", project)
        return f"{API_ROOT_PATH}dags/{dag_id}/runs/gw.{job_id}" if dag_id else ""
