"""The small application Airflow mounts at ``/auth``: signing in through the gateway."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qsl

from airflow.api_fastapi.app import API_ROOT_PATH, get_cookie_path
from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ingest import gateway_api, login_pages

if TYPE_CHECKING:
    from collections.abc import Callable

# Nobody is known yet when this is read.
_BODY_LIMIT_BYTES = 16 * 1024


class Credentials(BaseModel):
    """What a person types."""

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


def create_app(open_session: Callable[[Credentials], Session]) -> FastAPI:
    """Build the application.

    Parameters
    ----------
    open_session
        Turns a name and password into a session; raises `gateway_api.LoginError`.
    """
    app = FastAPI(title="Sign in", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/login")
    def show_login(request: Request, next: str = "") -> Response:  # noqa: A002 - Airflow's name
        return login_pages.page(request, next_path=login_pages.safe_next(request, next))

    @app.post("/login")
    def sign_in(request: Request, body: Body) -> Response:
        return _sign_in(request, _form(body), open_session)

    @app.post("/token", status_code=201)
    def issue_token(request: Request, body: Body) -> Response:
        return _issue_token(request, body, open_session)

    @app.get("/logout")
    def sign_out() -> Response:
        # Airflow's own route revokes the session and removes the cookie.
        return RedirectResponse(f"{API_ROOT_PATH}api/v2/auth/logout", status_code=303)

    return app


def _sign_in(
    request: Request, form: dict[str, str], open_session: Callable[[Credentials], Session]
) -> Response:
    target = login_pages.safe_next(request, form.get("next", ""))
    if not login_pages.form_is_genuine(request, form.get("form_token", "")):
        message = "This page was open for too long, or did not come from here. Please try again."
        return login_pages.page(request, status_code=403, message=message, next_path=target)
    try:
        session = open_session(Credentials.model_validate(form))
    except (gateway_api.LoginError, ValidationError) as error:
        return _ask_again(request, form, target, _refusal(error))
    response = RedirectResponse(target, status_code=303, headers={"Cache-Control": "no-store"})
    _set_session(request, response, session)
    return response


def _ask_again(request: Request, form: dict[str, str], target: str, refusal: Refusal) -> Response:
    response = login_pages.page(
        request,
        status_code=refusal.status,
        message=refusal.message,
        next_path=target,
        username=form.get("username", "")[:255],
        client=form.get("client", "")[:31],
    )
    response.headers.update(refusal.headers)
    return response


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
    response.delete_cookie(login_pages.FORM_COOKIE, path=login_pages.LOGIN_PATH)


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


def _form(body: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=20))
    except ValueError:
        return {}


def _json_object(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _refusal(error: Exception) -> Refusal:
    """Put a failure into words that tell a stranger nothing about accounts."""
    if isinstance(error, gateway_api.GatewayAwayError):
        message = "Signing in is not possible at the moment. Please try again in a minute."
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
