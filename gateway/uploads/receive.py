"""One file: admitted, streamed, completed; acknowledged only when it is durable and written down.

No transaction is open while bytes are on their way. Whatever fails, nothing of the file remains
visible, and its name and room are given back; what a crash leaves, the next attempt or the sweep
takes up.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from gateway import logs
from gateway.batches.model import File
from gateway.chunks import Chunk
from gateway.errors import TooLargeError
from gateway.identity.access import Principal
from gateway.landing.names import FileName
from gateway.landing.zone import Part, Stored, Zone
from gateway.uploads import admission, completion, entering, publishing
from gateway.uploads.admission import FileExistsAlreadyError, Known
from gateway.uploads.announced import Announced
from gateway.uploads.entering import Opened
from gateway.uploads.intake import Intake, pour
from gateway.uploads.rows import Admission

log = logs.get("uploads")


@dataclass(frozen=True, slots=True)
class Received:
    """A file that is durable and written down; ``is_new`` unless the same bytes were there."""

    file: File
    is_new: bool


async def receive(
    intake: Intake,
    principal: Principal,
    batch_id: str,
    name: FileName,
    announced: Announced,
    chunks: AsyncIterator[Chunk],
) -> Received:
    """Take one file in; when this returns it may be acknowledged.

    Raises
    ------
    GatewayError
        As ``admission.admit`` and ``completion.complete``; ``DigestMismatchError``;
        ``FileExistsAlreadyError``; the landing zone's.
    """
    attempt = _Attempt(intake, principal, announced)
    try:
        begun = await intake.run(lambda: attempt.begin(batch_id, name))
        if isinstance(begun, Known):
            return await _compared(intake, begun.file, announced, chunks)
        tail = await pour(intake, begun.part, chunks, begun.admitted.limit_bytes)
        return Received(await intake.run(lambda: begun.land(tail)), is_new=True)
    except BaseException:
        # Also when the request itself was canceled: what it holds must be given back.
        if attempt.landing is not None:
            await asyncio.shield(intake.run(attempt.landing.give_back))
        raise


class _Attempt:
    """The beginning of a file. What is reserved is kept here at once: a cancel must find it."""

    def __init__(self, intake: Intake, principal: Principal, announced: Announced) -> None:
        self._intake = intake
        self._principal = principal
        self._announced = announced
        self.landing: _Landing | None = None

    def begin(self, batch_id: str, name: FileName) -> Known | _Landing:
        """Reserve name and room, or find the same file; runs in a writer's thread."""
        zone, announced = self._intake.zone, self._announced
        opened = Opened(zone, announced.size_bytes)

        def admit(session: Session, dead: frozenset[str]) -> Known | _Landing:
            found = admission.admit(
                session,
                self._principal,
                batch_id,
                name,
                upload=opened.upload,
                expected_bytes=announced.size_bytes,
                media_type=announced.media_type,
                dead=dead,
            )
            if isinstance(found, Known):
                return found
            # Kept before the commit, whose answer may be lost.
            self.landing = _Landing(self._intake, self._principal, announced, found, opened.part)
            return self.landing

        try:
            begun = entering.admitted(self._intake.sessions, zone, admit)
        finally:
            if self.landing is None:
                opened.discard()
        if isinstance(begun, Known):
            _check_stands(zone, begun)
        else:
            begun.part.reserve()
        return begun


class _Landing:
    """An admitted file and its part. Its methods run in a writer's thread."""

    def __init__(
        self,
        intake: Intake,
        principal: Principal,
        announced: Announced,
        admitted: Admission,
        part: Part,
    ) -> None:
        self.admitted = admitted
        self.part = part
        self._intake = intake
        self._principal = principal
        self._announced = announced
        self._may_be_published = False

    def land(self, tail: Sequence[Chunk]) -> File:
        """Make the file durable, visible and known, in this order."""
        self.part.write(tail)
        stored = self.part.finish()
        self._announced.check(stored)
        sessions, zone = self._intake.sessions, self._intake.zone
        self._may_be_published = True
        publishing.publish(sessions, zone, self.admitted, self.part, stored)
        with self._intake.sessions.begin() as session:
            file = completion.complete(session, self._principal, self.admitted, stored)
        self.part.abort()
        return file

    def give_back(self) -> None:
        """Undo what was begun, unless it is somebody else's by now."""
        sessions, zone = self._intake.sessions, self._intake.zone
        try:
            if self._may_be_published:
                publishing.retract(sessions, zone, self.admitted, self.part)
            with sessions.begin() as session:
                completion.abandon(session, self.admitted)
        except Exception as error:  # noqa: BLE001 - the sweep gives back what this cannot
            kind = type(error).__name__
            log.warning("reservation_kept", upload=self.admitted.upload, kind=kind)
        finally:
            self.part.abort()


def _check_stands(zone: Zone, known: Known) -> None:
    try:
        opened, size_bytes = zone.open_file(known.batch, known.file.name)
    except FileNotFoundError:
        size_bytes = None
    else:
        opened.close()
    if size_bytes != known.file.size_bytes:
        raise FileExistsAlreadyError("What is there is damaged: delete it and send it again.")


class _Comparison:
    """Hashes what is sent again instead of storing it."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._size_bytes = 0

    def write(self, chunks: Sequence[Chunk]) -> None:
        """Take more."""
        for chunk in chunks:
            self._digest.update(chunk)
            self._size_bytes += len(chunk)

    def found(self) -> Stored:
        """Tell what came."""
        return Stored(self._size_bytes, self._digest.hexdigest())


async def _compared(
    intake: Intake, known: File, announced: Announced, chunks: AsyncIterator[Chunk]
) -> Received:
    there = Stored(known.size_bytes or 0, known.sha256 or "")
    differs = announced.size_bytes not in {None, there.size_bytes}
    if differs or announced.sha256 not in {None, there.sha256}:
        raise FileExistsAlreadyError
    comparison = _Comparison()
    try:
        tail = await pour(intake, comparison, chunks, there.size_bytes)
    except TooLargeError:
        raise FileExistsAlreadyError from None
    comparison.write(tail)
    announced.check(comparison.found())
    if comparison.found() != there:
        raise FileExistsAlreadyError
    return Received(known, is_new=False)
