"""What the platform's people see: every client, what is stuck, who was lent what, who did what."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, FastAPI
from fastapi.responses import Response

from ingest import view_api, view_pages
from ingest.users import GatewayUser
from ingest.view_parts import AUDIT, GATEWAY, OVERSEE, TRAIL, Parts, Text
from ingest.view_shapes import Clients, Events, Job, Jobs, Leases

JOB_STATES = (
    "queued",
    "blocked",
    "dispatched",
    "running",
    "succeeded",
    "partially_succeeded",
    "failed",
    "canceled",
)
LEASE_STATES = ("intended", "issued", "revoking", "revoked", "irrevocable")
_PAGE, _AT_A_GLANCE = 50, 20


def add_doors(app: FastAPI, parts: Parts) -> None:
    """Add the pages."""
    admin = Depends(parts.person(GATEWAY))
    auditor = Depends(parts.person(AUDIT))

    @app.get("/gateway")
    def overview(user: GatewayUser = admin) -> Response:
        return _overview(parts, user)

    @app.get("/gateway/jobs")
    def jobs(user: GatewayUser = admin, state: Text = "", cursor: Text = "") -> Response:
        found = parts.viewer(user, OVERSEE).get(
            Jobs, "/v1/admin/jobs", state=state, cursor=cursor, limit=_PAGE
        )
        filters = {"state": state, "cursor": cursor}
        runs = _runs(parts, found.items)
        return _page(
            "jobs", title="Jobs", jobs=found, runs=runs, filters=filters, states=JOB_STATES
        )

    @app.get("/gateway/leases")
    def leases(
        user: GatewayUser = admin, state: Text = "", client: Text = "", cursor: Text = ""
    ) -> Response:
        found = parts.viewer(user, OVERSEE).get(
            Leases, "/v1/admin/leases", state=state, client=client, cursor=cursor, limit=_PAGE
        )
        filters = {"state": state, "client": client, "cursor": cursor}
        return _page("leases", title="Leases", leases=found, filters=filters, states=LEASE_STATES)

    @app.get("/audit")
    def audit(
        user: GatewayUser = auditor,
        actor: Text = "",
        action: Text = "",
        client: Text = "",
        subject: Text = "",
        cursor: Text = "",
    ) -> Response:
        filters = {
            "actor": actor,
            "action": action,
            "client": client,
            "subject": subject,
            "cursor": cursor,
        }
        viewer = parts.viewer(user, TRAIL if TRAIL in user.scopes else OVERSEE)
        found = viewer.get(Events, "/v1/admin/audit", limit=_PAGE, **filters)
        tabs = view_pages.GATEWAY_TABS if parts.may_see(user, GATEWAY) else ()
        return view_pages.page(
            "view_audit.html",
            title="Audit trail",
            tabs=tabs,
            tab="audit",
            events=found,
            filters=filters,
        )


def _overview(parts: Parts, user: GatewayUser) -> Response:
    viewer = parts.viewer(user, OVERSEE)
    blocked, waiting = (
        viewer.get(Jobs, "/v1/admin/jobs", state=state, limit=_AT_A_GLANCE)
        for state in ("blocked", "queued")
    )
    irrevocable = viewer.get(Leases, "/v1/admin/leases", state="irrevocable", limit=_AT_A_GLANCE)
    stuck = [*blocked.items, *(each for each in waiting.items if each.waiting_reason)]
    return _page(
        "overview",
        title="Gateway",
        health=view_api.health(parts.gateway),
        clients=viewer.get(Clients, "/v1/admin/clients").items,
        stuck=stuck,
        is_more=bool(blocked.next or waiting.next),
        runs=_runs(parts, stuck),
        irrevocable=irrevocable,
    )


def _runs(parts: Parts, jobs: list[Job]) -> dict[str, str]:
    return {each.id: parts.run_of(each.client, each.project, each.id) for each in jobs}


def _page(tab: str, **shown: Any) -> Response:
    return view_pages.page(f"view_{tab}.html", tabs=view_pages.GATEWAY_TABS, tab=tab, **shown)
