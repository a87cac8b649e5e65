"""What the tus doors do: open, look, take over and receive, terminate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gateway import database
from gateway.audit import actions
from gateway.batches.ledger import QuotaExceededError
from gateway.clients import limits, registry
from gateway.identity.access import Principal
from gateway.jobs.reading import client_of
from gateway.landing.names import FileName
from gateway.landing.zone import Chunk
from gateway.uploads import admission, completion, tickets
from gateway.uploads.admission import FileExistsAlreadyError, Known
from gateway.uploads.finishing import Finish
from gateway.uploads.intake import Intake
from gateway.uploads.model import ACTIVE, Upload
from gateway.uploads.rows import Admission
from gateway.uploads.stretch import Checksum, Stretch
from gateway.uploads.switchboard import Switchboard
from gateway.uploads.tickets import Opening, UploadGoneError


@dataclass(frozen=True, slots=True)
class Resuming:
    """Resumable uploads of this process's callers; ``life_seconds`` is how long one may rest."""

    intake: Intake
    switchboard: Switchboard
    life_seconds: float

    async def open(
        self,
        principal: Principal,
        batch_id: str,
        name: FileName,
        media_type: str | None,
        wanted: Opening,
    ) -> Upload:
        """Reserve name and room for an upload, and write it down.

        Raises
        ------
        GatewayError
            As ``admission.admit``; ``FileExistsAlreadyError`` where the file that is there is
            known to be another.
        """
        return await self.intake.run(
            lambda: self._opened(principal, batch_id, name, media_type, wanted)
        )

    def _opened(
        self,
        principal: Principal,
        batch_id: str,
        name: FileName,
        media_type: str | None,
        wanted: Opening,
    ) -> Upload:
        zone = self.intake.zone
        with self.intake.sessions.begin() as session:
            admitted = admission.admit(
                session,
                principal,
                batch_id,
                name,
                expected_bytes=wanted.length_bytes,
                media_type=media_type,
                is_receiving=zone.is_receiving,
            )
            compares = isinstance(admitted, Known)
            if isinstance(admitted, Known):
                admitted = _comparison(session, principal, admitted, wanted)
            # Before the commit: whoever sees the upload can go on with its part.
            part = zone.open_part(admitted.upload, wanted.length_bytes)
            try:
                upload = tickets.open_upload(
                    session, admitted, principal.subject, wanted, compares=compares
                )
                part.checkpoint()
            except BaseException:
                part.abort()
                raise
        part.release()
        return upload

    async def look(self, principal: Principal, upload_id: str) -> Upload:
        """Return an upload; one whose bytes are all there is finished first, where it was not.

        Raises
        ------
        NotFoundError, UploadGoneError
        """
        return await self.intake.run(lambda: self._looked(principal, upload_id))

    def _looked(self, principal: Principal, upload_id: str) -> Upload:
        client = client_of(principal)
        with self.intake.sessions.begin() as session:
            upload = tickets.find(session, client, upload_id)
        if upload.state in ACTIVE and upload.offset_bytes == upload.length_bytes:
            Finish(self.intake, principal, upload).recover()
        return upload

    async def take_over(self, principal: Principal, upload_id: str, at_bytes: int) -> Upload:
        """Become the one who receives an upload's bytes.

        Raises
        ------
        NotFoundError, UploadGoneError, UploadConflictError, BatchSealedError, BatchClosedError
        """

        def taken() -> Upload:
            with self.intake.sessions.begin() as session:
                return tickets.take_over(session, client_of(principal), upload_id, at_bytes)

        upload = await self.intake.run(taken)
        if upload.state == "gone":
            raise UploadGoneError
        return upload

    async def receive(
        self,
        principal: Principal,
        upload: Upload,
        chunks: AsyncIterator[Chunk],
        checksum: Checksum | None,
    ) -> Upload:
        """Take in what a request brings, and return the upload as it stands then.

        Raises
        ------
        GatewayError
            As ``Stretch.receive``.
        """
        if upload.state == "complete":
            return upload
        stretch = Stretch(self.intake, self.switchboard, principal, upload, self.life_seconds)
        await stretch.receive(chunks, checksum)
        return await self.intake.run(lambda: self._found(principal, upload.id))

    def _found(self, principal: Principal, upload_id: str) -> Upload:
        with self.intake.sessions.begin() as session:
            return tickets.find(session, client_of(principal), upload_id)

    async def terminate(self, principal: Principal, upload_id: str) -> None:
        """Give an upload up, or remove the file that it has become.

        Raises
        ------
        NotFoundError, UploadGoneError, UploadConflictError, BatchSealedError, BatchClosedError
        """
        await self.intake.run(lambda: self._terminated(principal, upload_id))

    def _terminated(self, principal: Principal, upload_id: str) -> None:
        zone = self.intake.zone
        with self.intake.sessions.begin() as session:
            upload = tickets.take_over(session, client_of(principal), upload_id, None)
            if upload.state == "complete":
                tickets.close(session, upload)
                place = completion.remove(session, principal, upload.batch_id, upload.name)
                if place is not None:
                    zone.remove_file(place, upload.name)
                return
            tickets.give_up(session, upload, principal.subject, actions.FILE_DELETED)
        zone.remove_part(upload.part)


def _comparison(session: Session, principal: Principal, known: Known, wanted: Opening) -> Admission:
    """Let bytes come that will be compared with a file that is there."""
    file = known.file
    if wanted.length_bytes != file.size_bytes or wanted.sha256 not in {None, file.sha256}:
        raise FileExistsAlreadyError
    client = registry.active_client(session, client_of(principal))
    under_way = select(func.count()).where(
        Upload.client == client.name, Upload.is_comparison, Upload.state.in_(ACTIVE)
    )
    if (session.scalar(under_way) or 0) >= limits.of(client).uploads_in_flight:
        raise QuotaExceededError("As many uploads are under way as you may have at a time.")
    return Admission(known.batch, file.name, database.new_id("upl"), wanted.length_bytes, 0)
