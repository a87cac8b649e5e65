"""The small application Airflow mounts at ``/auth``: signing on by the gateway's page.

People go to the gateway and come back with a code (OAuth 2, RFC 6749 §4.1, with PKCE); no password
of theirs is typed here. Scripts send theirs to ``/auth/token``.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from airflow.api_fastapi.app import API_ROOT_PATH, get_cookie_path
from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ingest import gateway_api, login_pages
from ingest.flow import Flow

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingest.signon import SignOn

# Nobody is known yet when this is read.
_BODY_LIMIT_BYTES = 16 * 1024
_KEEP_NOTHING = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
STALE = "Signing in took too long, was begun in another browser, or was interrupted."


class Credentials(BaseModel):
    """What a script sends for a person."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    username: Annotated[str, Field(min_length=1, max_length=255)]
    password: Annotated[str, Field(min_length=1, max_length=1024, repr=False)]
    client: Annotated[str, Field(max_length=31)] = ""


@dataclass(frozen=True)
class Session:
    """An Airflow session, made from a verified login."""

    token: str
    expires_at: int

    @property
    def seconds(self) -> int:
        """How long it still lasts."""
        return max(0, self.expires_at - int(time.time()))


@dataclass(frozen=True)
class Refusal:
    """What to tell a person who could not sign in."""

    status: int
    message: str
    headers: dict[str, str]


async def capped_body(request: Request) -> bytes:
    """Read a small body; stop reading a large one."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BODY_LIMIT_BYTES:
            raise HTTPException(413, "The request is too large", {"Connection": "close"})
    return bytes(body)


Body = Annotated[bytes, Depends(capped_body)]


def create_app(signon: SignOn) -> FastAPI:
    """Build the application."""
    app = FastAPI(title="Sign in", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/login")
    def begin(request: Request, next: str = "") -> Response:  # noqa: A002 - Airflow's name
        return _begin(request, next, signon)

    @app.get("/callback")
    def come_back(request: Request) -> Response:
        return _come_back(request, signon)

    @app.post("/token", status_code=201)
    def issue_token(request: Request, body: Body) -> Response:
        return _issue_token(request, body, signon.open_by_password)

    @app.get("/logout")
    def sign_out() -> Response:
        # Airflow's own route revokes the session, and leads to the page below.
        return RedirectResponse(f"{API_ROOT_PATH}api/v2/auth/logout", status_code=303)

    @app.get("/signed-out")
    def signed_out() -> Response:
        response = login_pages.message(
            "You are signed out",
            "Your session in Airflow has ended, and the gateway is told to end yours there.",
            link_text="Sign in again",
        )
        response.delete_cookie(COOKIE_NAME_JWT_TOKEN, path=get_cookie_path())
        return response

    return app


def _begin(request: Request, wanted: str, signon: SignOn) -> Response:
    """Send a person to the gateway, or say that it is away."""
    flow = Flow.begin(login_pages.safe_next(request, wanted))
    try:
        address = signon.gateway_address(flow, login_pages.callback_url(request))
    except gateway_api.GatewayAwayError as error:
        return _failure(error)
    response = RedirectResponse(address, status_code=303, headers=_KEEP_NOTHING)
    flow.keep(request, response)
    return response


def _come_back(request: Request, signon: SignOn) -> Response:
    """Take the gateway's answer: only one that this browser asked for, here, and only once."""
    answer = _answer(request)
    flow = Flow.found(request, answer.get("state", ""))
    # Another server's answer, passed for the gateway's, must not be acted on (RFC 9207).
    if flow is None or not signon.is_issuer(answer.get("iss", "")):
        return login_pages.message("Please try again", STALE, status_code=400)
    try:
        response = _signed_on(request, answer, flow, signon)
    except gateway_api.LoginError as error:
        response = _failure(error)
    flow.forget(response)
    return response


def _answer(request: Request) -> dict[str, str]:
    """Return the answer's parameters; none at all when one is there twice."""
    pairs = request.query_params.multi_items()
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else {}


def _signed_on(request: Request, answer: dict[str, str], flow: Flow, signon: SignOn) -> Response:
    code = answer.get("code", "")
    if not code or "error" in answer:
        raise _told(answer.get("error", ""))
    session = signon.open_by_code(code, login_pages.callback_url(request), flow)
    response = RedirectResponse(flow.next_path, status_code=303, headers=_KEEP_NOTHING)
    _set_session(request, response, session)
    return response


def _told(error: str) -> gateway_api.LoginError:
    if error == "access_denied":
        return gateway_api.AccountNotAllowedError()
    if error in {"temporarily_unavailable", "server_error"}:
        return gateway_api.GatewayAwayError()
    return gateway_api.WrongCredentialsError()


def _failure(error: gateway_api.LoginError) -> Response:
    """Put a failure of the sign-on into a page."""
    if isinstance(error, gateway_api.WrongCredentialsError):
        return login_pages.message("Please try again", STALE, status_code=400)
    refusal = _refusal(error)
    title = "Signing in is not possible"
    return login_pages.message(
        title, refusal.message, status_code=refusal.status, headers=refusal.headers
    )


def _set_session(request: Request, response: Response, session: Session) -> None:
    # The cookie goes when the session ends: Airflow would otherwise clear the next one over it.
    response.set_cookie(
        COOKIE_NAME_JWT_TOKEN,
        session.token,
        max_age=session.seconds,
        path=get_cookie_path(),
        secure=login_pages.is_secure(request),
        httponly=True,
        samesite="lax",
    )


def _issue_token(
    request: Request, body: bytes, open_session: Callable[[Credentials], Session]
) -> Response:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        return JSONResponse({"detail": "Send JSON"}, status_code=415)
    try:
        session = open_session(Credentials.model_validate(_json_object(body)))
    except (gateway_api.LoginError, ValidationError) as error:
        refusal = _refusal(error)
        return JSONResponse(
            {"detail": refusal.message}, status_code=refusal.status, headers=refusal.headers
        )
    answer = {"access_token": session.token, "token_type": "bearer", "expires_in": session.seconds}
    return JSONResponse(answer, status_code=201, headers={"Cache-Control": "no-store"})


def _json_object(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _refusal(error: Exception) -> Refusal:
    """Put a failure into words that tell a stranger nothing about accounts."""
    if isinstance(error, gateway_api.GatewayAwayError):
        message = (
            "The gateway, where people sign in, does not answer at the moment. "
            "Please try again in a minute."
        )
        return Refusal(503, message, {"Retry-After": "30"})
    if isinstance(error, gateway_api.TooManyAttemptsError):
        message = "Too many attempts. Please wait a little before you try again."
        return Refusal(429, message, {"Retry-After": str(error.retry_after_seconds)})
    if isinstance(error, gateway_api.AccountNotAllowedError):
        message = "This account has no access to Airflow, or none without naming a client."
        return Refusal(403, message, {})
    if isinstance(error, gateway_api.ClientNeededError):
        return Refusal(400, "Please name the client you want to sign in for.", {})
    return Refusal(401, "The user name or the password is not right.", {})
