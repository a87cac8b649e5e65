"""Failures as ``application/problem+json`` (RFC 9457), and the pages behind their types."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gateway import logs
from gateway.errors import (
    Fault,
    GatewayError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)

log = logs.get("web")


class FaultView(BaseModel):
    """One cause."""

    pointer: str
    detail: str
    code: str | None = None


class Problem(BaseModel):
    """A failure, in RFC 9457 form."""

    type: str
    title: str
    status: int
    detail: str | None = None
    request_id: str
    retryable: bool
    errors: list[FaultView] | None = None


def responses(*failures: type[GatewayError]) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a door that can fail in these ways."""
    by_status: dict[int, list[type[GatewayError]]] = {}
    for kind in failures:
        by_status.setdefault(kind.status, []).append(kind)
    reference = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": "; ".join(dict.fromkeys(f"{k.slug}: {k.title}" for k in found)),
            "content": {"application/problem+json": {"schema": reference}},
        }
        for status, found in by_status.items()
    }


def problem_schema() -> dict[str, Any]:
    """Return the JSON schema of ``Problem``, its parts inline."""
    schema = Problem.model_json_schema()
    fault = schema.pop("$defs")["FaultView"]
    schema["properties"]["errors"] = {"type": "array", "items": fault}
    return schema


def problem_response(request: Request, error: GatewayError) -> Response:
    """Render a failure; 429 and 503 say when to come back, with jitter."""
    body: dict[str, Any] = {
        "type": f"/problems/{error.slug}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail or None,
        "request_id": request.state.request_id,
        "retryable": error.retryable,
        "errors": [fault.as_json() for fault in error.errors] or None,
        **error.extra,
    }
    headers = dict(error.headers)
    if error.status in {429, 503}:
        headers.setdefault("Retry-After", str(random.randint(1, 5)))  # noqa: S311 - jitter
    if not request.state.body_done and request.method not in {"GET", "HEAD", "OPTIONS"}:
        # What is left of the body must not be taken for the next request.
        headers["Connection"] = "close"
    return JSONResponse(
        {key: value for key, value in body.items() if value is not None},
        error.status,
        headers,
        media_type="application/problem+json",
    )


def invalid(found: Any) -> InvalidRequestError:
    """Turn the findings of a validation into field errors."""
    faults = [
        Fault("/".join(str(part) for part in each["loc"]) or "body", each["msg"], each["type"])
        for each in found
    ]
    return InvalidRequestError("See errors.", errors=faults[:50])


async def _on_gateway_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, GatewayError):
        raise error
    log.info("request_refused", slug=error.slug, status=error.status)
    return problem_response(request, error)


async def _on_invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    return problem_response(request, invalid(error.errors()))


class MethodNotAllowedError(GatewayError):
    """The address exists, the method does not."""

    slug = "method-not-allowed"
    status = 405
    title = "This address does not take that method"


async def _on_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    by_status: dict[int, type[GatewayError]] = {404: NotFoundError, 405: MethodNotAllowedError}
    kind = by_status.get(error.status_code, InvalidRequestError)
    return problem_response(request, kind(headers=error.headers))


async def _on_database(request: Request, error: Exception) -> Response:
    if isinstance(error, DBAPIError) and not _is_away(error):
        return await _on_anything(request, error)
    log.warning("database_unavailable", kind=type(error).__name__)
    return problem_response(request, UnavailableError("The database does not answer."))


def _is_away(error: DBAPIError) -> bool:
    # 25006: a read-only primary; 57014 and 55P03: our own statement and lock time limits.
    state = getattr(error.orig, "pgcode", None)
    away = isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
    return away or state in {"25006", "57014", "55P03", "40001", "40P01", "53100", "53300"}


async def _on_anything(request: Request, error: Exception) -> Response:
    log.error("request_failed", exc_info=error)
    return problem_response(request, GatewayError())


async def _on_disconnect(request: Request, error: Exception) -> Response:  # noqa: ARG001
    log.info("client_gone")
    return Response(status_code=400)


pages = APIRouter(include_in_schema=False)


def kinds(root: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    """Yield every kind of failure there is."""
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


@pages.get("/problems/{slug}")
def problem_page(slug: str) -> HTMLResponse:
    """Serve the page behind a problem's ``type``."""
    for kind in kinds():
        if kind.slug == slug:
            retry = "Trying again can help." if kind.retryable else "Trying again will not help."
            text = f"{kind.title}. Status {kind.status}. {retry}"
            return HTMLResponse(
                f"<!doctype html><html lang=en><title>{slug}</title><h1>{slug}</h1><p>{text}</p>"
            )
    raise NotFoundError


Handler = Callable[[Request, Exception], Awaitable[Response]]


def install(app: FastAPI) -> None:
    """Give an application the problem handlers and the problem pages."""
    handlers: dict[type[Exception], Handler] = {
        GatewayError: _on_gateway_error,
        RequestValidationError: _on_invalid,
        HTTPException: _on_http,
        DBAPIError: _on_database,
        PoolTimeoutError: _on_database,
        ClientDisconnect: _on_disconnect,
        Exception: _on_anything,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    app.include_router(pages)
