"""The views inside Airflow: what a client delivered and what became of it; the gateway as a whole.

Airflow 3.3 shows them in a frame of its own page, and leads that frame home from any address but
those below ``/auth/``: so they are mounted there, not as an application of a plugin. Whoever comes
to a view's address by itself is led into that page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.api_fastapi.app import API_ROOT_PATH
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException

from ingest import view_api, view_client, view_gateway, view_pages
from ingest.gateway_api import GatewayAwayError
from ingest.view_parts import AUDIT, DELIVERIES, GATEWAY, IntoShellError

if TYPE_CHECKING:
    from ingest.view_parts import Parts

_NO_TOKEN, _NO_RIGHT, _NO_VIEW, _NO_GATEWAY = 401, 403, 404, 503


def create_app(parts: Parts) -> FastAPI:
    """Build the application."""
    app = FastAPI(title="Views", docs_url=None, redoc_url=None, openapi_url=None)
    app.router.redirect_slashes = False
    _explain_failures(app)

    @app.get("/static/{name}")
    def beside(name: str) -> Response:
        return view_pages.beside(name)

    view_client.add_doors(app, parts)
    view_gateway.add_doors(app, parts)
    return app


_ABSENT = (404, "There is nothing here", "It does not exist, or it is not yours to see.")
_REFUSED = (403, "This is not for you", "Your account, or this kind of session, has no such view.")
_WRONG = (
    400,
    "This address makes no sense",
    "A filter or a position in the list is not one of ours.",
)
_AWAY = (
    503,
    "The gateway does not answer at the moment",
    "Nothing is lost: what was delivered is being processed. Try again in a minute.",
)
_TOO_OFTEN = (
    429,
    "Too many questions at once",
    "Your client's requests are limited. Wait a little.",
)
_ENDED = (401, "Your session has ended", "Sign in again to see this.")
_SAID: dict[type[Exception], tuple[int, str, str]] = {
    view_api.ViewAbsentError: _ABSENT,
    view_api.ViewRefusedError: _REFUSED,
    view_api.ViewAskedWronglyError: _WRONG,
    view_api.ViewTooOftenError: _TOO_OFTEN,
    GatewayAwayError: _AWAY,
}
_BY_STATUS = {
    _NO_TOKEN: _ENDED,
    _NO_RIGHT: _REFUSED,
    _NO_VIEW: _ABSENT,
    _NO_GATEWAY: _AWAY,
}


def _explain_failures(app: FastAPI) -> None:
    def said(_: Request, error: Exception) -> Response:
        return view_pages.message(*_SAID[type(error)])

    for kind in _SAID:
        app.add_exception_handler(kind, said)

    @app.exception_handler(HTTPException)
    def by_status(request: Request, error: HTTPException) -> Response:
        known = _BY_STATUS.get(error.status_code, (error.status_code, "That did not work", ""))
        back = _shell(_item(request), request) if error.status_code == _NO_TOKEN else ""
        return view_pages.message(*known, sign_in=back)

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> Response:
        # A name that cannot be one answers as one that is not there.
        is_name = any(each["loc"][0] == "path" for each in error.errors())
        return view_pages.message(*(_ABSENT if is_name else _WRONG))

    @app.exception_handler(IntoShellError)
    def into_shell(request: Request, error: IntoShellError) -> Response:
        address = _shell(error.item, request)
        return RedirectResponse(address, 303, headers={"Cache-Control": "no-store"})


def _path(request: Request) -> str:
    return str(request.scope["path"]).removeprefix(request.scope.get("root_path", ""))


def _item(request: Request) -> str:
    first = _path(request).split("/")[1]
    return first if first in {GATEWAY, AUDIT} else DELIVERIES


def _shell(item: str, request: Request) -> str:
    """Return where Airflow's page shows this view; its address there holds the view's own."""
    path = _path(request)
    query = f"?{request.url.query}" if request.url.query else ""
    return f"{API_ROOT_PATH}security/{item}{view_pages.PATH}{path}{query}"
