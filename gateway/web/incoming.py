"""One request's body, between the parser of its connection and the application."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.web.lending import Lane, Owner
from gateway.web.streams import LENDING

# How much is held of a body before its sender has to wait. The stock protocol's 64 KiB make the
# socket stop and go all the time.
HELD_BYTES = 1024**2
HELD_PIECES = 1024
# Smaller pieces are worth a copy, to pass fewer.
PIECE_BYTES = 16 * 1024
# Of what is left of a body, when receiving it into buffers of our own is worth the change.
LENT_FROM_BYTES = 256 * 1024
# Bytes are handed on at the latest then, be the buffer full or not.
PATIENCE_SECONDS = 0.1
DISCONNECT: MutableMapping[str, Any] = {"type": "http.disconnect"}


class Incoming:
    """Collects a body's pieces, and is the application's ``receive``.

    What arrived before the sender went away is handed on first.

    Parameters
    ----------
    protocol
        The connection's.
    flow
        Stops and starts the reading.
    length
        The body's announced length, None where there is none.
    """

    cycle: RequestResponseCycle

    def __init__(self, protocol: Owner, flow: FlowControl, length: int | None) -> None:
        self.is_whole = False
        self.arrived_bytes = 0
        self._protocol = protocol
        self._flow = flow
        self._length = length or 0
        self._terms = {"agreed": False}
        self._lane: Lane | None = None
        self._is_told = False
        self._pieces: deque[bytes] = deque()
        self._held_bytes = 0

    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ours takes its place
        """Run the application with this for its ``receive``."""
        scope["extensions"] = {LENDING: self._terms}
        await app(scope, self.receive, send)

    def add(self, piece: bytes) -> None:
        """Take what the parser found."""
        self.arrived_bytes += len(piece)
        self._held_bytes += len(piece)
        self._pieces.append(piece)
        if self._held_bytes >= HELD_BYTES or len(self._pieces) >= HELD_PIECES:
            self._flow.pause_reading()
        self.cycle.message_event.set()

    def end(self) -> None:
        """Note that it is all here."""
        self.is_whole = True
        self.cycle.message_event.set()

    async def receive(self) -> MutableMapping[str, Any]:
        """Return the next piece, or that there are no more, or that the sender is gone."""
        self._continue()
        while not self.cycle.response_complete:
            piece = self._take()
            if piece is not None or (self.is_whole and not self._is_told):
                self._is_told = self.is_whole and self._is_empty()
                return {
                    "type": "http.request",
                    "body": b"" if piece is None else piece,
                    "more_body": not self._is_told,
                }
            if self.cycle.disconnected:
                break
            await self._news()
        return DISCONNECT

    def _continue(self) -> None:
        """Tell a sender who waits for it to go on: not before somebody wants the body."""
        cycle = self.cycle
        if cycle.waiting_for_100_continue and not cycle.transport.is_closing():
            cycle.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False

    def _take(self) -> bytes | memoryview | None:
        if self._pieces:
            return self._piece()
        if self._lane is None and self._is_worth_a_lane():
            self._lane = self._switched()
        return None if self._lane is None else self._lane.take()

    def _piece(self) -> bytes:
        is_coarse = self._held_bytes >= PIECE_BYTES * len(self._pieces)
        if len(self._pieces) == 1 or (is_coarse and self._terms["agreed"]):
            piece = self._pieces.popleft()
        else:
            piece = b"".join(self._pieces)
            self._pieces.clear()
        self._held_bytes -= len(piece)
        return piece

    def _is_empty(self) -> bool:
        return not self._pieces and (self._lane is None or self._lane.is_empty)

    def _is_worth_a_lane(self) -> bool:
        if self.is_whole or self.cycle.disconnected or self.cycle.transport.is_closing():
            return False
        return self._terms["agreed"] and self._length - self.arrived_bytes >= LENT_FROM_BYTES

    def _switched(self) -> Lane:
        lane = Lane(
            self._protocol,
            self._length - self.arrived_bytes,
            pause=self._flow.pause_reading,
            resume=self._flow.resume_reading,
            on_news=self.cycle.message_event.set,
        )
        self.cycle.transport.set_protocol(lane)
        self._flow.resume_reading()
        return lane

    async def _news(self) -> None:
        """Wait until something changes."""
        event = self.cycle.message_event
        if self._lane is None or self.is_whole:
            self._flow.resume_reading()
            await event.wait()
        else:
            timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._lane.hurry)
            try:
                await event.wait()
            finally:
                timer.cancel()
        event.clear()
