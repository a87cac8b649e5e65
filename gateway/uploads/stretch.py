"""One request's stretch of a resumable upload: received, made durable, told step by step.

What arrives is written and hashed by ``pour``. Beside it, and without holding it up, every few
mebibytes are synced and the upload's offset is moved: what the ledger says is always on disk. A
newer request for the same upload stops this one, in this process at once, in another one as soon
as the ``Switchboard`` there has looked at the fences.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from gateway import logs
from gateway.batches.model import File
from gateway.chunks import Chunk
from gateway.errors import GatewayError
from gateway.identity.access import Principal
from gateway.landing.zone import Digest, Part, PartBusyError, PartLostError
from gateway.uploads import tickets
from gateway.uploads.admission import UploadConflictError
from gateway.uploads.digests import DigestMismatchError
from gateway.uploads.finishing import Finish
from gateway.uploads.intake import Intake, pour
from gateway.uploads.model import Upload
from gateway.uploads.switchboard import Switchboard

log = logs.get("uploads")

CHECKPOINT_BYTES = 32 * 1024**2
# So much may be written and not yet durable before writing waits for the disk.
BEHIND_BYTES = 4 * CHECKPOINT_BYTES
# Nothing came for so long: what did is made durable, for it may be all that will.
IDLE_SECONDS = 0.5
# Whoever works on a part lets go of it within this time, or is stopped and goes on without it.
HANDOVER_SECONDS = 1.5
RETRY_SECONDS = 0.02


class ChecksumMismatchError(DigestMismatchError):
    """A stretch's bytes do not have the checksum that came with them (tus 1.0.0, checksum)."""

    status = 460


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a stretch's bytes must have: an algorithm of ``hashlib`` and the digest."""

    algorithm: str
    digest: bytes


class Stretch:
    """The receiver of one stretch. Its blocking methods run in a writer's thread.

    Parameters
    ----------
    upload
        As taken over: from its offset on, under its fence.
    life_seconds
        How long the upload may rest after what came last.
    """

    def __init__(
        self,
        intake: Intake,
        switchboard: Switchboard,
        principal: Principal,
        upload: Upload,
        life_seconds: float,
    ) -> None:
        self.upload = upload
        self.durable_bytes = upload.offset_bytes
        self.stop = asyncio.Event()
        self._intake = intake
        self._switchboard = switchboard
        self._finish = Finish(intake, principal, upload)
        self._life_seconds = life_seconds
        self._part: Part | None = None
        self._summer: Any = None
        self._checkpointing: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._interruption: BaseException | None = None

    async def receive(
        self, chunks: AsyncIterator[Chunk], checksum: Checksum | None = None
    ) -> File | None:
        """Take bytes in until they end; return the file once the upload is whole.

        Raises
        ------
        UploadConflictError
            A newer request has taken the upload over.
        ChecksumMismatchError
            The bytes of this stretch are discarded.
        GatewayError
            The landing zone's; those of completing a file; whatever interrupted the body. What had
            arrived until then is kept.
        """
        with self._switchboard.connected(self, self._intake):
            try:
                await self._hold_part()
                await self._take_in(chunks, checksum)
                return await self._finished()
            except PartLostError:
                return await self._intake.run(self._finish.without_part)
            finally:
                await self._let_go()

    async def _hold_part(self) -> None:
        deadline = time.monotonic() + HANDOVER_SECONDS
        known = self._switchboard.digest_of(self.upload.id)
        while True:
            try:
                self._part = await self._intake.run(lambda: self._resume(self.upload.part, known))
            except PartBusyError:
                if time.monotonic() > deadline:
                    break
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return
        # Its holder does not run: its process is stopped, and keeps the lock. It keeps the part,
        # too, and may write to it whenever it wakes up; this upload goes on in a copy.
        self._part = await self._intake.run(lambda: self._copy(known))

    def _resume(self, part: str, known: Digest | None) -> Part:
        return self._intake.zone.resume_part(part, self.upload.offset_bytes, known)

    def _copy(self, known: Digest | None) -> Part:
        upload, zone = self.upload, self._intake.zone
        old, new = upload.part, f"{upload.id}.{upload.fence}"
        zone.copy_part(old, new, upload.offset_bytes)
        part = self._resume(new, known)
        try:
            with self._intake.sessions.begin() as session:
                tickets.rename_part(session, upload, new)
        except BaseException:
            part.abort()
            raise
        upload.part = new
        zone.remove_part(old)
        log.warning("part_copied", upload=upload.id)
        return part

    async def _take_in(self, chunks: AsyncIterator[Chunk], checksum: Checksum | None) -> None:
        if checksum is not None:
            self._summer = hashlib.new(checksum.algorithm, usedforsecurity=False)
        left = self.upload.length_bytes - self.upload.offset_bytes
        async with contextlib.aclosing(self._arriving(chunks)) as arriving:
            tail = await pour(self._intake, self, arriving, left)
        if self._checkpointing is not None:
            await self._checkpointing
        await self._intake.run(lambda: self._close(tail, checksum))
        if self._interruption is not None:
            raise self._interruption

    async def _arriving(self, chunks: AsyncIterator[Chunk]) -> AsyncGenerator[Chunk]:
        """Pass chunks on. The end comes also when the sender goes, so that what it sent is kept."""
        stopped = asyncio.ensure_future(self.stop.wait())
        try:
            while True:
                coming: asyncio.Future[Chunk] = asyncio.ensure_future(anext(chunks))
                try:
                    while not coming.done():
                        either: set[asyncio.Future[Any]] = {coming, stopped}
                        await asyncio.wait(
                            either,
                            timeout=IDLE_SECONDS,
                            return_when=asyncio.FIRST_COMPLETED,
                        )
                        if stopped.done():
                            raise UploadConflictError
                        if not coming.done():
                            yield b""  # nothing more to wait for: write what is held
                            self._begin_checkpoint()
                finally:
                    if not coming.done():
                        coming.cancel()
                try:
                    yield coming.result()
                except StopAsyncIteration:
                    return
                except Exception as error:  # noqa: BLE001 - told once what came is durable
                    self._interruption = error
                    return
        finally:
            stopped.cancel()

    def write(self, chunks: Sequence[Chunk]) -> None:
        """Take more (the sink of ``pour``)."""
        part = self._held()
        part.write(chunks)
        if self._summer is not None:
            for chunk in chunks:
                self._summer.update(chunk)
            return  # none of it is the upload's before the checksum is known to be right
        behind = part.size_bytes - self.durable_bytes
        if behind >= BEHIND_BYTES:
            self._checkpoint()
        elif behind >= CHECKPOINT_BYTES:
            self._loop.call_soon_threadsafe(self._begin_checkpoint)

    def _begin_checkpoint(self) -> None:
        running = self._checkpointing
        if self._summer is not None or (running is not None and not running.done()):
            return
        if self._held().size_bytes > self.durable_bytes:
            self._checkpointing = asyncio.create_task(self._checkpoint_beside())

    async def _checkpoint_beside(self) -> None:
        try:
            await self._intake.run(self._checkpoint)
        except UploadConflictError:
            self.stop.set()

    def _checkpoint(self) -> None:
        durable = self._held().checkpoint()
        if durable > self.durable_bytes:
            with self._intake.sessions.begin() as session:
                tickets.move(session, self.upload, durable, self._life_seconds)
            self.durable_bytes = durable

    def _close(self, tail: Sequence[Chunk], checksum: Checksum | None) -> None:
        self.write(tail)
        if checksum is not None:
            if self._interruption is not None:
                return  # a checksum of half a stretch says nothing
            if self._summer.digest() != checksum.digest:
                raise ChecksumMismatchError("These bytes do not have their Upload-Checksum.")
        self._checkpoint()

    async def _finished(self) -> File | None:
        if self.durable_bytes < self.upload.length_bytes:
            return None
        async with self._switchboard.finishing:
            return await self._intake.run(lambda: self._finish.carry_out(self._held()))

    async def _let_go(self) -> None:
        if self._checkpointing is not None:
            with contextlib.suppress(GatewayError, asyncio.CancelledError):
                await asyncio.shield(self._checkpointing)
        part = self._part
        if part is None:
            return
        digest = part.digest()
        if digest.size_bytes <= self.durable_bytes < self.upload.length_bytes:
            self._switchboard.remember(self.upload.id, digest)
        part.release()

    def _held(self) -> Part:
        assert self._part is not None  # noqa: S101 - receive() begins with it
        return self._part
