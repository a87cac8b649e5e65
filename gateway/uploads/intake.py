"""From a request's body into a sink: pipelined, in order, memory flat.

The event loop only collects chunks. A full buffer it hands them to one job in the writers'
pool, after the job before has ended: two buffers at most, and a slow disk slows the sender down by
itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy.orm import Session, sessionmaker

from gateway import threads
from gateway.chunks import Chunk
from gateway.errors import TooLargeError
from gateway.landing.zone import Zone
from gateway.uploads.groups import Groups

BUFFER_BYTES = 1024**2
# A sender of crumbs must not make a buffer of a million objects.
BUFFER_CHUNKS = 1024
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Intake:
    """What receiving needs: the ledger, the yard, and a bounded pool of writers.

    ``groups`` stores small files together, where there is such a thing.
    """

    sessions: sessionmaker[Session]
    zone: Zone
    writers: ThreadPoolExecutor
    groups: Groups | None = None

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do blocking work in the writers' pool, with this request's context."""
        return await threads.run(work, self.writers)


def intake_of(state: Any) -> Intake:
    """Return the intake of an application, by its state."""
    return Intake(state.sessions, state.zone, state.writers, state.groups)


class Sink(Protocol):
    """What bytes are written to."""

    def write(self, chunks: Sequence[Chunk]) -> None:
        """Take more; called in a thread, one call at a time."""


async def pour(
    intake: Intake, sink: Sink, chunks: AsyncIterator[Chunk], limit_bytes: int
) -> list[Chunk]:
    """Write all chunks but the last buffer, which is returned.

    Raises
    ------
    TooLargeError
        There are more than ``limit_bytes``.
    """
    buffer: list[Chunk] = []
    held = total = 0
    writing: asyncio.Task[None] | None = None
    try:
        async for chunk in chunks:
            total += len(chunk)
            _require_within(limit_bytes, total)
            buffer.append(chunk)
            held += len(chunk)
            # An empty chunk says that nothing follows soon: what is held should not wait for it.
            if held >= BUFFER_BYTES or len(buffer) >= BUFFER_CHUNKS or (held and not chunk):
                if writing is not None:
                    await writing
                writing = asyncio.create_task(_write(intake, sink, buffer))
                buffer, held = [], 0
    except BaseException:
        # No thread may still use the sink when its owner closes it.
        if writing is not None:
            await threads.ended(writing)
            if not writing.cancelled():
                writing.exception()
        raise
    if writing is not None:
        await writing
    return buffer


def _require_within(limit_bytes: int, total: int) -> None:
    if total > limit_bytes:
        raise TooLargeError(f"At most {limit_bytes} bytes are taken here.")


async def _write(intake: Intake, sink: Sink, buffer: list[Chunk]) -> None:
    def work() -> None:
        sink.write(buffer)
        # At once, not when the job is forgotten: lent buffers are used again when they are let go.
        buffer.clear()

    await intake.run(work)
