"""Doors for auditors and administrators, and the probes that need no account."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from gateway import database, web
from gateway.admin import probes, views
from gateway.admin import reconcile as reconciler
from gateway.audit import actions, trail
from gateway.clients import registry, usage
from gateway.clients.rate import RateLimitedError
from gateway.clients.registry import Client
from gateway.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
    UnsupportedMediaError,
)
from gateway.identity.access import Admin, Auditor, NotAuthenticatedError, Overseer
from gateway.jobs import showing, states
from gateway.jobs.views import JobView
from gateway.onboarding import apply, spec
from gateway.onboarding.offer import Offer
from gateway.onboarding.spec import ClientSpec

router = APIRouter()
REFUSALS = (
    NotAuthenticatedError,
    ForbiddenError,
    InvalidRequestError,
    RateLimitedError,
    UnavailableError,
)
ClientName = Annotated[str, Path(pattern=spec.CLIENT_NAME)]
JobId = Annotated[str, Path(pattern=r"^job_[0-9a-z]{26}$")]


@router.get("/healthz", tags=["probes"])
def healthz() -> dict[str, str]:
    """Say that the process lives."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    tags=["probes"],
    responses={503: {"description": "A dependency does not answer; the body says which"}},
)
def readyz(request: Request) -> Response:
    """Ask each dependency: 200 when deliveries can be taken, else 503 naming what is away.

    Airflow is reported and never makes it a 503: deliveries are taken and wait for it. So are
    credentials that could not be revoked: they want an administrator, not another server.
    """
    state = request.app.state
    needed: dict[str, Callable[[], Any]] = {
        "database": lambda: probes.database_answers(state.engine),
        "directory": state.directory.check,
        "landing": state.zone.check,
    }
    found = probes.ask(needed)
    ready = all(outcome == "ok" for outcome in found.values())
    found["airflow"] = probes.airflow_as_seen(state.sessions)
    found["leases"] = probes.leases_as_seen(state.sessions)
    body = {"status": "ready" if ready else "unavailable", "checks": found}
    return JSONResponse(body, 200 if ready else 503)


@router.get("/metrics", tags=["probes"], response_class=PlainTextResponse)
def metrics(request: Request) -> Response:
    """Give backlog and process numbers to Prometheus."""
    text = probes.metrics(request.app.state.sessions)
    return Response(text, media_type="text/plain; version=0.0.4")


@router.get(
    "/v1/admin/audit",
    tags=["admin"],
    response_model=views.AuditPage,
    responses={
        200: {"content": {"application/x-ndjson": {}, "text/csv": {}}},
        **web.problems(*REFUSALS),
    },
)
def search_audit(
    request: Request,
    principal: Auditor,
    session: web.SessionDep,
    actor: web.Text = None,
    action: web.Text = None,
    client: web.Text = None,
    subject: web.Text = None,
    since: web.Moment | None = None,
    until: web.Moment | None = None,
    cursor: web.Cursor = None,
    limit: web.Limit = 100,
) -> Response:
    """Search the trail, newest first: JSON pages, or NDJSON or CSV of a page by ``Accept``."""
    before = web.position_of(cursor)
    found = trail.search(
        session,
        actor=actor,
        action=action,
        client=client,
        subject=subject,
        since=since,
        until=until,
        before=_number(before),
        limit=limit,
    )
    following = web.cursor_for(found[-1].number if len(found) == limit else None)
    asked = {"actor": actor, "action": action, "client": client, "subject": subject}
    trail.record(
        session,
        actor=principal.subject,
        action=actions.AUDIT_READ,
        client=None,
        subject="audit",
        details={key: value for key, value in asked.items() if value},
    )
    return _audit_answer(request, found, following)


@router.get(
    "/v1/admin/audit/verify",
    tags=["admin"],
    responses=web.problems(
        NotAuthenticatedError, ForbiddenError, RateLimitedError, UnavailableError
    ),
)
def verify_audit(request: Request, principal: Auditor) -> views.VerdictView:  # noqa: ARG001
    """Recompute the whole chain, from its first record to the head."""
    with request.app.state.sessions.begin() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        verdict = trail.verify(session)
    return views.VerdictView(
        holds=verdict.broken_at is None,
        records=verdict.records,
        head=verdict.head,
        broken_at=verdict.broken_at,
        reason=verdict.reason,
    )


@router.get("/v1/admin/clients", tags=["admin"], responses=web.problems(*REFUSALS))
def list_clients(
    principal: Overseer,  # noqa: ARG001
    session: web.SessionDep,
) -> views.ClientList:
    """List every client."""
    return views.ClientList(
        items=[
            views.ClientView.of(each, _projects(session, each), whole=False)
            for each in registry.clients(session)
        ]
    )


@router.get(
    "/v1/admin/clients/{client}",
    tags=["admin"],
    responses=web.problems(*REFUSALS, NotFoundError),
)
def get_client(
    client: ClientName,
    principal: Overseer,  # noqa: ARG001
    session: web.SessionDep,
) -> views.ClientView:
    """Show a client with the spec last applied, and what it received today (UTC)."""
    found = _client(session, client)
    view = views.ClientView.of(found, _projects(session, found), whole=True)
    today = usage.day_of(database.now(session))
    view.received_today = usage.of_day(session, client, today)
    return view


@router.put(
    "/v1/admin/clients/{client}",
    tags=["admin"],
    openapi_extra=web.documented_body(ClientSpec),
    responses=web.problems(*REFUSALS, TooLargeError, UnsupportedMediaError),
)
def apply_client(
    request: Request,
    client: ClientName,
    principal: Admin,
    document: Annotated[dict[str, Any], web.json_document()],
) -> views.Applied:
    """Bring a client to what the spec says, contracts inline; nothing changes the second time."""
    config = request.app.state.settings
    wanted = spec.parse(document, Offer.of(config))
    if wanted.client != client:
        message = "The spec names another client than the address."
        raise InvalidRequestError(message)
    with request.app.state.sessions.begin() as session:
        changes = apply.apply(session, wanted, actor=principal.subject)
    with request.app.state.sessions.begin() as session:
        apply.export(session, config.airflow.registry_path)
    return views.Applied(client=client, changes=[str(each) for each in changes])


@router.post(
    "/v1/admin/clients/{client}/suspend",
    tags=["admin"],
    responses=web.problems(*REFUSALS, NotFoundError),
)
def suspend_client(
    client: ClientName, principal: Admin, session: web.SessionDep
) -> views.ClientView:
    """Let nobody of this client in until it is resumed; runs under way go on."""
    return _set_state(session, client, "suspended", principal.subject)


@router.post(
    "/v1/admin/clients/{client}/resume",
    tags=["admin"],
    responses=web.problems(*REFUSALS, NotFoundError),
)
def resume_client(
    client: ClientName, principal: Admin, session: web.SessionDep
) -> views.ClientView:
    """Let a suspended client deliver again."""
    return _set_state(session, client, "active", principal.subject)


@router.get("/v1/admin/jobs", tags=["admin"], responses=web.problems(*REFUSALS))
def list_jobs(
    principal: Overseer,  # noqa: ARG001
    session: web.SessionDep,
    state: states.JobState | None = None,
    cursor: web.Cursor = None,
    limit: web.Limit = 50,
) -> views.ClientsJobPage:
    """List jobs of all clients, newest first, each with whose it is."""
    found, following = states.page(
        session, client=None, state=state, before=web.position_of(cursor), limit=limit
    )
    items = [
        views.ClientsJob.of(*each) for each in zip(found, states.views(session, found), strict=True)
    ]
    return views.ClientsJobPage(items=items, next=web.cursor_for(following))


@router.get("/v1/admin/jobs/{id}", tags=["admin"], responses=web.problems(*REFUSALS, NotFoundError))
def show_job(
    id: JobId,  # noqa: A002
    principal: Overseer,  # noqa: ARG001
    session: web.SessionDep,
) -> views.ClientsJob:
    """Show a job of any client."""
    found = states.by_id(session, id)
    return views.ClientsJob.of(found, showing.found(session, found.client, found.id)[1])


@router.post(
    "/v1/admin/jobs/{id}/retry",
    tags=["admin"],
    responses=web.problems(*REFUSALS, NotFoundError, states.JobFinishedError),
)
def retry_job(
    id: JobId,  # noqa: A002
    principal: Admin,
    session: web.SessionDep,
) -> JobView:
    """Try a queued, blocked or quarantined job again at once."""
    return states.view(session, states.retry(session, id, actor=principal.subject))


@router.get("/v1/admin/access/explain", tags=["admin"], responses=web.problems(*REFUSALS))
def explain_access(
    request: Request,
    principal: Admin,  # noqa: ARG001
    user: Annotated[str, Query(max_length=200)],
    action: Annotated[str, Query(pattern=r"^[a-z]+:?[a-z]*$", max_length=50)],
    project: Annotated[str | None, Query(max_length=200)] = None,
) -> views.Explanation:
    """Say whether an account has a scope, for a ``client/project`` or at all, and why."""
    rights = request.app.state.access.rights(user)
    if rights is None:
        return views.Explanation.unknown(user, action, project)
    return views.Explanation.of(user, action, project, rights)


@router.post("/v1/admin/reconcile", tags=["admin"], responses=web.problems(*REFUSALS))
def reconcile(request: Request, principal: Admin, *, repair: bool = False) -> views.Reconciliation:
    """Compare the landing zone with the ledger; with ``repair`` adopt and quarantine.

    What the ledger does not know is never deleted, and nothing unsealed is triggered.
    """
    state = request.app.state
    return reconciler.run(state.sessions, state.zone, repair=repair, actor=principal.subject)


def _number(position: str | None) -> int | None:
    if position is not None and not position.isdigit():
        raise InvalidRequestError
    return None if position is None else int(position)


def _audit_answer(request: Request, found: list[Any], following: str | None) -> Response:
    accept = request.headers.get("accept", "")
    link = {"X-Next-Cursor": following} if following else {}
    if "ndjson" in accept:
        text = "".join(views.ndjson(found))
        return Response(text, headers=link, media_type="application/x-ndjson")
    if "text/csv" in accept:
        text = "".join(views.comma_separated(found))
        return Response(text, headers=link, media_type="text/csv")
    items = [views.AuditEventView.of(each) for each in found]
    page = views.AuditPage(items=items, next=following)
    return Response(page.model_dump_json(), media_type="application/json")


def _client(session: Any, name: str) -> Client:
    found: Client | None = session.get(Client, name)
    if found is None:
        raise NotFoundError
    return found


def _projects(session: Any, client: Client) -> list[str]:
    return [each.name for each in registry.projects_of(session, client.name)]


def _set_state(session: Any, name: str, state: str, actor: str) -> views.ClientView:
    client = _client(session, name)
    if client.state not in {state, "gone"}:
        client.state = state
        action = actions.CLIENT_SUSPENDED if state == "suspended" else actions.CLIENT_RESUMED
        trail.record(session, actor=actor, action=action, client=name, subject=name)
    return views.ClientView.of(client, _projects(session, client), whole=False)
