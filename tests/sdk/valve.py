"""A line to a gateway that can be closed in the midst of a file, and led elsewhere."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CHUNK_BYTES = 64 * 1024
_RESET = struct.pack("ii", 1, 0)


class Valve:
    """Forwards connections to a port, and no more than so many bytes of what is sent there.

    Parameters
    ----------
    passed
        How many bytes of requests have been forwarded.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.passed = 0
        self._limit: int | None = None
        self._turned = threading.Condition()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def close_after(self, more_bytes: int) -> None:
        """Let so many more bytes through, then hold the line."""
        with self._turned:
            self._limit = self.passed + more_bytes

    def is_closed(self) -> bool:
        """Say whether the line is held."""
        return self._limit is not None and self.passed >= self._limit

    def open(self) -> None:
        """Let everything through."""
        with self._turned:
            self._limit = None
            self._turned.notify_all()

    def cut(self) -> None:
        """Break every connection off; later ones pass."""
        cut, self._sockets = self._sockets, []
        for each in cut:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.open()

    def serve(self) -> None:
        """Take connections until the end."""
        with contextlib.suppress(OSError):
            while True:
                inner, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(inner,), daemon=True).start()

    def end(self) -> None:
        """Cut everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _join(self, inner: socket.socket) -> None:
        with contextlib.suppress(OSError), inner:
            outer = socket.create_connection(("127.0.0.1", self.target))
            self._sockets += [inner, outer]
            back = threading.Thread(target=_pour, args=(outer, inner), daemon=True)
            back.start()
            with outer:
                while chunk := inner.recv(CHUNK_BYTES):
                    try:
                        self._pass(outer, chunk)
                    except OSError:
                        # Said at once, as by any server with bytes left to read: who is writing
                        # into a full window would otherwise wait for the kernel's 60 seconds.
                        inner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                        raise

    def _pass(self, outer: socket.socket, chunk: bytes) -> None:
        while chunk:
            with self._turned:
                self._turned.wait_for(lambda: not self.is_closed())
                allowed = len(chunk) if self._limit is None else self._limit - self.passed
                head, chunk = chunk[:allowed], chunk[allowed:]
                self.passed += len(head)
            outer.sendall(head)


def _pour(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(CHUNK_BYTES):
            target.sendall(chunk)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@contextmanager
def running(target: int) -> Iterator[Valve]:
    """Forward from a free port."""
    valve = Valve(target)
    thread = threading.Thread(target=valve.serve)
    thread.start()
    try:
        yield valve
    finally:
        valve.end()
        thread.join()
