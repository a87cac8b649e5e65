"""A whole delivery in one request: fields, then files; sealed at its end, or nothing at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from gateway import logs, settings
from gateway.batches import clearing, ledger, seal
from gateway.batches.model import Batch
from gateway.batches.views import BatchRequest, ListedFile
from gateway.chunks import Chunk
from gateway.errors import InvalidRequestError, NotFoundError, TooLargeError
from gateway.identity.access import Principal
from gateway.identity.tokens import KeyRing
from gateway.jobs.model import Job
from gateway.landing.names import FileName
from gateway.uploads import admission
from gateway.uploads.admission import DuplicateNameError
from gateway.uploads.announced import Announced
from gateway.uploads.bundle import Bundle
from gateway.uploads.intake import Intake
from gateway.uploads.multipart import Begun, MultipartReader
from gateway.uploads.receive import receive
from gateway.uploads.small import SMALL_BYTES, Small

log = logs.get("uploads")
FIELD_BYTES = 64 * 1024
MAX_FIELDS = 20


@dataclass(frozen=True, slots=True)
class Submitter:
    """What a submission needs besides the intake; ``parse`` makes a request of the fields."""

    intake: Intake
    principal: Principal
    keys: KeyRing
    batches: settings.Batches
    parse: Callable[[dict[str, str]], BatchRequest]

    async def submit(
        self, content_type: str, size_bytes: int | None, chunks: AsyncIterator[Chunk]
    ) -> tuple[Batch, Job]:
        """Create, store and seal.

        Raises
        ------
        GatewayError
            Whatever opening, receiving or sealing raises; ``DuplicateNameError``;
            ``InvalidRequestError`` where the body is cut short or its files come before its
            fields. The batch is canceled and its files are removed.
        """
        reader = MultipartReader(content_type, chunks)
        await self.intake.run(lambda: self._check_size(size_bytes or 0))
        fields: dict[str, str] = {}
        delivery = _Delivery(self)
        try:
            async for part in reader:
                if part.filename is not None:
                    await delivery.take(part, reader, fields)
                elif delivery.batch is not None:
                    raise InvalidRequestError("Fields come before the files.")  # noqa: TRY301
                else:
                    fields |= await _field(part, reader, fields)
            await delivery.finish()
            return await self.intake.run(delivery.sealed)
        except BaseException:
            await asyncio.shield(delivery.undo())
            raise

    def _check_size(self, size_bytes: int) -> None:
        with self.intake.sessions.begin() as session:
            admission.check_size(session, self.principal, size_bytes)


async def _field(part: Begun, reader: MultipartReader, fields: dict[str, str]) -> dict[str, str]:
    if part.name in fields or len(fields) >= MAX_FIELDS:
        raise InvalidRequestError("A field is given twice, or there are too many.")
    left = FIELD_BYTES - sum(len(name) + len(value) for name, value in fields.items())
    value = bytearray()
    async for chunk in reader.content():
        value += chunk
        if len(part.name) + len(value) > left:
            raise TooLargeError(f"The fields may have {FIELD_BYTES} bytes in all.")
    try:
        return {part.name: value.decode()}
    except UnicodeDecodeError:
        raise InvalidRequestError("A field is not UTF-8.") from None


async def _beginning(content: AsyncIterator[Chunk]) -> list[Chunk]:
    """Return the pieces of a small part; of a larger one those that show that it is none."""
    held: list[Chunk] = []
    size_bytes = 0
    async for chunk in content:
        held.append(chunk)
        size_bytes += len(chunk)
        if size_bytes > SMALL_BYTES:
            break
    return held


async def _whole(held: list[Chunk], content: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    while held:
        yield held.pop(0)
    async for chunk in content:
        yield chunk


class _Delivery:
    """The batch of one submission; opened when its first file comes."""

    def __init__(self, submitter: Submitter) -> None:
        self._to = submitter
        self._keys: set[str] = set()
        self._stored: list[ListedFile] = []
        groups = submitter.intake.groups
        can_gather = groups is not None and groups.can_store
        self._bundle = Bundle(submitter.intake, groups) if groups and can_gather else None
        self.batch: Batch | None = None

    async def take(self, part: Begun, reader: MultipartReader, fields: dict[str, str]) -> None:
        """Store one file."""
        intake, principal = self._to.intake, self._to.principal
        name = FileName.parse(part.filename or "")
        if name.collision_key in self._keys:
            raise DuplicateNameError(f"{name.text} is there twice.")
        self._keys.add(name.collision_key)
        announced = Announced.of(part.headers)
        batch = self.batch or await self._open(fields)
        content = reader.content()
        held = await _beginning(content)
        if self._bundle is not None and sum(map(len, held)) <= SMALL_BYTES:
            await self._bundle.add(Small(principal, batch.id, name, announced, None, held))
            return
        chunks = _whole(held, content)
        received = await receive(intake, principal, batch.id, name, announced, chunks)
        file = received.file
        self._stored.append(
            ListedFile(name=file.name, size_bytes=file.size_bytes, sha256=file.sha256)
        )

    async def finish(self) -> None:
        """Store what is still gathered."""
        if self._bundle is not None:
            self._stored += await self._bundle.finish()

    async def undo(self) -> None:
        """Leave nothing of the delivery."""
        if self._bundle is not None:
            await self._bundle.abandon()
        await self._to.intake.run(self.give_up)

    def sealed(self) -> tuple[Batch, Job]:
        """Close the delivery: exactly these files; blocks."""
        if self.batch is None:
            raise InvalidRequestError("There are no files.")
        to = self._to
        sessions, zone = to.intake.sessions, to.intake.zone
        return seal.carry_out(sessions, to.principal, zone, to.keys, self.batch.id, self._stored)

    def give_up(self) -> None:
        """Cancel what was begun; what this cannot do is left to the worker's sweep; blocks."""
        if self.batch is None:
            return
        intake = self._to.intake
        try:
            with intake.sessions.begin() as session:
                batch = ledger.cancel(session, self._to.principal, self.batch.id)
            clearing.clear(intake.sessions, intake.zone, batch)
        except NotFoundError:
            pass  # its opening was never committed
        except Exception as error:  # noqa: BLE001 - the batch expires, and is swept then
            log.warning("submission_left", batch=self.batch.id, kind=type(error).__name__)

    async def _open(self, fields: dict[str, str]) -> Batch:
        wanted = self._to.parse(fields)
        return await self._to.intake.run(lambda: self._opened(wanted))

    def _opened(self, wanted: BatchRequest) -> Batch:
        with self._to.intake.sessions.begin() as session:
            principal, config = self._to.principal, self._to.batches
            # Kept before the commit, whose answer may be lost: giving up must find it.
            self.batch = ledger.open_batch(session, principal, wanted, batches=config)
            return self.batch
