"""Doors of jobs: how processing goes, what was rejected, and what tasks say of it."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from gateway import database, web
from gateway.clients.rate import RateLimitedError
from gateway.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
    UnsupportedMediaError,
)
from gateway.identity.access import (
    NotAuthenticatedError,
    Operator,
    Platform,
    Reader,
    ReaderKnock,
)
from gateway.identity.tokens import InvalidTokenError
from gateway.jobs import news, reading, rejects, showing, states
from gateway.jobs.views import (
    JobPage,
    JobState,
    JobView,
    ProgressReport,
    RejectView,
    RunNews,
)

router = APIRouter(tags=["jobs"])

REFUSALS = (
    NotAuthenticatedError,
    InvalidTokenError,
    ForbiddenError,
    InvalidRequestError,
    RateLimitedError,
    UnavailableError,
)
MOVING_SECONDS = 2

# A thousand rejects with long values, escaped.
PROGRESS_BYTES = 8 * 1024**2

Cursor = web.Cursor
Limit = web.Limit
Name = web.Text


def answered(request: Request, view: BaseModel, *, is_moving: bool) -> Response:
    """Answer with a JSON body and its ``ETag``, or 304 when the caller has just that.

    Parameters
    ----------
    is_moving
        Whether looking again soon is worth while; said by ``Retry-After``.
    """
    headers = {"Retry-After": str(MOVING_SECONDS)} if is_moving else {}
    return tagged(request, view.model_dump_json().encode(), "application/json", headers)


def tagged(
    request: Request, body: bytes, media_type: str, headers: dict[str, str] | None = None
) -> Response:
    """Answer with these bytes and their ``ETag``, or 304 (RFC 9110 §13.1.2)."""
    tag = f'"{hashlib.sha256(body).hexdigest()}"'
    known = {each.strip().removeprefix("W/") for each in _if_none_match(request).split(",")}
    found = {"ETag": tag, "Cache-Control": "private, no-cache", **(headers or {})}
    if known & {tag, "*"}:
        return Response(status_code=304, headers=found)
    return Response(body, headers=found, media_type=media_type)


def _if_none_match(request: Request) -> str:
    return request.headers.get("if-none-match", "")


def tagged_problems(*kinds: type[Any]) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a door that answers by ``tagged``."""
    return {304: {"description": "The caller has it as it stands"}, **web.problems(*kinds)}


@router.get("/v1/jobs", responses=web.problems(*REFUSALS))
def list_jobs(
    principal: Reader,
    session: web.ReadingDep,
    state: JobState | None = None,
    project: Name = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> JobPage:
    """List the caller's jobs, newest first."""
    found, following = states.page(
        session,
        client=reading.client_of(principal),
        state=state,
        project=project,
        before=web.position_of(cursor),
        limit=limit,
    )
    return JobPage(items=states.views(session, found), next=web.cursor_for(following))


@router.get(
    "/v1/jobs/{job_id}",
    response_model=JobView,
    responses=tagged_problems(*REFUSALS, NotFoundError),
)
def show_job(job_id: str, request: Request, knock: ReaderKnock) -> Response:
    """Show how a job goes. ``Retry-After`` says when to look again while it is active."""
    client = reading.client_of(knock.admitted())
    with database.reader(request.app.state.sessions) as session:
        job, view = showing.found(session, client, job_id)
    return answered(request, view, is_moving=job.state in states.ACTIVE)


@router.get(
    "/v1/jobs/{job_id}/rejects",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "One line a rejected row: file, line, column, rule, value",
            "content": {
                "application/x-ndjson": {"schema": RejectView.model_json_schema()},
                "text/csv": {"schema": {"type": "string"}},
            },
        },
        **web.problems(*REFUSALS, NotFoundError),
    },
)
def stream_rejects(job_id: str, request: Request, principal: Reader) -> Response:
    """Give the rows that failed validation, as NDJSON or CSV by ``Accept``."""
    client = reading.client_of(principal)
    sessions = request.app.state.sessions
    with sessions.begin() as session:
        states.find(session, client, job_id)
    media = rejects.wanted(request.headers.get("accept", ""))
    text = rejects.FORMATS[media](rejects.pages(sessions, client, job_id))
    return StreamingResponse(text, media_type=media, headers={"Vary": "Accept"})


@router.post(
    "/v1/jobs/{job_id}/cancel",
    status_code=202,
    responses=web.problems(*REFUSALS, NotFoundError, states.JobFinishedError),
)
def cancel_job(job_id: str, principal: Operator, session: web.SessionDep) -> JobView:
    """End a job: at once when it has not started, else as soon as its run can be stopped."""
    client = reading.client_of(principal)
    job = states.cancel(session, client, job_id, actor=principal.subject)
    return states.view(session, job)


async def _progress(request: Request) -> ProgressReport:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise UnsupportedMediaError("Send application/json.")
    body = await web.read_body(request, PROGRESS_BYTES)
    return web.validated(ProgressReport, web.loads(body))


@router.post(
    "/v1/jobs/{job_id}/progress",
    status_code=204,
    openapi_extra=web.documented_body(ProgressReport),
    responses=web.problems(
        *REFUSALS,
        NotFoundError,
        states.JobFinishedError,
        reading.OtherWorkError,
        TooLargeError,
        UnsupportedMediaError,
    ),
)
def report_progress(
    job_id: str,
    principal: Platform,  # noqa: ARG001 - being let in is all
    session: web.SessionDep,
    said: Annotated[ProgressReport, Depends(_progress)],
) -> None:
    """Take what a task of the job's run says of its step. Repeating it changes nothing."""
    states.report(session, job_id, said)


@router.post(
    "/v1/jobs/{job_id}/run",
    status_code=202,
    openapi_extra=web.documented_body(RunNews),
    responses=web.problems(*REFUSALS, NotFoundError, TooLargeError, UnsupportedMediaError),
)
def hear_of_run(
    job_id: str,
    principal: Platform,  # noqa: ARG001 - being let in is all
    session: web.SessionDep,
    said: Annotated[RunNews, web.json_body(RunNews)],
) -> None:
    """Hear from Airflow that a job's run has changed: it is looked at now, not at the next poll."""
    news.pass_on(session, job_id, said)
