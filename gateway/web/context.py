"""The outermost middleware: an id, bounds and one log line for each request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any

import structlog
from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import database, logs
from gateway.errors import GatewayError, InvalidRequestError, TooLargeError
from gateway.web.bodies import RequestTimeoutError
from gateway.web.problems import problem_response

log = logs.get("web")

HEADER_BYTES = 32 * 1024
HEADER_COUNT = 100
LENGTH_DIGITS = 18
# Slower than any line that a delivery comes by: who sends so wants to hold a place.
MIN_BYTES_PER_SECOND = 512


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
        state["request_id"] = database.new_id("req")
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
        pace = _Pace(self.idle_seconds)

        async def next_message() -> Message:
            if state["body_done"]:
                return await receive()
            begun = time.monotonic()
            try:
                async with asyncio.timeout(self.idle_seconds):
                    message = await receive()
            except TimeoutError:
                raise RequestTimeoutError from None
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                state["body_done"] = True
            else:
                pace.check(time.monotonic() - begun, len(message.get("body", b"")))
            return message

        return next_message


class _Pace:
    """Tells a body that trickles in from one that a slow line brings.

    Only the time spent waiting for the sender counts: a slow disk of ours is not its fault.
    """

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._waited_seconds = 0.0
        self._arrived_bytes = 0

    def check(self, waited_seconds: float, arrived_bytes: int) -> None:
        """Count one more piece."""
        self._waited_seconds += waited_seconds
        self._arrived_bytes += arrived_bytes
        is_over = self._waited_seconds > self._grace_seconds
        if is_over and self._arrived_bytes < self._waited_seconds * MIN_BYTES_PER_SECOND:
            raise RequestTimeoutError


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
    if not all(value.isdigit() for value in lengths):
        return InvalidRequestError("Content-Length is not a number.")
    if any(len(value) > LENGTH_DIGITS for value in lengths):
        return TooLargeError("Nothing is taken that is so long.")
    return None
