"""Doors of identity: tokens, the keys that verify them, and who the caller is."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from gateway import web
from gateway.clients.rate import RateLimitedError
from gateway.errors import UnavailableError
from gateway.identity import requests, scopes, token_doors
from gateway.identity.access import Access, Anyone, NotAMemberError, NotAuthenticatedError
from gateway.identity.tokens import InvalidTokenError, KeyRing

JWKS_FRESH_SECONDS = 60


# --- keys and metadata ------------------------------------------------------------------------

router = APIRouter(tags=["identity"])
router.include_router(token_doors.router)


class Keys(BaseModel):
    """A JSON Web Key Set (RFC 7517)."""

    keys: list[dict[str, str | int]] = Field(
        description="the newest first; `nbf`: signs from then on; `exp`: from then on it verifies"
        " receipts only"
    )


@router.get("/.well-known/jwks.json")
def jwks(request: Request, response: Response) -> Keys:
    """Get the public keys that verify access tokens and receipts."""
    response.headers["Cache-Control"] = f"public, max-age={JWKS_FRESH_SECONDS}"
    ring: KeyRing = request.app.state.keys
    return Keys.model_validate(ring.jwks())


class Metadata(BaseModel):
    """What an OAuth library needs to know (RFC 8414)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    introspection_endpoint: str
    revocation_endpoint: str
    jwks_uri: str
    scopes_supported: list[str] = [*scopes.ALL, scopes.ADMIN_READ]
    response_types_supported: list[str] = ["code"]
    response_modes_supported: list[str] = ["query"]
    code_challenge_methods_supported: list[str] = ["S256"]
    authorization_response_iss_parameter_supported: bool = True
    prompt_values_supported: list[str] = ["login", "none"]
    grant_types_supported: list[str] = [
        "authorization_code",
        "client_credentials",
        "password",
        "refresh_token",
        requests.TOKEN_EXCHANGE,
    ]
    token_endpoint_auth_methods_supported: list[str] = [
        "client_secret_basic",
        "client_secret_post",
        "none",
    ]
    revocation_endpoint_auth_methods_supported: list[str] = [
        "none",
        "client_secret_basic",
        "client_secret_post",
    ]
    introspection_endpoint_auth_methods_supported: list[str] = [
        "client_secret_basic",
        "client_secret_post",
    ]


@router.get("/.well-known/oauth-authorization-server")
def metadata(request: Request) -> Metadata:
    """Get the authorization server's metadata."""
    issuer: str = request.app.state.settings.tokens.issuer
    base = issuer.rstrip("/")
    return Metadata(
        issuer=issuer,
        authorization_endpoint=f"{base}/v1/authorize",
        token_endpoint=f"{base}/v1/token",
        introspection_endpoint=f"{base}/v1/token/introspect",
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
