"""The server's side of HTTP/1.1: uvicorn's protocol, faster for bodies and stricter with senders.

It overrides internals of uvicorn, whose version is pinned for that. Where it is in doubt, the
stock protocol does the same work (``GATEWAY_SERVER_PROTOCOL=stock``), slower.
"""

from __future__ import annotations

import asyncio
from asyncio.events import TimerHandle
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import httptools
from fastapi import Request
from ulid import ULID
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import GatewayError
from gateway.web.bodies import RequestTimeoutError
from gateway.web.context import HEADER_BYTES, HEADER_COUNT, HeadersTooLargeError
from gateway.web.incoming import Incoming
from gateway.web.lingering import Line
from gateway.web.problems import problem_response

HEADER_SECONDS = 10.0
# A head as it comes: its address, and what separates its headers, besides these.
HEAD_BYTES = HEADER_BYTES + 4 * HEADER_COUNT + 8 * 1024
# What may come with a chunked body besides itself: sizes, extensions, trailers.
EXCESS_BYTES = 64 * 1024
EXCESS_RATIO = 16


class MalformedRequestError(GatewayError):
    """What came is no HTTP, or could be read in two ways."""

    slug = "malformed-request"
    status = 400
    title = "The request is not well-formed HTTP"


class UploadProtocol(HttpToolsProtocol):
    """One connection.

    Beyond what uvicorn does: a head has to come soon and to be of bounded size; bodies are passed
    on without copies, large ones without a parser; a sender that is refused can read why.
    Trailers are passed over: nobody asks for them, and they come after the caller was identified.

    Parameters
    ----------
    header_seconds
        How long a head may take, from the connection's beginning or its first byte.
    """

    def __init__(self, *args: Any, header_seconds: float = HEADER_SECONDS, **named: Any) -> None:
        super().__init__(*args, **named)
        self._application = self.app
        self._header_seconds = header_seconds
        self._incoming: Incoming | None = None
        self._length: int | None = None
        self._is_in_head = True
        self._is_refused = False
        self._heads = self._head_bytes = self._body_bytes = 0
        self._deadline: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(Line(transport, self, self._is_being_sent_to))
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._forget_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and see what it amounts to."""
        heads, was_in_head = self._heads, self._is_in_head
        super().data_received(data)
        if self._heads != heads:
            self._forget_deadline()
            self._head_bytes = self._body_bytes = 0
        elif was_in_head:
            self._head_bytes += len(data)
            self._expect_head()
            if self._head_bytes > HEAD_BYTES:
                self._refuse(HeadersTooLargeError())
        elif self._incoming is not None and not self._incoming.is_whole:
            self._body_bytes += len(data)
            if self._body_bytes > EXCESS_BYTES + EXCESS_RATIO * self._incoming.arrived_bytes:
                self._refuse(MalformedRequestError("There is too much around the chunks."))

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._length = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        if self._is_in_head:
            super().on_header(name, value)
            if name.lower() == b"content-length":
                self._length = int(value)

    def on_headers_complete(self) -> None:
        """Start the application, with a ``receive`` of ours."""
        incoming = self._incoming = Incoming(self, self.flow, self._length)
        self.app = cast("Any", partial(incoming.serve, cast("Any", self._application)))
        super().on_headers_complete()
        incoming.cycle = self.cycle
        self._is_in_head = False
        self._heads += 1

    def on_body(self, body: bytes) -> None:
        """Pass a piece on."""
        if self._incoming is not None and not self.cycle.response_complete:
            self._incoming.add(body)

    def on_message_complete(self) -> None:
        """Say that a body is whole; also called where it came without the parser."""
        self._is_in_head = True
        if self._incoming is not None:
            self._incoming.end()

    def parse_again(self) -> None:
        """Take the connection back from a lane that received all of a body.

        The parser that was left in the middle of it is of no more use.
        """
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.transport.set_protocol(self)
        self.on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, unless the rest of this one's body would be in its way."""
        is_in_the_way = self._is_body_coming() and self.cycle.response_complete
        if is_in_the_way and not self.transport.is_closing():
            self.transport.close()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(MalformedRequestError(msg))

    def _unsupported_upgrade_warning(self) -> None:
        """Answer in HTTP/1.1; what would have followed in another protocol is not ours to read."""
        self.cycle.keep_alive = False

    def _is_body_coming(self) -> bool:
        return self._incoming is not None and not self._incoming.is_whole

    def _is_being_sent_to(self) -> bool:
        return self._is_refused or self._is_body_coming()

    def _expect_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._header_seconds, self._give_up)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if not self._head_bytes:
            self.transport.close()
        else:
            self._refuse(RequestTimeoutError("The headers took too long."))

    def _refuse(self, error: GatewayError) -> None:
        """Answer for the application, unless it is answering already, and end the connection."""
        self._is_refused = True
        self._forget_deadline()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not self._is_body_coming():
                # What came is no part of the request that is being answered.
                cycle.keep_alive = False
                self.flow.pause_reading()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        if not self.transport.is_closing():
            if cycle is None or cycle.response_complete or not cycle.response_started:
                self.transport.write(_answer(error))
            self.transport.close()


def _answer(error: GatewayError) -> bytes:
    """Render a problem as the whole answer of a connection that ends with it."""
    identity = f"req_{str(ULID()).lower()}"
    state = {"request_id": identity, "body_done": True}
    found = Request({"type": "http", "method": "GET", "headers": [], "state": state})
    response = problem_response(found, error)
    headers = [
        *response.raw_headers,
        (b"x-request-id", identity.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
        (b"connection", b"close"),
    ]
    status = HTTPStatus(error.status)
    head = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
    head += [name + b": " + value for name, value in headers]
    return b"\r\n".join([*head, b"", bytes(response.body)])
