"""Large bodies, received straight into buffers that are lent out and used again.

While a long body is on its way there is nothing to parse. The kernel then writes into a buffer of
ours, the reader gets views of it, and no byte is copied in between. A buffer is used again when the
last view of it is gone; how long its views are kept is the reader's own affair.
"""

from __future__ import annotations

import asyncio
import ctypes
import weakref
from collections import deque
from collections.abc import Callable
from typing import Protocol

BUFFER_BYTES = 1024**2
# One being written, one waiting for the writer, one being filled.
BUFFERS_AHEAD = 3
# Spare buffers that a process keeps for the next uploads.
SPARES = 16

_Loan = ctypes.c_char * BUFFER_BYTES
_spares: deque[bytearray] = deque()


class Owner(Protocol):
    """What a lane needs of a connection's protocol."""

    def parse_again(self) -> None:
        """Take the connection back: all the bytes are here."""

    def eof_received(self) -> bool | None:
        """Note that the sender sends no more."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is no more."""

    def pause_writing(self) -> None:
        """Hold answers back."""

    def resume_writing(self) -> None:
        """Answer again."""


class Lane(asyncio.BufferedProtocol):
    """Receives one body's next ``remaining`` bytes, and not one more.

    Parameters
    ----------
    owner
        The connection's protocol, which is told what concerns the connection.
    remaining
        More than none.
    pause, resume
        Stop the sender, and let it go on.
    on_news
        Called when there is something to take.
    """

    def __init__(
        self,
        owner: Owner,
        remaining: int,
        *,
        pause: Callable[[], None],
        resume: Callable[[], None],
        on_news: Callable[[], None],
    ) -> None:
        self._owner = owner
        self._remaining = remaining
        self._pause, self._resume = pause, resume
        self._on_news = on_news
        self._ready: deque[memoryview] = deque()
        self._lent: list[weakref.ref[ctypes.Array[ctypes.c_char]]] = []
        self._is_hurried = False
        self._storage: bytearray | None = None
        self._loan: ctypes.Array[ctypes.c_char] | None = None
        self._filled = self._given = 0
        self._open()

    @property
    def is_empty(self) -> bool:
        """Say whether there is nothing to take."""
        return not self._ready

    def take(self) -> memoryview | None:
        """Return the next bytes, None where there are none yet; may be called again and again."""
        self._is_hurried = False
        found = self._ready.popleft() if self._ready else None
        if self._storage is None and (found is None or self._count() < BUFFERS_AHEAD):
            # A reader who keeps everything it was lent gets more, or would wait for itself.
            self._open()
            if self._remaining:
                self._resume()
        return found

    def hurry(self) -> None:
        """Do not wait for a full buffer: the reader has waited for long enough."""
        self._is_hurried = True
        self._hand_over()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's own signature
        """Offer what is left of the buffer, or of the body."""
        if self._storage is None:
            message = "read into no buffer"
            raise RuntimeError(message)
        end = min(BUFFER_BYTES, self._filled + self._remaining)
        return memoryview(self._storage)[self._filled : end]

    def buffer_updated(self, nbytes: int) -> None:
        """Take note of what came."""
        self._filled += nbytes
        self._remaining -= nbytes
        is_full = self._filled == BUFFER_BYTES
        if is_full or self._is_hurried or not self._remaining:
            self._hand_over()
        if not self._remaining:
            self._storage = self._loan = None
            self._owner.parse_again()
        elif is_full:
            self._turn_over()

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self._owner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand over what came, and pass it on."""
        self._hand_over()
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._owner.resume_writing()

    def _open(self) -> None:
        storage = _spares.pop() if _spares else bytearray(BUFFER_BYTES)
        loan = _Loan.from_buffer(storage)
        # Whoever drops the last view, in whatever thread: a deque is safe in all of them.
        self._lent.append(weakref.ref(loan, lambda _: _keep(storage)))
        self._storage, self._loan = storage, loan
        self._filled = self._given = 0

    def _turn_over(self) -> None:
        self._storage = self._loan = None
        if self._count() < BUFFERS_AHEAD:
            self._open()
        else:
            self._pause()

    def _count(self) -> int:
        self._lent = [each for each in self._lent if each() is not None]
        return len(self._lent)

    def _hand_over(self) -> None:
        if self._loan is not None and self._filled > self._given:
            self._ready.append(memoryview(self._loan).cast("B")[self._given : self._filled])
            self._given = self._filled
            self._on_news()


def _keep(storage: bytearray) -> None:
    if len(_spares) < SPARES:
        _spares.append(storage)
