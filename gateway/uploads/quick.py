"""The short way of a small file that came whole: the door's documented answer, with less around it.

The framework's layers, an own transaction and several turns of threads cost a small file five times
what storing it does. So a body that is all there a moment after its request is written, hashed and
synced in one turn of a thread, and committed together with the others that wait (``groups``).
Whatever is not plainly acceptable goes on to the door itself, as if nothing had been read, which
refuses it, or reserves its name and room before its bytes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from sqlalchemy.exc import SQLAlchemyError

from gateway.batches.views import BATCH_ID, FileView
from gateway.chunks import Chunk
from gateway.errors import GatewayError
from gateway.identity import access
from gateway.identity.access import Access, Principal
from gateway.jobs.reading import client_of
from gateway.landing.names import FileName
from gateway.uploads import digests
from gateway.uploads.announced import Announced
from gateway.uploads.groups import Groups, Waiter
from gateway.uploads.intake import Intake
from gateway.uploads.small import SMALL_BYTES, Ready, Small, write_all

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# A sender who has not sent the whole by then holds a place like every other.
PATIENCE_SECONDS = 0.02
# A turn at the disk, and how many there are at a time: what comes meanwhile goes with the next.
TURN_FILES = 64
TURNS = 2
ROUTE = "/v1/batches/{batch_id}/files/{name}"
_PATH = re.compile(rf"/v1/batches/({BATCH_ID.strip('^$')})/files/([^/]+)")
_READ = {b"content-length", b"content-type", b"repr-digest", b"content-digest", b"authorization"}
# With one of these the door has something to say before it reads.
_SPECIAL = {b"expect", b"content-encoding", b"content-range", b"transfer-encoding"}


@dataclass(frozen=True, slots=True)
class _Route:
    """What the log calls the address."""

    path: str = ROUTE


Whole = Callable[[Sequence[Chunk]], Small]


class QuickPut:
    """ASGI middleware before the doors."""

    def __init__(self, app: App, *, access: Access, intake: Intake) -> None:
        self.app = app
        self._access = access
        self._intake = intake
        groups = intake.groups
        self._desk = _Desk(intake, groups) if groups and groups.can_store else None
        self._asking: dict[str, asyncio.Future[Principal]] = {}
        self._filling: dict[str, asyncio.Future[None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Store a small file, or pass the request on."""
        is_put = scope.get("method") == "PUT"
        asked = await self._asked(scope) if is_put and self._desk else None
        if asked is None or self._desk is None:
            await self.app(scope, receive, send)
            return
        held: list[Message] = []
        view = await _stored(self._desk, asked, held) if await _is_whole(receive, held) else None
        if view is None:
            await self.app(scope, _again(held, receive), send)
            return
        scope["route"] = _Route()
        await _answer(send, scope["path"], view)

    async def _asked(self, scope: Scope) -> Whole | None:
        found = _PATH.fullmatch(scope["path"])
        headers = _headers(scope["headers"]) if found else None
        if found is None or headers is None:
            return None
        length = headers.get("content-length", "")
        if not (0 < len(length) < len(str(SMALL_BYTES)) + 1 and int(length) <= SMALL_BYTES):
            return None
        try:
            announced = Announced.of(headers, int(length))
            name = FileName.parse(found[2])
            principal = await self._principal(headers.get("authorization", ""))
            if principal is None or not access.is_writer(principal):
                return None
            await self._count(principal)
        except (GatewayError, SQLAlchemyError):
            return None
        scope.setdefault("state", {})[access.COUNTED] = True
        request_id = scope.get("state", {}).get("request_id")
        return partial(Small, principal, found[1], name, announced, request_id)

    async def _principal(self, authorization: str) -> Principal | None:
        """Return who asks, from memory; of many who come when it is stale one asks for all."""
        token = access.token_of(authorization)
        if token is None or (found := self._access.recall(token)) is not None:
            return found if token else None
        if not self._access.is_known(token):
            return None
        asking = self._asking.get(token)
        if asking is None:
            loop = asyncio.get_running_loop()
            asking = loop.run_in_executor(self._intake.writers, self._access.principal, token)
            self._asking[token] = asking
            asking.add_done_callback(lambda _: self._asking.pop(token))
        return await asyncio.shield(asking)

    async def _count(self, principal: Principal) -> None:
        """Count one of the client's requests of this second; for many that wait, one thread asks."""
        client, rate = client_of(principal), self._access.rate
        with rate.waiting(client):
            while not rate.take_from_pocket(client):
                filling = self._filling.get(client)
                if filling is None or filling.done():
                    loop = asyncio.get_running_loop()
                    filling = loop.run_in_executor(self._intake.writers, rate.fill, client)
                    self._filling[client] = filling
                await asyncio.shield(filling)


class _Desk:
    """Small files that wait for a writer: one turn of a thread takes all that are there.

    Of the event loop alone, but for the turns.
    """

    def __init__(self, intake: Intake, groups: Groups) -> None:
        self._intake = intake
        self._groups = groups
        self._waiting: list[tuple[Small, Waiter]] = []
        self._turns = 0

    def add(self, small: Small, waiter: Waiter) -> None:
        """Have a file written, and stored with others."""
        self._waiting.append((small, waiter))
        if len(self._waiting) == 1:
            # Not before the others have been heard whose bodies came at the same moment.
            waiter.loop.call_soon(self._begin, waiter.loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._turns == TURNS or not self._waiting:
            return
        taken, self._waiting = self._waiting[:TURN_FILES], self._waiting[TURN_FILES:]
        self._turns += 1
        turn = loop.run_in_executor(self._intake.writers, self._turn, taken)
        turn.add_done_callback(partial(self._ended, loop))

    def _ended(self, loop: asyncio.AbstractEventLoop, _: asyncio.Future[None]) -> None:
        self._turns -= 1
        self._begin(loop)

    def _turn(self, taken: Sequence[tuple[Small, Waiter]]) -> None:
        """Make bytes durable and hand them on; whatever fails is left to the door."""
        written = write_all(self._intake.zone, [small for small, _ in taken])
        for (_, waiter), found in zip(taken, written, strict=True):
            if isinstance(found, Ready):
                self._groups.add(found, waiter)
            else:
                waiter.resolve_soon(None)


async def _stored(desk: _Desk, asked: Whole, held: Sequence[Message]) -> FileView | None:
    small = asked([message["body"] for message in held if message.get("body")])
    waiter = Waiter()
    desk.add(small, waiter)
    return await waiter.outcome


def _headers(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str] | None:
    """Return the headers that matter here; None where one of them is for the door to judge."""
    found: dict[str, str] = {}
    for name, value in raw:
        if name in _SPECIAL or (name in _READ and name.decode() in found):
            return None
        if name in _READ:
            found[name.decode()] = value.decode("latin-1")
    return found


async def _is_whole(receive: Receive, held: list[Message]) -> bool:
    """Take what there is of the body; say whether that is all, and its sender still there."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                message = await receive()
                held.append(message)
                if message["type"] != "http.request":
                    return False
                if not message.get("more_body", False):
                    return True
    except TimeoutError:
        return False


def _again(held: list[Message], receive: Receive) -> Receive:
    """Return what gives the messages taken once more, and then the rest."""

    async def next_message() -> Message:
        return held.pop(0) if held else await receive()

    return next_message


async def _answer(send: Send, path: str, view: FileView) -> None:
    body = view.model_dump_json().encode()
    headers = [
        (b"content-length", str(len(body)).encode()),
        (b"content-type", b"application/json"),
        (b"location", quote(path).encode()),
        (b"repr-digest", digests.header(view.sha256 or "").encode()),
    ]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    await send({"type": "http.response.body", "body": body})
