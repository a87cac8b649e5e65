"""Doors of identity: tokens, their revocation, the keys, and who the caller is."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from gateway import web
from gateway.clients.rate import RateLimitedError
from gateway.errors import GatewayError, UnavailableError
from gateway.identity import requests, scopes
from gateway.identity.access import Access, Anyone, NotAMemberError, NotAuthenticatedError
from gateway.identity.issuing import Issued, Issuer
from gateway.identity.requests import TokenRefusedError, UnsupportedGrantError
from gateway.identity.throttle import TooManyAttemptsError
from gateway.identity.tokens import InvalidTokenError, KeyRing

JWKS_FRESH_SECONDS = 60


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

    grant_type: Literal["client_credentials", "password", "refresh_token"]
    client_id: str | None = Field(None, description="a service's name, unless sent as HTTP Basic")
    client_secret: str | None = Field(None, description="its password, likewise")
    username: str | None = Field(None, description="a person's name")
    password: str | None = None
    refresh_token: str | None = None
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


token_router = APIRouter(route_class=TokenRoute)
Form = Annotated[dict[str, str], Depends(web.form_body)]


@token_router.post(
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
    After too many wrong passwords the answer is 429 with `slow_down`, right or wrong.
    """
    issued = _issued(request, form)
    response.headers["Cache-Control"] = "no-store"
    return TokenAnswer(
        access_token=issued.access_token,
        expires_in=issued.expires_in,
        refresh_token=issued.refresh_token,
        scope=issued.scope,
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
        case None | "":
            raise TokenRefusedError("Send a grant_type.")
        case _:
            raise UnsupportedGrantError("Use client_credentials, password or refresh_token.")


class RevocationForm(BaseModel):
    """Fields of a revocation."""

    token: str
    token_type_hint: str | None = Field(None, description="accepted and not needed")


@token_router.post(
    "/v1/token/revoke",
    response_class=Response,
    responses={key: _refusals[key] for key in (400, 413, 415, 503)},
    openapi_extra=_documented_form(RevocationForm),
)
def revoke_token(request: Request, form: Form) -> Response:
    """Revoke an access token, or a refresh token with all that came from its sign-in (RFC 7009).

    Who holds a token may revoke it; a token that is not known is answered with 200 as well.
    """
    if not form.get("token"):
        raise TokenRefusedError("Send the token.")
    issuer_of(request).revoke(form["token"])
    return Response(headers={"Cache-Control": "no-store"})


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


# --- keys and metadata ------------------------------------------------------------------------

router = APIRouter(tags=["identity"])
router.include_router(token_router)


class Keys(BaseModel):
    """A JSON Web Key Set (RFC 7517)."""

    keys: list[dict[str, str]]


@router.get("/.well-known/jwks.json")
def jwks(request: Request, response: Response) -> Keys:
    """Get the public keys that verify access tokens and receipts."""
    response.headers["Cache-Control"] = f"public, max-age={JWKS_FRESH_SECONDS}"
    ring: KeyRing = request.app.state.keys
    return Keys.model_validate(ring.jwks())


class Metadata(BaseModel):
    """What an OAuth library needs to know (RFC 8414)."""

    issuer: str
    token_endpoint: str
    revocation_endpoint: str
    jwks_uri: str
    scopes_supported: list[str] = list(scopes.ALL)
    response_types_supported: list[str] = []
    grant_types_supported: list[str] = ["client_credentials", "password", "refresh_token"]
    token_endpoint_auth_methods_supported: list[str] = [
        "client_secret_basic",
        "client_secret_post",
        "none",
    ]
    revocation_endpoint_auth_methods_supported: list[str] = ["none"]


@router.get("/.well-known/oauth-authorization-server")
def metadata(request: Request) -> Metadata:
    """Get the authorization server's metadata."""
    issuer: str = request.app.state.settings.tokens.issuer
    base = issuer.rstrip("/")
    return Metadata(
        issuer=issuer,
        token_endpoint=f"{base}/v1/token",
        revocation_endpoint=f"{base}/v1/token/revoke",
        jwks_uri=f"{base}/.well-known/jwks.json",
    )


# --- who am I ---------------------------------------------------------------------------------


class Reason(BaseModel):
    """A group of the caller, and what it gives."""

    name: str
    scopes: list[str]
    via: list[str] = Field(
        description="groups through which the caller is in it; empty if directly"
    )


class Me(BaseModel):
    """The caller, with the rights of this moment."""

    subject: str
    kind: Literal["person", "service"]
    client: str | None
    scopes: list[str]
    groups: list[Reason]
    expires_at: int = Field(description="when the token ends, in seconds since 1970")


@router.get(
    "/v1/me",
    responses=web.problems(
        NotAuthenticatedError,
        InvalidTokenError,
        NotAMemberError,
        RateLimitedError,
        UnavailableError,
    ),
)
def me(request: Request, caller: Anyone) -> Me:
    """Say who the caller is, for which client, with which scopes, and which groups give them."""
    access: Access = request.app.state.access
    rights = access.rights(caller.subject)
    if rights is None:
        raise InvalidTokenError
    given = rights.grants.reasons
    return Me(
        subject=caller.subject,
        kind=caller.kind,
        client=caller.client,
        scopes=sorted(caller.scopes),
        groups=[
            Reason(name=group.name, scopes=sorted(given[group.name]), via=list(group.via))
            for group in rights.account.groups
            if group.name in caller.groups and group.name in given
        ],
        expires_at=caller.expires_at,
    )
