"""A TCP relay in front of a server, which can lose the answer to a chosen request."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Relay:
    """Passes bytes on in both directions, one pair of threads for each connection.

    Attributes
    ----------
    lost
        How many answers were lost.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._wanted: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, beginning: bytes) -> None:
        """Cut the next connection on which a request begins so, once the server has answered."""
        self._wanted.append(beginning)

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[near], daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            near.close()
            return
        doomed = threading.Event()
        threading.Thread(target=self._answer, args=[far, near, doomed], daemon=True).start()
        with contextlib.suppress(OSError):
            while chunk := near.recv(65536):
                if self._is_wanted(chunk):
                    doomed.set()
                far.sendall(chunk)
        with contextlib.suppress(OSError):
            far.shutdown(socket.SHUT_WR)

    def _answer(self, far: socket.socket, near: socket.socket, doomed: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while chunk := far.recv(65536):
                # Not the word that says: go on.
                if doomed.is_set() and not chunk.startswith(b"HTTP/1.1 100"):
                    self.lost += 1
                    break
                near.sendall(chunk)
        for each in (near, far):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _is_wanted(self, chunk: bytes) -> bool:
        for beginning in self._wanted:
            if chunk.startswith(beginning):
                self._wanted.remove(beginning)
                return True
        return False


@contextmanager
def before(port: int) -> Iterator[Relay]:
    """Put a relay before a server on the loopback interface."""
    relay = Relay(port)
    try:
        yield relay
    finally:
        relay.close()
