"""The end of a resumable upload: verified whole, published, written down.

The digest is known from receiving, where one process received it all. Where it is not, every byte
is read once more, and the file's ``verified_bytes`` tell how far that is.
"""

from __future__ import annotations

import time

from gateway import logs
from gateway.audit import actions
from gateway.batches.model import File
from gateway.identity.access import Principal
from gateway.landing.zone import Part, PartBusyError, PartLostError, Stored
from gateway.uploads import completion, publishing, tickets
from gateway.uploads.admission import FileExistsAlreadyError
from gateway.uploads.digests import DigestMismatchError
from gateway.uploads.intake import Intake
from gateway.uploads.model import Upload
from gateway.uploads.tickets import UploadGoneError

log = logs.get("uploads")
TELL_SECONDS = 1.0


class WholeMismatchError(DigestMismatchError):
    """The whole upload does not have the digest that was announced for it."""

    status = 460


class Finish:
    """Finishes one upload whose bytes are all durable; blocks, for as long as reading takes."""

    def __init__(self, intake: Intake, principal: Principal, upload: Upload) -> None:
        self._intake = intake
        self._sessions = intake.sessions
        self._zone = intake.zone
        self._principal = principal
        self._upload = upload
        self._admission = tickets.admission_of(upload)
        self._told_at = time.monotonic()

    def carry_out(self, part: Part) -> File:
        """Verify a part and make it the batch's file.

        Raises
        ------
        WholeMismatchError, FileExistsAlreadyError
            The upload is gone with its bytes.
        UploadConflictError
            A newer request has taken it over.
        BatchSealedError, BatchClosedError, InsufficientStorageError, StorageUnavailableError
        """
        stored = part.finish(self._tell)
        if self._upload.sha256 not in {None, stored.sha256}:
            self._drop(part)
            raise WholeMismatchError(f"The bytes that arrived have SHA-256 {stored.sha256}.")
        if self._upload.is_comparison:
            return self._compared(part, stored)
        with self._sessions.begin() as session:
            tickets.prove(session, self._upload, stored.sha256)
        publishing.publish(self._sessions, self._zone, self._admission, part, stored)
        file = self._written_down(stored)
        part.abort()
        return file

    def recover(self) -> File | None:
        """Finish what a crash has left whole; None when somebody is at it right now.

        Raises
        ------
        UploadGoneError
            Its bytes are nowhere.
        """
        upload = self._upload
        try:
            part = self._zone.resume_part(upload.part, upload.length_bytes)
        except PartBusyError:
            return None
        except PartLostError:
            return self.without_part()
        try:
            return self.carry_out(part)
        finally:
            part.release()

    def without_part(self) -> File:
        """Write down a file that got its name before a crash, and nothing more.

        Raises
        ------
        UploadConflictError
            A newer request has taken the upload over, and may have finished it.
        UploadGoneError
            Its bytes are nowhere.
        """
        upload = self._upload
        with self._sessions.begin() as session:
            tickets.require_newest(session, upload)
            session.add(upload)
            session.refresh(upload)
        is_whole = upload.offset_bytes == upload.length_bytes and not upload.is_comparison
        if is_whole and upload.sha256 is not None:
            stored = Stored(upload.length_bytes, upload.sha256)
            if self._zone.adopt(self._admission.batch, upload.name, stored):
                return self._written_down(stored)
        log.error("part_lost", upload=upload.id)
        self._end(actions.FILE_EXPIRED)
        raise UploadGoneError

    def _written_down(self, stored: Stored) -> File:
        with self._sessions.begin() as session:
            file = completion.complete(session, self._principal, self._admission, stored)
            tickets.settle(session, self._upload, "complete")
        return file

    def _compared(self, part: Part, stored: Stored) -> File:
        upload = self._upload
        with self._sessions.begin() as session:
            _, file = completion.file_of(session, upload.client, upload.batch_id, upload.name)
            is_same = (file.size_bytes, file.sha256) == (stored.size_bytes, stored.sha256)
            tickets.settle(session, upload, "complete" if is_same else "gone")
        part.abort()
        if not is_same:
            raise FileExistsAlreadyError
        return file

    def _drop(self, part: Part) -> None:
        self._end(actions.FILE_DELETED)
        part.abort()

    def _end(self, action: str) -> None:
        with self._sessions.begin() as session:
            tickets.require_newest(session, self._upload)
            tickets.give_up(session, self._upload, self._principal.subject, action)

    def _tell(self, verified_bytes: int) -> None:
        if time.monotonic() - self._told_at >= TELL_SECONDS:
            self._told_at = time.monotonic()
            with self._sessions.begin() as session:
                tickets.verify(session, self._upload, verified_bytes)
