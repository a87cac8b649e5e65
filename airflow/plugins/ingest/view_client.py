"""What a client's people see: deliveries, their files and jobs, and the rows that were rejected."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query
from fastapi.responses import Response

from ingest import view_pages
from ingest.users import GatewayUser
from ingest.view_parts import (
    DELIVERIES,
    GATEWAY,
    OVERSEE,
    READ,
    BatchId,
    JobId,
    Parts,
    Text,
)
from ingest.view_shapes import Batch, Batches, Job

BATCH_STATES = ("open", "sealed", "canceled", "expired", "purged")
_PAGE, FILES_SHOWN = 50, 200


def add_doors(app: FastAPI, parts: Parts) -> None:
    """Add the pages."""
    reader = Depends(parts.person(DELIVERIES))
    either = Depends(parts.person(DELIVERIES, GATEWAY))

    @app.get("/deliveries")
    def deliveries(
        user: GatewayUser = reader,
        state: Text = "",
        project: Text = "",
        reference: Text = "",
        cursor: Text = "",
    ) -> Response:
        return _deliveries(
            parts, user, state=state, project=project, reference=reference, cursor=cursor
        )

    @app.get("/deliveries/{batch_id}")
    def delivery(
        batch_id: BatchId,
        user: GatewayUser = reader,
        files: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    ) -> Response:
        return _delivery(parts, user, batch_id, files)

    @app.get("/jobs/{job_id}")
    def job(
        job_id: JobId,
        user: GatewayUser = either,
    ) -> Response:
        return _own_job(parts, user, job_id) if user.client else _any_job(parts, user, job_id)


def _deliveries(parts: Parts, user: GatewayUser, **filters: str) -> Response:
    viewer = parts.viewer(user, READ)
    found = viewer.get(Batches, "/v1/batches", limit=_PAGE, **filters)
    return _page(
        "view_deliveries.html",
        title="Deliveries",
        batches=found,
        filters=filters,
        states=BATCH_STATES,
        projects=parts.projects_of(user),
    )


def _delivery(parts: Parts, user: GatewayUser, batch_id: str, first: int) -> Response:
    batch = parts.viewer(user, READ).get(Batch, f"/v1/batches/{batch_id}")
    return _page(
        "view_delivery.html",
        title=batch.reference,
        batch=batch,
        files=batch.files[first : first + FILES_SHOWN],
        first=first,
        files_shown=FILES_SHOWN,
        runs={each.id: parts.run_of(user.client, batch.project, each.id) for each in batch.jobs},
    )


def _own_job(parts: Parts, user: GatewayUser, job_id: str) -> Response:
    viewer = parts.viewer(user, READ)
    job = viewer.get(Job, f"/v1/jobs/{job_id}")
    batch = viewer.get(Batch, f"/v1/batches/{job.batch}")
    rejects, is_more = viewer.rejects(job.id)
    return _page(
        "view_job.html",
        title=f"{batch.reference}, attempt {job.attempt}",
        job=job,
        batch=batch,
        rejects=rejects,
        is_more=is_more,
        files_shown=FILES_SHOWN,
        run=parts.run_of(user.client, batch.project, job.id),
    )


def _any_job(parts: Parts, user: GatewayUser, job_id: str) -> Response:
    job = parts.viewer(user, OVERSEE).get(Job, f"/v1/admin/jobs/{job_id}")
    return view_pages.page(
        "view_job.html",
        title=f"{job.client} / {job.project}, attempt {job.attempt}",
        tabs=view_pages.GATEWAY_TABS,
        tab="jobs",
        job=job,
        batch=None,
        rejects=None,
        is_more=False,
        files_shown=FILES_SHOWN,
        run=parts.run_of(job.client, job.project, job.id),
    )


def _page(template: str, **shown: Any) -> Response:
    return view_pages.page(template, tabs=(), tab=DELIVERIES, **shown)
