"""Ending a connection whose sender is still sending, so that it can read its answer.

Closed at once, the system answers what still comes with a reset, and the reset takes the answer
with it that the sender has not read yet. So we say that nothing more comes from us, go on reading
for a while what nobody wants, and close when the sender has seen it (as nginx does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

# How long, how silently, and for how many bytes: a sender that does not read its answer before it
# has sent all of a longer body gets a reset. ``Expect: 100-continue`` spares it that.
LINGER_SECONDS = 30.0
LINGER_IDLE_SECONDS = 2.0
LINGER_BYTES = 256 * 1024**2
# Nobody can make us hold more connections so.
LINGERERS = 128
SCRATCH_BYTES = 256 * 1024


class Line(asyncio.Transport):
    """A transport that lingers when it is closed while its sender is still sending.

    Parameters
    ----------
    inner
        The transport itself.
    owner
        The connection's protocol.
    is_sending
        Says whether more is to come of a message that has begun.
    """

    def __init__(
        self, inner: asyncio.Transport, owner: asyncio.Protocol, is_sending: Callable[[], bool]
    ) -> None:
        super().__init__()
        self._inner = inner
        self._owner = owner
        self._is_sending = is_sending
        self._is_ending = False
        # These are used for every request.
        self.write = inner.write  # type: ignore[method-assign]
        self.get_extra_info = inner.get_extra_info  # type: ignore[method-assign]
        self.pause_reading = inner.pause_reading  # type: ignore[method-assign]
        self.resume_reading = inner.resume_reading  # type: ignore[method-assign]
        self.set_protocol = inner.set_protocol  # type: ignore[method-assign]

    def is_closing(self) -> bool:
        """Say whether the end has begun."""
        return self._is_ending or self._inner.is_closing()

    def close(self) -> None:
        """Close; when called again, at once."""
        begins, self._is_ending = not self.is_closing(), True
        is_useful = begins and self._inner.can_write_eof() and self._is_sending()
        if is_useful and len(_Lingerer.all) < LINGERERS:
            _Lingerer(self._inner, self._owner)
        else:
            self._inner.close()

    def abort(self) -> None:
        """Close, and forget what was not sent yet."""
        self._is_ending = True
        self._inner.abort()


class _Lingerer(asyncio.BufferedProtocol):
    """Reads what nobody wants, until the sender has seen our end."""

    all: ClassVar[set[_Lingerer]] = set()
    _scratch = bytearray(SCRATCH_BYTES)

    def __init__(self, transport: asyncio.Transport, owner: asyncio.Protocol) -> None:
        self.all.add(self)
        self._transport = transport
        self._owner = owner
        self._left_bytes = LINGER_BYTES
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._ends_at = self._heard_at + LINGER_SECONDS
        transport.set_protocol(self)
        transport.write_eof()
        transport.resume_reading()
        self._timer = self._loop.call_later(LINGER_IDLE_SECONDS, self._look)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio's own signature
        """Offer the same memory to all: nobody reads it."""
        return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        """Count."""
        self._left_bytes -= nbytes
        self._heard_at = self._loop.time()
        if self._left_bytes <= 0:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go."""
        self.all.discard(self)
        self._timer.cancel()
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._owner.resume_writing()

    def _look(self) -> None:
        now = self._loop.time()
        ends_at = min(self._heard_at + LINGER_IDLE_SECONDS, self._ends_at)
        if now >= ends_at:
            self._transport.close()
        else:
            self._timer = self._loop.call_later(ends_at - now, self._look)
