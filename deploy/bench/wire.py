"""One request and one answer on a plain socket: what the client's jobs are made of."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

LOCATION = "{location}"
RECEIVE_BYTES = 64 * 1024


@dataclass
class Request:
    """One request; its body is `prefix`, then bytes of the prepared file, then `suffix`.

    Attributes
    ----------
    path
        ``{location}`` stands for the path of the last answer's Location.
    length
        How many bytes of the prepared file, from `offset` on.
    expected
        Any other status is a failure.
    """

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    prefix: str = ""
    offset: int = 0
    length: int = 0
    suffix: str = ""
    expected: int = 201

    def head(self) -> bytes:
        """Return the head, with the place of the location still open."""
        size = len(self.prefix.encode()) + self.length + len(self.suffix.encode())
        given = {"Host": "127.0.0.1", **self.headers, "Content-Length": str(size)}
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        return f"{self.method} {self.path} HTTP/1.1\r\n{lines}\r\n".encode()


class Answers:
    """Reads the answers of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._held = b""

    def next(self) -> tuple[int, str, bytes]:
        """Wait for an answer: its status, the path of its Location, its body."""
        head = self._until(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        status = int(lines[0].split(" ", 2)[1])
        if "chunked" in fields.get("transfer-encoding", ""):
            body = b"" if self._held.startswith(b"0\r\n\r\n") else self._until(b"\r\n0\r\n\r\n")
            self._held = b""
        else:
            body = self._exactly(int(fields.get("content-length", 0)))
        return status, _path(lines), body

    def _until(self, end: bytes) -> bytes:
        while end not in self._held:
            self._more()
        found, _, self._held = self._held.partition(end)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._held) < size:
            self._more()
        found, self._held = self._held[:size], self._held[size:]
        return found

    def _more(self) -> None:
        received = self._connection.recv(RECEIVE_BYTES)
        if not received:
            message = f"the connection ended after {self._held[:200]!r}"
            raise ConnectionError(message)
        self._held += received


def _path(lines: list[str]) -> str:
    for line in lines:
        if line.lower().startswith("location: "):
            address = line.split(": ", 1)[1]
            return "/" + address.split("/", 3)[3] if "://" in address else address
    return ""


def connect(port: int) -> socket.socket:
    """Open a connection."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def check(request: Request, status: int, body: bytes) -> None:
    """Refuse an answer of another status than the one expected."""
    if status != request.expected:
        message = f"{request.method} {request.path} answered {status}: {body[:300]!r}"
        raise ConnectionError(message)
