"""Before a file's bytes are taken: its name and room are reserved, within the client's limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gateway import database
from gateway.batches import ledger
from gateway.batches.ledger import QuotaExceededError
from gateway.batches.model import Batch, File
from gateway.clients import limits, registry
from gateway.clients.registry import Client
from gateway.errors import GatewayError, TooLargeError
from gateway.identity.access import Principal
from gateway.jobs.reading import client_of
from gateway.landing.names import FileName
from gateway.landing.zone import BatchPath
from gateway.uploads import rows
from gateway.uploads.rows import BATCH, FILE, Admission

# What the form takes besides a file: its head, the fields, the boundaries.
OVERHEAD_BYTES = 64 * 1024


class FileExistsAlreadyError(GatewayError):
    """The batch has another file of this name."""

    slug = "file-exists"
    status = 409
    title = "The batch has other bytes under this name"


class DuplicateNameError(GatewayError):
    """Some systems could not tell this name from another file's."""

    slug = "duplicate-name"
    status = 409
    title = "The batch has a file of a name like this"


class UploadConflictError(GatewayError):
    """Another request stores a file of this name right now, or has taken over."""

    slug = "upload-conflict"
    status = 409
    title = "Another upload of this file is under way"
    retryable = True


@dataclass(frozen=True, slots=True)
class Known:
    """A complete file of this name: bytes that come are compared with it instead of stored."""

    batch: BatchPath
    file: File


IsReceiving = Callable[[str, BatchPath, str], bool]


def admit(
    session: Session,
    principal: Principal,
    batch_id: str,
    name: FileName,
    *,
    expected_bytes: int | None,
    media_type: str | None = None,
    is_receiving: IsReceiving,
) -> Admission | Known:
    """Reserve a name and room in a batch, or find the file that is there.

    Parameters
    ----------
    expected_bytes
        The announced length; None reserves as much as a file may have.
    is_receiving
        Says whether a pending file's upload is alive; a dead one's place is taken over.

    Raises
    ------
    NotFoundError, ClientSuspendedError, BatchSealedError, BatchClosedError
    DuplicateNameError
        Another name with the same collision key is there.
    UploadConflictError
        Another request stores this very file right now.
    TooLargeError, QuotaExceededError
        The file, the batch with it, or the client's uploads would be over a limit.
    """
    held = limits.of(_locked(session, client_of(principal)))
    batch = ledger.find(session, client_of(principal), batch_id, lock=True)
    path = BatchPath(batch.client, batch.project, batch.id)
    row = rows.of_key(session, batch_id, name)
    if row is not None and row.name != name.text:
        raise DuplicateNameError(f"{row.name} is there already.")
    if row is not None and row.state == "complete" and batch.state in ledger.LIVE:
        return Known(path, row)
    ledger.require_open(batch)
    if row is None and batch.file_count >= held.files_per_batch:
        raise QuotaExceededError("The batch has as many files as it may.")
    if row is not None and row.state == "pending" and is_receiving(row.upload, path, row.name):
        raise UploadConflictError
    _require_slot(session, batch.client, held.uploads_in_flight, is_receiving)
    freed = row.reserved_bytes if row is not None else 0
    reserved = _room(session, batch, held, freed, expected_bytes)
    upload = database.new_id("upl")
    values = {
        "upload": upload,
        "state": "pending",
        "reserved_bytes": reserved,
        "size_bytes": None,
        "sha256": None,
        "completed_at": None,
        "media_type": media_type,
        "created_by": principal.subject,
        "created_at": func.clock_timestamp(),
    }
    rows.write(session, batch_id, name, values, is_new=row is None)
    rows.count(session, batch_id, reserved - freed, 1 if row is None else 0)
    return Admission(path, name.text, upload, reserved, reserved)


def check_size(session: Session, principal: Principal, size_bytes: int) -> None:
    """Refuse a whole delivery that cannot fit, before its first byte.

    Raises
    ------
    ClientSuspendedError, TooLargeError
    """
    held = limits.of(registry.active_client(session, client_of(principal)))
    if size_bytes > held.batch_bytes + OVERHEAD_BYTES + held.files_per_batch * OVERHEAD_BYTES:
        raise TooLargeError("The batch would be larger than your limit allows.")


def _locked(session: Session, name: str) -> Client:
    # The lock makes uploads that begin at once count one after another.
    lock = select(Client).where(Client.name == name).with_for_update(key_share=True)
    locked = session.scalars(lock).one_or_none()
    return registry.active_client(session, locked.name if locked else name)


def _require_slot(session: Session, client: str, slots: int, is_receiving: IsReceiving) -> None:
    query = (
        select(FILE.c.upload, FILE.c.batch_id, FILE.c.name, BATCH.c.project, rows.IS_RESUMABLE)
        .join(BATCH, BATCH.c.id == FILE.c.batch_id)
        .where(BATCH.c.client == client, BATCH.c.state == "open", FILE.c.state == "pending")
    )
    pending = session.execute(query).all()
    if len(pending) < slots:
        return
    # What a crash left is no upload any more.
    places = [BatchPath(client, row.project, row.batch_id) for row in pending]
    moving = zip(pending, places, strict=True)
    held = (row.is_resumable or is_receiving(row.upload, place, row.name) for row, place in moving)
    if sum(held) >= slots:
        raise QuotaExceededError("As many uploads are under way as you may have at a time.")


def _room(
    session: Session, batch: Batch, held: limits.Limits, freed: int, expected_bytes: int | None
) -> int:
    left = held.batch_bytes - (batch.reserved_bytes - freed)
    most = min(held.file_bytes, left)
    needed = 1 if expected_bytes is None else expected_bytes
    if needed <= most:
        return most if expected_bytes is None else expected_bytes
    if needed > held.file_bytes:
        raise TooLargeError("The file would be larger than your limit allows.")
    if needed <= left + _under_way(session, batch) - freed:
        raise QuotaExceededError("Uploads under way hold what is left of the batch.")
    raise TooLargeError("The batch would be larger than your limit allows.")


def _under_way(session: Session, batch: Batch) -> int:
    """Return how many bytes uploads hold that may turn out to need fewer."""
    held = select(func.coalesce(func.sum(File.reserved_bytes), 0))
    query = held.where(File.batch_id == batch.id, File.state == "pending")
    return int(session.scalars(query).one())
