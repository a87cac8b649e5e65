"""Doors of leases: for Airflow's API server, and for administrators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from gateway import web
from gateway.clients.rate import RateLimitedError
from gateway.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
    UnsupportedMediaError,
)
from gateway.identity.access import Admin, Lessor, NotAuthenticatedError, Overseer
from gateway.identity.tokens import InvalidTokenError
from gateway.jobs.states import JobFinishedError
from gateway.leases import ledger
from gateway.leases.admission import JobNotStartedError, TooManyLeasesError
from gateway.leases.ledger import LeaseEndedError
from gateway.leases.lending import Lending
from gateway.leases.views import (
    LeaseConnection,
    LeaseLife,
    LeasePage,
    LeaseRequest,
    LeaseState,
    LeaseView,
)

router = APIRouter()

REFUSALS = (
    NotAuthenticatedError,
    InvalidTokenError,
    ForbiddenError,
    InvalidRequestError,
    RateLimitedError,
    UnavailableError,
)
LeaseId = Annotated[str, Path(pattern=r"^lea_[0-9a-z]{26}$")]


@router.post(
    "/v1/leases",
    tags=["leases"],
    status_code=201,
    response_model=LeaseConnection,
    openapi_extra=web.documented_body(LeaseRequest),
    responses=web.problems(
        *REFUSALS,
        NotFoundError,
        JobNotStartedError,
        JobFinishedError,
        TooManyLeasesError,
        TooLargeError,
        UnsupportedMediaError,
    ),
)
def issue_lease(
    request: Request,
    response: Response,
    principal: Lessor,
    wanted: Annotated[LeaseRequest, web.json_body(LeaseRequest)],
) -> LeaseConnection:
    """Give a running task of a job's run a credential for one data system, as a connection.

    It is the client's whose job it is, whatever the DAG is called. Asking again gives another one:
    what was handed out is not kept here. The leases of a task's earlier tries end.
    """
    lease, found = _lending(request).issue(wanted, actor=principal.subject)
    response.headers["Location"] = f"/v1/leases/{lease.id}"
    response.headers["Cache-Control"] = "no-store"
    return LeaseConnection(
        lease_id=lease.id,
        expires_at=lease.expires_at,
        conn_type=found.conn_type,
        host=found.host,
        port=found.port,
        schema=found.schema,
        login=found.login,
        password=found.password,
        extra=found.extra,
    )


@router.put(
    "/v1/leases/{lease_id}/renew",
    tags=["leases"],
    responses=web.problems(
        *REFUSALS, NotFoundError, JobNotStartedError, JobFinishedError, LeaseEndedError
    ),
)
def renew_lease(lease_id: LeaseId, request: Request, principal: Lessor) -> LeaseLife:
    """Let a credential live on. The gateway does so by itself while the job runs."""
    lease = _lending(request).renew(lease_id, actor=principal.subject)
    return LeaseLife(lease_id=lease.id, expires_at=lease.expires_at)


@router.delete(
    "/v1/leases/{lease_id}",
    tags=["leases"],
    status_code=204,
    responses={
        202: {"description": "It is decided; the data system has not followed yet"},
        **web.problems(*REFUSALS, NotFoundError),
    },
)
def end_lease(lease_id: LeaseId, request: Request, principal: Lessor) -> Response:
    """End a credential, and every session it has. Again is harmless."""
    lease = _lending(request).revoke(lease_id, reason="asked", actor=principal.subject)
    return Response(status_code=204 if lease.state == "revoked" else 202)


@router.get("/v1/admin/leases", tags=["admin"], responses=web.problems(*REFUSALS))
def list_leases(
    principal: Overseer,  # noqa: ARG001 - being let in is all
    session: web.SessionDep,
    state: LeaseState | None = None,
    client: web.Text = None,
    cursor: web.Cursor = None,
    limit: web.Limit = 50,
) -> LeasePage:
    """List leases of all clients, newest first."""
    found, following = ledger.page(
        session, state=state, client=client, before=web.position_of(cursor), limit=limit
    )
    items = [LeaseView.model_validate(each) for each in found]
    return LeasePage(items=items, next=web.cursor_for(following))


@router.post(
    "/v1/admin/leases/{lease_id}/revoke",
    tags=["admin"],
    responses=web.problems(*REFUSALS, NotFoundError),
)
def revoke_lease(lease_id: LeaseId, request: Request, principal: Admin) -> LeaseView:
    """Revoke a lease now, one that is irrevocable too; the answer says what became of it."""
    lease = _lending(request).revoke(lease_id, reason="revoked-by-admin", actor=principal.subject)
    return LeaseView.model_validate(lease)


def _lending(request: Request) -> Lending:
    state = request.app.state
    return Lending(state.settings.leases, state.sessions, state.resources)
