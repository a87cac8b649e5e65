"""Doors of batches: open, list, show, cancel, seal, prove, process again."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from gateway import database, web
from gateway.batches import clearing, idempotency, ledger, manifest, seal
from gateway.batches.idempotency import Answer, Key, KeyInFlightError, KeyReusedError
from gateway.batches.model import Batch
from gateway.batches.seal import BatchIncompleteError
from gateway.batches.views import (
    METADATA_BYTES,
    BatchPage,
    BatchRequest,
    BatchState,
    BatchSummary,
    BatchView,
    Capabilities,
    FileView,
    LimitsView,
    ProjectPage,
    ProjectView,
    ReplayRequest,
    RequestLimits,
    SealedView,
    SealRequest,
)
from gateway.clients import limits, registry
from gateway.clients.registry import Client
from gateway.errors import NotFoundError, TooLargeError, UnavailableError, UnsupportedMediaError
from gateway.identity.access import FilesReader, Operator, Reader, ReaderKnock, Writer
from gateway.jobs import states
from gateway.jobs.api import REFUSALS, Cursor, Limit, Name, answered, tagged, tagged_problems
from gateway.jobs.reading import as_queued, client_of, of_batch
from gateway.jobs.views import JobPage, JobView

__all__ = ["BatchRequest", "router"]

router = APIRouter(tags=["batches"])

BODY = (TooLargeError, UnsupportedMediaError)
# Ten thousand files with long names do not fit what other JSON doors take.
SEAL_BYTES = 4 * 1024**2
LOCATION = {"headers": {"Location": {"schema": {"type": "string"}}}}
# Sealing whatever is there needs no body.
_SEAL_BODY = {"requestBody": {**web.documented_body(SealRequest)["requestBody"], "required": False}}


@router.get("/v1", responses=web.problems(UnavailableError))
def show_capabilities(request: Request, session: web.ReadingDep) -> Capabilities:
    """Say what this gateway can do, and what time it has."""
    config = request.app.state.settings
    return Capabilities(
        version=version("ingestion-gateway"),
        time=database.now(session),
        uploads=["put", "multipart", "tus"],
        digests=["sha-256"],
        limits=RequestLimits(
            json_body_bytes=web.JSON_BODY_BYTES,
            metadata_bytes=METADATA_BYTES,
            page_items=200,
            open_batch_seconds=config.batches.open_max_age_seconds,
            idempotency_seconds=config.batches.idempotency_seconds,
        ),
    )


@router.get("/v1/projects", responses=web.problems(*REFUSALS))
def list_projects(principal: Reader, session: web.ReadingDep) -> ProjectPage:
    """List the caller's projects with their contract and limits."""
    client = session.get_one(Client, client_of(principal))
    items = [
        ProjectView(
            name=each.name,
            contract=each.contract,
            on_reject=each.on_reject,
            retention=each.retention,
            limits=LimitsView(**asdict(limits.for_project(client, each))),
        )
        for each in registry.projects_of(session, client.name)
    ]
    return ProjectPage(items=items)


@router.post(
    "/v1/batches",
    status_code=201,
    openapi_extra=web.documented_body(BatchRequest),
    responses={
        201: LOCATION,
        **web.problems(
            *REFUSALS,
            *BODY,
            ledger.BatchExistsError,
            ledger.QuotaExceededError,
            KeyInFlightError,
            KeyReusedError,
        ),
    },
)
def open_batch(
    request: Request,
    response: Response,
    principal: Writer,
    session: web.SessionDep,
    wanted: Annotated[BatchRequest, web.json_body(BatchRequest)],
    idempotency_key: Annotated[str | None, Header()] = None,
) -> BatchView:
    """Open a delivery. With an ``Idempotency-Key``, sending it again gives the same answer."""
    config = request.app.state.settings.batches

    def opened() -> Answer:
        batch = ledger.open_batch(session, principal, wanted, batches=config)
        body = BatchView.whole(batch, [], []).model_dump(mode="json")
        return Answer(201, f"/v1/batches/{batch.id}", body)

    if idempotency_key is None:
        answer = opened()
    else:
        life = config.idempotency_seconds
        key = Key(client_of(principal), principal.subject, idempotency_key, life)
        answer = idempotency.once(session, key, wanted, opened)
    response.headers["Location"] = answer.location or ""
    return BatchView.model_validate(answer.body)


@router.get("/v1/batches", responses=web.problems(*REFUSALS))
def list_batches(
    principal: Reader,
    session: web.ReadingDep,
    project: Name = None,
    state: BatchState | None = None,
    reference: Name = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> BatchPage:
    """List the caller's batches, newest first."""
    found, following = ledger.page(
        session,
        client_of(principal),
        project=project,
        state=state,
        reference=reference,
        before=web.position_of(cursor),
        limit=limit,
    )
    items = [BatchSummary.of(each) for each in found]
    return BatchPage(items=items, next=web.cursor_for(following))


@router.get(
    "/v1/batches/{batch_id}",
    response_model=BatchView,
    responses=tagged_problems(*REFUSALS, NotFoundError),
)
def show_batch(batch_id: str, request: Request, knock: ReaderKnock) -> Response:
    """Show a batch with its files and jobs. ``Retry-After`` is there while a job is active."""
    client = client_of(knock.admitted())
    with database.reader(request.app.state.sessions) as session:
        view = _whole(session, ledger.find(session, client, batch_id))
    is_moving = any(job.state in states.ACTIVE for job in view.jobs)
    return answered(request, view, is_moving=is_moving)


def _whole(session: Session, batch: Batch) -> BatchView:
    files = [FileView.of(file) for file in ledger.files_of(session, batch.id)]
    jobs = states.views(session, of_batch(session, batch.client, batch.id))
    return BatchView.whole(batch, files, jobs)


@router.delete(
    "/v1/batches/{batch_id}",
    status_code=204,
    responses=web.problems(*REFUSALS, NotFoundError, ledger.BatchSealedError),
)
def cancel_batch(batch_id: str, request: Request, principal: Writer) -> None:
    """Give an open batch up, with its files. Again is no error."""
    # Not a ``SessionDep``: the files go once it is certain that nobody will want them.
    state = request.app.state
    with state.sessions.begin() as session:
        batch = ledger.cancel(session, principal, batch_id)
    clearing.clear(state.sessions, state.zone, batch)


async def _seal_request(request: Request) -> SealRequest:
    body = await web.read_body(request, SEAL_BYTES)
    if not body:
        return SealRequest()
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise UnsupportedMediaError("Send application/json, or nothing.")
    return web.validated(SealRequest, web.loads(body))


@router.post(
    "/v1/batches/{batch_id}/seal",
    status_code=202,
    openapi_extra=_SEAL_BODY,
    responses={
        202: LOCATION,
        **web.problems(
            *REFUSALS, *BODY, NotFoundError, BatchIncompleteError, ledger.BatchClosedError
        ),
    },
)
async def seal_batch(
    batch_id: str,
    request: Request,
    response: Response,
    principal: Writer,
    wanted: Annotated[SealRequest, Depends(_seal_request)],
) -> SealedView:
    """Close a batch and have it processed. Again gives the same answer.

    With ``files``, the batch must consist of exactly these.
    """
    state = request.app.state
    async with state.seals.turn(client_of(principal)):
        batch, job = await run_in_threadpool(
            seal.carry_out,
            state.sessions,
            principal,
            state.zone,
            state.keys,
            batch_id,
            wanted.files,
        )
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return SealedView(batch=BatchSummary.of(batch), job=as_queued(job))


@router.get(
    "/v1/batches/{batch_id}/manifest",
    response_class=Response,
    responses={
        200: {"content": {"application/json": {"schema": {"type": "object"}}}},
        **tagged_problems(*REFUSALS, NotFoundError),
    },
)
def show_manifest(
    batch_id: str, request: Request, principal: FilesReader, session: web.ReadingDep
) -> Response:
    """Give the sealed list of files: exactly the bytes that the receipt signs (RFC 8785)."""
    found = manifest.of(session, client_of(principal), batch_id)
    return tagged(request, found.document, "application/json")


@router.get(
    "/v1/batches/{batch_id}/receipt",
    response_class=Response,
    responses={
        200: {"content": {"application/jose": {"schema": {"type": "string"}}}},
        **tagged_problems(*REFUSALS, NotFoundError),
    },
)
def show_receipt(
    batch_id: str, request: Request, principal: Reader, session: web.ReadingDep
) -> Response:
    """Give the manifest signed by the gateway: a JWS in compact form (RFC 7515)."""
    found = manifest.of(session, client_of(principal), batch_id)
    return tagged(request, found.receipt.encode(), "application/jose")


@router.get("/v1/batches/{batch_id}/jobs", responses=web.problems(*REFUSALS, NotFoundError))
def list_batch_jobs(batch_id: str, principal: Reader, session: web.ReadingDep) -> JobPage:
    """List a batch's processing attempts, newest first."""
    batch = ledger.find(session, client_of(principal), batch_id)
    found = of_batch(session, batch.client, batch.id)
    return JobPage(items=states.views(session, found), next=None)


@router.post(
    "/v1/batches/{batch_id}/replays",
    status_code=202,
    openapi_extra=web.documented_body(ReplayRequest),
    responses={
        202: LOCATION,
        **web.problems(
            *REFUSALS,
            *BODY,
            NotFoundError,
            BatchIncompleteError,
            ledger.BatchClosedError,
            states.JobActiveError,
            seal.NothingStagedError,
        ),
    },
)
def replay_batch(
    batch_id: str,
    response: Response,
    principal: Operator,
    session: web.SessionDep,
    wanted: Annotated[ReplayRequest, web.json_body(ReplayRequest)],
) -> JobView:
    """Process a sealed batch again."""
    job = seal.replay(session, principal, batch_id, wanted.reason, wanted.source, wanted.contract)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return states.view(session, job)
