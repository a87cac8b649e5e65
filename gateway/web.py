"""What every door shares: sessions, bodies, cursors, problems and the outermost middleware.

Bodies are read by dependencies of ours that come *after* the caller's authentication. FastAPI
reads a declared body, JSON or form, before any dependency has run.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import random
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from ulid import ULID

from gateway import logs
from gateway.errors import (
    Fault,
    GatewayError,
    InvalidRequestError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
    UnsupportedMediaError,
)

log = logs.get("web")
Model = TypeVar("Model", bound=BaseModel)

JSON_BODY_BYTES = 1024**2
FORM_BODY_BYTES = 16 * 1024
HEADER_BYTES = 32 * 1024
HEADER_COUNT = 100
JSON_DEPTH = 32


# --- sessions ---------------------------------------------------------------------------------


def _session(request: Request) -> Iterator[Session]:
    with request.app.state.sessions.begin() as session:
        yield session


# Function scope: the commit comes before the answer is sent, not after.
SessionDep = Annotated[Session, Depends(_session, scope="function")]


# --- bodies -----------------------------------------------------------------------------------


class RequestTimeoutError(GatewayError):
    """The body stopped coming."""

    slug = "request-timeout"
    status = 408
    title = "The request took too long to arrive"
    retryable = True


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Read a whole small body, never holding more than ``limit_bytes``.

    Raises
    ------
    TooLargeError
        The body is longer, by its header or by its bytes.
    """
    declared = request.headers.get("content-length", "0")
    body = bytearray()
    if int(declared) <= limit_bytes:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit_bytes:
                break
        else:
            return bytes(body)
    message = f"This door takes at most {limit_bytes} bytes."
    raise TooLargeError(message)


def loads(body: bytes) -> Any:
    """Parse JSON strictly (RFC 8259 and I-JSON, RFC 7493).

    Refuses NaN and Infinity, duplicate keys, NUL, lone surrogates, and nesting beyond 32.

    Raises
    ------
    InvalidRequestError
        The text is not such JSON.
    """
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
        )
        _check_text(value, JSON_DEPTH)
    except (ValueError, RecursionError) as error:
        detail = str(error) if type(error) is ValueError else "The body is not valid JSON."
        raise InvalidRequestError(detail) from None
    return value


def json_body(model: type[Model]) -> Any:
    """Return the dependency that reads a JSON body of this model.

    Declare it *after* the principal: dependencies are solved in the order of the signature.
    """

    async def read(request: Request) -> Model:
        return validated(model, await _read_json(request))

    return Depends(read)


def json_document() -> Any:
    """Return the dependency that reads a JSON body as it is, for a door that checks it itself."""
    return Depends(_read_json)


async def _read_json(request: Request) -> Any:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        message = "Send application/json."
        raise UnsupportedMediaError(message)
    return loads(await read_body(request, JSON_BODY_BYTES))


def validated(model: type[Model], value: Any) -> Model:
    """Validate a parsed body, turning every finding into a field error."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _invalid(error.errors(include_url=False, include_input=False)) from None


async def form_body(request: Request) -> dict[str, str]:
    """Read ``application/x-www-form-urlencoded``; a repeated field is refused (RFC 6749 §3.2)."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/x-www-form-urlencoded":
        message = "Send application/x-www-form-urlencoded."
        raise UnsupportedMediaError(message)
    body = await read_body(request, FORM_BODY_BYTES)
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=50,
        )
        _check_text([text for pair in pairs for text in pair], JSON_DEPTH)
    except ValueError:
        message = "The form cannot be read."
        raise InvalidRequestError(message) from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        message = "A field is given twice."
        raise InvalidRequestError(message)
    return fields


def documented_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return the ``openapi_extra`` of a door whose body is read by ``json_body(model)``."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    body_schemas.update(schema.pop("$defs", {}))
    body_schemas[model.__name__] = schema
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    content = {"application/json": {"schema": reference}}
    return {"requestBody": {"required": True, "content": content}}


body_schemas: dict[str, Any] = {}


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        message = "An object has the same key twice."
        raise ValueError(message)
    return found


def _no_constant(name: str) -> Any:
    message = f"{name} is not JSON."
    raise ValueError(message)


def _check_text(value: Any, depth: int) -> None:
    if depth == 0:
        message = "The body is nested too deeply."
        raise ValueError(message)
    if isinstance(value, str):
        if "\x00" in value or (not value.isascii() and not _encodes(value)):
            message = "Text must be Unicode without NUL."
            raise ValueError(message)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key, depth - 1)
            _check_text(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check_text(item, depth - 1)


def _encodes(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


# --- cursors ----------------------------------------------------------------------------------


def cursor_for(position: str | int | None) -> str | None:
    """Return the opaque ``next`` of a page that ends at ``position``; None stays None."""
    if position is None:
        return None
    return base64.urlsafe_b64encode(f"1:{position}".encode()).decode().rstrip("=")


def position_of(cursor: str | None) -> str | None:
    """Return what ``cursor_for`` was given.

    Raises
    ------
    InvalidRequestError
        The cursor is none of ours. A made-up one gains nothing: the query still takes the
        caller's client.
    """
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        text = ""
    if not re.fullmatch(r"1:[a-z0-9_]{1,64}", text):
        raise InvalidRequestError(errors=[Fault("cursor", "not a cursor of ours")])
    return text.removeprefix("1:")


# --- problems (RFC 9457) ----------------------------------------------------------------------


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


def problems(*kinds: type[GatewayError]) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a door that can fail in these ways."""
    by_status: dict[int, list[type[GatewayError]]] = {}
    for kind in kinds:
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


def _invalid(found: Any) -> InvalidRequestError:
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
    return problem_response(request, _invalid(error.errors()))


class MethodNotAllowedError(GatewayError):
    """The address exists, the method does not."""

    slug = "method-not-allowed"
    status = 405
    title = "This address does not take that method"


async def _on_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    kinds: dict[int, type[GatewayError]] = {404: NotFoundError, 405: MethodNotAllowedError}
    kind = kinds.get(error.status_code, InvalidRequestError)
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


def _kinds(root: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)


@pages.get("/problems/{slug}")
def problem_page(slug: str) -> HTMLResponse:
    """Serve the page behind a problem's ``type``."""
    for kind in _kinds():
        if kind.slug == slug:
            retry = "Trying again can help." if kind.retryable else "Trying again will not help."
            text = f"{kind.title}. Status {kind.status}. {retry}"
            return HTMLResponse(
                f"<!doctype html><html lang=en><title>{slug}</title><h1>{slug}</h1><p>{text}</p>"
            )
    raise NotFoundError


# --- the outermost middleware -----------------------------------------------------------------


class RequestContext:
    """Gives each request an id, bounds its headers and its silence, and logs it once.

    Pure ASGI: a ``BaseHTTPMiddleware`` costs an upload a third of its speed.
    """

    def __init__(self, app: ASGIApp, *, idle_seconds: float) -> None:
        self.app = app
        self.idle_seconds = idle_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry one request through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = f"req_{str(ULID()).lower()}"
        state["body_done"] = False
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=state["request_id"])
        sender = _Sender(send, state["request_id"])
        if refusal := _bad_headers(scope):
            await problem_response(Request(scope), refusal)(scope, receive, sender)
        else:
            await self.app(scope, self._watched(receive, state), sender)
        log.info(
            "request",
            method=scope["method"],
            route=getattr(scope.get("route"), "path", None),
            status=sender.status,
        )

    def _watched(self, receive: Receive, state: MutableMapping[str, Any]) -> Receive:
        async def next_message() -> Message:
            if state["body_done"]:
                return await receive()
            try:
                async with asyncio.timeout(self.idle_seconds):
                    message = await receive()
            except TimeoutError:
                raise RequestTimeoutError from None
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                state["body_done"] = True
            return message

        return next_message


class _Sender:
    """Adds the headers every answer carries and remembers the status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._headers = [
            (b"x-request-id", request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", [])) + self._headers
            if not any(name == b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", b"no-store"))
            message = {**message, "headers": headers}
        await self._send(message)


class HeadersTooLargeError(GatewayError):
    """Header bytes or count over the limit."""

    slug = "headers-too-large"
    status = 431
    title = "The request's headers are too large"


def _bad_headers(scope: Scope) -> GatewayError | None:
    headers = scope["headers"]
    size = sum(len(name) + len(value) for name, value in headers)
    if size > HEADER_BYTES or len(headers) > HEADER_COUNT:
        return HeadersTooLargeError()
    names = [name for name, _ in headers]
    if names.count(b"host") != 1 or names.count(b"authorization") > 1:
        return InvalidRequestError("Send exactly one Host and at most one Authorization header.")
    lengths = [value for name, value in headers if name == b"content-length"]
    if any(not value.isdigit() for value in lengths):
        return InvalidRequestError("Content-Length is not a number.")
    return None


Handler = Callable[[Request, Exception], Awaitable[Response]]


def install(app: FastAPI, *, idle_seconds: float) -> None:
    """Give an application the problem handlers, the problem pages and the middleware."""
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
    app.add_middleware(RequestContext, idle_seconds=idle_seconds)
