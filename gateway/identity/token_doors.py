"""Doors of tokens: issuing, revoking, asking what one is worth."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from gateway import web
from gateway.errors import GatewayError, UnavailableError
from gateway.identity import introspection, requests
from gateway.identity.applications import Application, Applications
from gateway.identity.codes import Presented
from gateway.identity.exchanging import Exchange
from gateway.identity.introspection import Introspection
from gateway.identity.issuing import Issued, Issuer
from gateway.identity.requests import TokenRefusedError, UnsupportedGrantError
from gateway.identity.signon import SignOn
from gateway.identity.throttle import TooManyAttemptsError

CODE_FIELDS = ("code", "redirect_uri", "code_verifier")


# --- failures in the form of RFC 6749 §5.2 ----------------------------------------------------


class TokenProblem(BaseModel):
    """A refusal by the token endpoint (RFC 6749 §5.2)."""

    error: str
    error_description: str | None = None


def _refusal(request: Request, error: GatewayError) -> Response:
    """Render a failure as RFC 6749 wants it; only the form differs from ``web``'s."""
    code, status = "invalid_request", error.status if error.status in {408, 413, 415} else 400
    if isinstance(error, TokenRefusedError):
        code, status = error.code, error.status
    elif isinstance(error, TooManyAttemptsError):
        code, status = "slow_down", error.status
    elif isinstance(error, UnavailableError):
        code, status = "temporarily_unavailable", error.status
    shown = web.problem_response(request, error)
    kept = {name: text for name, text in shown.headers.items() if not name.startswith("content-")}
    body = TokenProblem(error=code, error_description=error.detail or error.title)
    return JSONResponse(body.model_dump(), status, {**kept, "Cache-Control": "no-store"})


Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class TokenRoute(APIRoute):
    """A door whose callers are OAuth libraries: they know no problem+json."""

    def get_route_handler(self) -> Handler:
        """Wrap the door."""
        answer = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                return await answer(request)
            except GatewayError as error:
                return _refusal(request, error)

        return guarded


_refusals: dict[int | str, dict[str, Any]] = {
    400: {"model": TokenProblem, "description": "RFC 6749 §5.2"},
    401: {"model": TokenProblem, "description": "invalid_client"},
    413: {"model": TokenProblem, "description": "The form is too large"},
    415: {"model": TokenProblem, "description": "Not a form"},
    429: {"model": TokenProblem, "description": "slow_down: too many wrong passwords"},
    503: {"model": TokenProblem, "description": "temporarily_unavailable"},
}


def _documented_form(model: type[BaseModel]) -> dict[str, Any]:
    content = {"application/x-www-form-urlencoded": {"schema": model.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


# --- tokens -----------------------------------------------------------------------------------


class TokenForm(BaseModel):
    """Fields of a token request."""

    grant_type: Literal[
        "client_credentials",
        "password",
        "refresh_token",
        "authorization_code",
        "urn:ietf:params:oauth:grant-type:token-exchange",
    ]
    client_id: str | None = Field(
        None, description="a service's or application's name, unless sent as HTTP Basic"
    )
    client_secret: str | None = Field(None, description="its password, likewise")
    username: str | None = Field(None, description="a person's name")
    password: str | None = None
    refresh_token: str | None = None
    code: str | None = Field(None, description="of the sign-on that an application began")
    redirect_uri: str | None = Field(None, description="where the code was sent to")
    code_verifier: str | None = Field(None, description="of PKCE (RFC 7636)")
    subject_token: str | None = Field(None, description="a session's id (RFC 8693)")
    subject_token_type: str | None = Field(
        None, description=f"of an exchange: `{requests.SESSION_TOKEN}`"
    )
    scope: str | None = Field(None, description="fewer scopes than the account has")
    client: str | None = Field(None, description="for accounts that belong to several clients")
    audience: str | None = Field(None, description="`airflow` for a token that Airflow takes")


class TokenAnswer(BaseModel):
    """A token (RFC 6749 §5.1)."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a kind, not a token
    expires_in: int
    refresh_token: str | None = Field(None, description="for persons; to be used once")
    scope: str
    id_token: str | None = Field(None, description="for applications that asked for `openid`")
    issued_token_type: str | None = Field(None, description="of an exchange (RFC 8693 §2.2.1)")


router = APIRouter(route_class=TokenRoute)
Form = Annotated[dict[str, str], Depends(web.form_body)]


@router.post(
    "/v1/token",
    response_model=TokenAnswer,
    response_model_exclude_none=True,
    responses=_refusals,
    openapi_extra=_documented_form(TokenForm),
)
def issue_token(request: Request, response: Response, form: Form) -> TokenAnswer:
    """Get an access token (RFC 6749).

    Services use `client_credentials` with HTTP Basic or in the form; persons use `password`, and
    later `refresh_token`: each refresh token works once, and a second use ends the session.
    Applications that people sign on to send `authorization_code` with their own secret: a code
    works once, for the application, address and PKCE challenge that it was asked with.
    With a token exchange (RFC 8693) such an application gets a token of the person whose session
    it names, for a minute and for looking only: `batches:read`, `audit:read`, `admin:read`.
    After too many wrong passwords the answer is 429 with `slow_down`, right or wrong.
    """
    is_exchange = form.get("grant_type") == requests.TOKEN_EXCHANGE
    issued = _exchanged(request, form) if is_exchange else _issued(request, form)
    response.headers["Cache-Control"] = "no-store"
    return TokenAnswer(
        access_token=issued.access_token,
        expires_in=issued.expires_in,
        refresh_token=issued.refresh_token,
        scope=issued.scope,
        id_token=issued.id_token,
        issued_token_type=requests.ACCESS_TOKEN if is_exchange else None,
    )


def _issued(request: Request, form: dict[str, str]) -> Issued:
    authorization = request.headers.get("authorization")
    wish, address, issuer = requests.wish(form), address_of(request), issuer_of(request)
    match form.get("grant_type"):
        case "client_credentials":
            return issuer.by_password(requests.service(authorization, form), wish, address)
        case "password":
            return issuer.by_password(requests.person(form), wish, address)
        case "refresh_token":
            if not form.get("refresh_token"):
                raise TokenRefusedError("Send the refresh token.")
            return issuer.by_refresh(form["refresh_token"], wish, address)
        case "authorization_code":
            return issuer.by_code(_presented(request, form), wish, address)
        case None | "":
            raise TokenRefusedError("Send a grant_type.")
        case _:
            raise UnsupportedGrantError(
                "Use client_credentials, password, refresh_token or authorization_code."
            )


def _exchanged(request: Request, form: dict[str, str]) -> Issued:
    application = application_of(request, form)
    if form.get("subject_token_type") != requests.SESSION_TOKEN or not form.get("subject_token"):
        raise TokenRefusedError(f"Send a subject_token of the type {requests.SESSION_TOKEN}.")
    if form.get("requested_token_type", requests.ACCESS_TOKEN) != requests.ACCESS_TOKEN:
        raise TokenRefusedError("Only access tokens are made.")
    if form.get("actor_token"):
        raise TokenRefusedError("No actor_token is taken: the application proves itself.")
    exchange = Exchange(request.app.state.access, request.app.state.keys)
    wish, address = requests.wish(form), address_of(request)
    return exchange.for_session(application, form["subject_token"], wish, address)


def _presented(request: Request, form: dict[str, str]) -> Presented:
    application = application_of(request, form)
    missing = [name for name in CODE_FIELDS if not form.get(name)]
    if missing:
        raise TokenRefusedError(f"Send {', '.join(missing)}.")
    return Presented(application, *(form[name] for name in CODE_FIELDS))


def application_of(request: Request, form: dict[str, str]) -> Application:
    """Return the application that a request proves to come from."""
    applications: Applications = request.app.state.applications
    return applications.proven(request.headers.get("authorization"), form)


class RevocationForm(BaseModel):
    """Fields of a revocation."""

    token: str
    token_type_hint: str | None = Field(
        None, description="`session` for an application's session by its id, else not needed"
    )
    client_id: str | None = Field(None, description="for a session: the application's id")
    client_secret: str | None = Field(None, description="and its secret")


@router.post(
    "/v1/token/revoke",
    response_class=Response,
    responses={key: _refusals[key] for key in (400, 401, 413, 415, 503)},
    openapi_extra=_documented_form(RevocationForm),
)
def revoke_token(request: Request, form: Form) -> Response:
    """Revoke an access token, or a refresh token with all that came from its sign-in (RFC 7009).

    Who holds a token may revoke it; a token that is not known is answered with 200 as well. An
    application ends one of its sessions by the session's id, which is no secret, so it has to
    prove itself: the person is then signed out everywhere.
    """
    if not form.get("token"):
        raise TokenRefusedError("Send the token.")
    if form.get("token_type_hint") == introspection.SESSION:
        application = application_of(request, form)
        SignOn(request.app.state.access).end_session(application, form["token"])
    else:
        issuer_of(request).revoke(form["token"])
    return Response(headers={"Cache-Control": "no-store"})


class IntrospectionForm(BaseModel):
    """Fields of an introspection."""

    token: str = Field(description="an access token, or a session's id")
    token_type_hint: str | None = Field(None, description="`session` for a session's id")
    client_id: str | None = Field(None, description="the application, unless by HTTP Basic")
    client_secret: str | None = None


class TokenState(BaseModel):
    """What a token is worth (RFC 7662 §2.2)."""

    active: bool
    sub: str | None = None
    client: str | None = None
    scope: str | None = Field(None, description="what it carries and the directory still grants")
    exp: int | None = None
    fresh_seconds: float | None = Field(None, description="how long this may be believed")


@router.post(
    "/v1/token/introspect",
    response_model=TokenState,
    response_model_exclude_none=True,
    responses={key: _refusals[key] for key in (400, 401, 413, 415, 503)},
    openapi_extra=_documented_form(IntrospectionForm),
)
def introspect_token(request: Request, response: Response, form: Form) -> TokenState:
    """Ask what a token is worth at this moment (RFC 7662): for applications, with their secret.

    A session is named by the part of its access token's `jti` that stands before the dot.
    """
    application = application_of(request, form)
    if not form.get("token"):
        raise TokenRefusedError("Send the token.")
    response.headers["Cache-Control"] = "no-store"
    asked = Introspection(request.app.state.access, request.app.state.keys)
    is_session = form.get("token_type_hint") == introspection.SESSION
    worth = (asked.of_session if is_session else asked.of_token)(application, form["token"])
    if worth is None:
        return TokenState(active=False)
    return TokenState(
        active=True,
        sub=worth.subject,
        client=worth.client,
        scope=worth.scope,
        exp=worth.expires_at,
        fresh_seconds=worth.fresh_seconds,
    )


def issuer_of(request: Request) -> Issuer:
    """Return what issues tokens in this application."""
    return Issuer(request.app.state.access, request.app.state.keys)


def address_of(request: Request) -> str:
    """Return the caller's address: the peer's, or what a proxy of ours says it was."""
    peer = request.client.host if request.client else ""
    trusted = request.app.state.settings.server.trusted_proxies
    if peer not in {part.strip() for part in trusted.split(",") if part.strip()}:
        return peer
    # Only the last entry was written by our own proxy; all before it came from outside.
    hops = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
    try:
        return str(ipaddress.ip_address(hops[-1].strip()))
    except ValueError:
        return peer
