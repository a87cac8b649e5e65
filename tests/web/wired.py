"""A small application behind the real protocol, and a socket to speak to it byte by byte."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import web
from gateway.web.protocol import UploadProtocol


class Application:
    """Reads bodies as the upload doors do, and tells what it read.

    ``/refuse`` answers before it reads, ``/whole`` reads without agreeing to a loan, ``/keep`` keeps
    every piece until the end, ``/first`` answers after the first piece.
    """

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        found: dict[str, Any] = {"method": request.method, "path": request.url.path, "pieces": 0}
        self.seen.append(found)
        status = 401 if request.url.path == "/refuse" else 200
        if status == 200:
            try:
                await self._read(request, found)
            except ClientDisconnect:
                found["is_cut"] = True
                return
        close = [(b"connection", b"close")] if status != 200 else []
        content = json.dumps(found).encode()
        headers = [(b"content-length", str(len(content)).encode()), *close]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _read(self, request: Request, found: dict[str, Any]) -> None:
        digest, kept = hashlib.sha256(), []
        found["size"] = 0
        pieces = request.stream() if request.url.path == "/whole" else web.body(request)
        async for piece in pieces:
            found["size"] += len(piece)
            found["pieces"] += bool(piece)
            if request.url.path == "/keep":
                kept.append(piece[:-1])
                kept.append(piece[-1:])
            else:
                digest.update(piece)
            if request.url.path == "/first" and piece:
                break
            await asyncio.sleep(0)
        for piece in kept:
            digest.update(piece)
        found["sha256"] = digest.hexdigest()


@contextmanager
def serving(app: ASGIApp, **settings: Any) -> Iterator[int]:
    """Serve an application by the protocol on a port of its own, which is yielded."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=partial(UploadProtocol, **settings),  # type: ignore[arg-type]
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


class Wire:
    """One connection."""

    def __init__(self, port: int, timeout: float = 20) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def answer(self) -> tuple[int, dict[str, str], Any]:
        """Read one answer, whose length its header tells."""
        while b"\r\n\r\n" not in self._read:
            self._more()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(each.lower().split(": ", 1) for each in lines)
        length = int(headers.get("content-length", 0))
        while len(self._read) < length:
            self._more()
        content, self._read = self._read[:length], self._read[length:]
        return int(line.split()[1]), headers, json.loads(content or b"null")

    def head(self) -> bytes:
        """Read up to the end of a head."""
        while b"\r\n\r\n" not in self._read:
            self._more()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        return head

    def is_at_end(self) -> bool:
        """Say that nothing more comes."""
        try:
            return not self._read and not self.socket.recv(1)
        except ConnectionResetError:
            return True

    def rest(self) -> bytes:
        """Read all that still comes."""
        try:
            while more := self.socket.recv(65_536):
                self._read += more
        except ConnectionResetError:
            pass
        return self._read

    def close(self) -> None:
        self.socket.close()

    def _more(self) -> None:
        more = self.socket.recv(65_536)
        assert more, self._read
        self._read += more


Connect = Callable[..., Wire]


def put(content: bytes, path: str = "/f", *headers: str, length: int | None = None) -> bytes:
    """Return a request with its body."""
    announced = len(content) if length is None else length
    lines = [f"PUT {path} HTTP/1.1", "Host: g", f"Content-Length: {announced}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


def get(path: str = "/f", *headers: str, method: str = "GET") -> bytes:
    """Return a request without a body."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: g", *headers, "", ""]).encode()
