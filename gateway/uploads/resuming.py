"""What the tus doors do: open, look, take over and receive, terminate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from sqlalchemy.orm import Session

from gateway.audit import actions
from gateway.chunks import Chunk
from gateway.identity.access import Principal
from gateway.jobs.reading import client_of
from gateway.landing.names import FileName
from gateway.uploads import admission, entering, holding, publishing, tickets
from gateway.uploads.admission import FileExistsAlreadyError, Known
from gateway.uploads.entering import Opened
from gateway.uploads.finishing import Finish
from gateway.uploads.intake import Intake
from gateway.uploads.model import ACTIVE, Upload
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
        opened = Opened(self.intake.zone, wanted.length_bytes, is_lasting=True)

        def admit(session: Session, dead: frozenset[str]) -> Upload:
            found = admission.admit(
                session,
                principal,
                batch_id,
                name,
                upload=opened.upload,
                expected_bytes=wanted.length_bytes,
                media_type=media_type,
                dead=dead,
            )
            compares = isinstance(found, Known)
            if isinstance(found, Known):
                _require_alike(found, wanted)
                found = admission.admit_comparison(session, found, opened.upload, dead)
            opened.require()
            return tickets.open_upload(session, found, principal.subject, wanted, compares=compares)

        try:
            upload = entering.admitted(self.intake.sessions, self.intake.zone, admit)
        except BaseException:
            opened.discard()
            raise
        opened.part.release()
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
        sessions, zone = self.intake.sessions, self.intake.zone
        with sessions.begin() as session:
            upload = tickets.take_over(session, client_of(principal), upload_id, None)
            file = None
            if upload.state == "complete":
                tickets.close(session, upload)
                file = holding.withdraw(session, principal, upload.batch_id, upload.name)
            else:
                holding.require_free(session, upload.batch_id, upload.name)
                tickets.give_up(session, upload, principal.subject, actions.FILE_DELETED)
        if file is None:
            zone.remove_part(upload.part)
        else:
            publishing.remove(sessions, zone, file)


def _require_alike(known: Known, wanted: Opening) -> None:
    """Refuse bytes of which it is known beforehand that they are not those of the file there."""
    file = known.file
    if wanted.length_bytes != file.size_bytes or wanted.sha256 not in {None, file.sha256}:
        raise FileExistsAlreadyError
