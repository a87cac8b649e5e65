"""Before a file's bytes are taken: its name and room are reserved, within the client's limits."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gateway import database
from gateway.batches import ledger
from gateway.batches.ledger import QuotaExceededError
from gateway.batches.model import Batch, File
from gateway.clients import limits, registry, usage
from gateway.clients.limits import Limits
from gateway.clients.registry import Client, Project
from gateway.errors import GatewayError, TooLargeError
from gateway.identity.access import Principal
from gateway.jobs.reading import client_of
from gateway.landing.names import FileName
from gateway.landing.zone import BatchPath
from gateway.uploads import rows, slots
from gateway.uploads.rows import Admission
from gateway.uploads.slots import Moving, OccupiedError

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


class UploadConflictError(OccupiedError, GatewayError):
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


def admit(
    session: Session,
    principal: Principal,
    batch_id: str,
    name: FileName,
    *,
    upload: str,
    expected_bytes: int | None,
    media_type: str | None = None,
    dead: Collection[str] = (),
) -> Admission | Known:
    """Reserve a name and room in a batch, or find the file that is there.

    Parameters
    ----------
    upload
        A new id. The upload's part is open: it is seen to be alive once the row is seen.
    expected_bytes
        The announced length; None reserves as much as a file may have.
    dead
        Uploads of which the landing zone says that nobody works on them: their places are taken
        over. Every other counts as alive.

    Raises
    ------
    NotFoundError, ClientSuspendedError, BatchSealedError, BatchClosedError
    DuplicateNameError
        Another name with the same collision key is there.
    UploadConflictError, SlotsTakenError
        Another request stores this very file right now; as many uploads are under way as may be.
        Where those may be dead, the refusal names them: ask, and admit again.
    TooLargeError, QuotaExceededError
        The file, the batch with it, or what may be delivered on a day would be over a limit.
    """
    owner = _locked(session, client_of(principal))
    batch = ledger.find(session, client_of(principal), batch_id, lock=True)
    path = BatchPath(batch.client, batch.project, batch.id)
    row = rows.of_key(session, batch_id, name)
    if row is not None and row.name != name.text:
        raise DuplicateNameError(f"{row.name} is there already.")
    if row is not None and row.state == "complete" and batch.state in ledger.LIVE:
        return Known(path, row)
    ledger.require_open(batch)
    scope = _Scope(owner, session.get_one(Project, (batch.client, batch.project)), batch)
    if row is None and batch.file_count >= scope.held.files_per_batch:
        raise QuotaExceededError("The batch has as many files as it may.")
    if row is not None and row.held_until is not None and row.held_until > database.now(session):
        raise UploadConflictError
    if row is not None and row.state == "pending" and row.upload not in dead:
        raise UploadConflictError().because_of([Moving(row.upload, path, row.name)])
    slots.require(session, owner, scope.project, dead)
    if row is not None and row.state == "pending":
        begun_on = usage.day_of(row.created_at)
        usage.add(session, path.client, path.project, begun_on, -row.reserved_bytes)
    freed = row.reserved_bytes if row is not None else 0
    now = database.now(session)
    reserved = _room(session, scope, now, freed, expected_bytes)
    usage.add(session, path.client, path.project, usage.day_of(now), reserved)
    values = {
        "upload": upload,
        "state": "pending",
        "reserved_bytes": reserved,
        "size_bytes": None,
        "sha256": None,
        "completed_at": None,
        "held_until": None,
        "media_type": media_type,
        "created_by": principal.subject,
        "created_at": now,
    }
    rows.write(session, batch_id, name, values, is_new=row is None)
    rows.count(session, batch_id, reserved - freed, 1 if row is None else 0)
    return Admission(path, name.text, upload, reserved, reserved)


def admit_comparison(
    session: Session, known: Known, upload: str, dead: Collection[str]
) -> Admission:
    """Let bytes come that will be compared with a file that ``admit`` has found.

    Raises
    ------
    SlotsTakenError
    """
    client = session.get_one(Client, known.batch.client)
    project = session.get_one(Project, (known.batch.client, known.batch.project))
    slots.require(session, client, project, dead)
    return Admission(known.batch, known.file.name, upload, known.file.size_bytes or 0, 0)


@dataclass(frozen=True, slots=True)
class _Scope:
    """Whose limits count for a file."""

    client: Client
    project: Project
    batch: Batch

    @property
    def held(self) -> Limits:
        """Return the project's limits, which are within its client's."""
        return limits.for_project(self.client, self.project)


def most_bytes(held: Limits, reserved_bytes: int, day_left: int | None) -> int:
    """Return how many bytes one more file may have.

    Parameters
    ----------
    reserved_bytes
        What its batch holds by now.
    day_left
        What may still come on this day; None for any amount.
    """
    most = min(held.file_bytes, held.batch_bytes - reserved_bytes)
    return most if day_left is None else min(most, day_left)


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


def _room(
    session: Session, scope: _Scope, now: datetime, freed: int, expected_bytes: int | None
) -> int:
    held, batch = scope.held, scope.batch
    reserved = batch.reserved_bytes - freed
    day_left = usage.room_left(session, scope.client, scope.project, usage.day_of(now))
    most = most_bytes(held, reserved, day_left)
    needed = 1 if expected_bytes is None else expected_bytes
    if needed <= most:
        return most if expected_bytes is None else expected_bytes
    if needed > min(held.file_bytes, held.bytes_per_day or held.file_bytes):
        raise TooLargeError("The file would be larger than your limit allows.")
    if needed > most_bytes(held, reserved, None):
        if needed <= held.batch_bytes - reserved + _under_way(session, batch) - freed:
            raise QuotaExceededError("Uploads under way hold what is left of the batch.")
        raise TooLargeError("The batch would be larger than your limit allows.")
    later = {"Retry-After": str(usage.seconds_left(now))}
    raise QuotaExceededError("You have delivered as much as you may on one day.", headers=later)


def _under_way(session: Session, batch: Batch) -> int:
    """Return how many bytes uploads hold that may turn out to need fewer."""
    held = select(func.coalesce(func.sum(File.reserved_bytes), 0))
    query = held.where(File.batch_id == batch.id, File.state == "pending")
    return int(session.scalars(query).one())
