"""The ledger of resumable uploads: opened, taken over, moved on, ended.

Each function is one short transaction's work. Whoever receives bytes has taken the upload over
first, which raises its ``fence``; what an older one still does to it is refused from then on.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import (
    CursorResult,
    func,
    select,
    update,
)
from sqlalchemy.orm import Session

from gateway.batches import ledger
from gateway.errors import GatewayError, NotFoundError
from gateway.landing.zone import BatchPath
from gateway.uploads import completion, rows
from gateway.uploads.admission import UploadConflictError
from gateway.uploads.model import ACTIVE, Upload
from gateway.uploads.rows import Admission

ID = re.compile(r"upl_[0-9a-z]{26}")


class UploadGoneError(GatewayError):
    """The upload was terminated, has expired, or another took its place."""

    slug = "upload-gone"
    status = 410
    title = "The upload is no longer there"


@dataclass(frozen=True, slots=True)
class Opening:
    """A new upload, as its sender announced it."""

    length_bytes: int
    sha256: str | None
    metadata_header: str
    life_seconds: float


def open_upload(
    session: Session, admission: Admission, created_by: str, wanted: Opening, *, compares: bool
) -> Upload:
    """Write a new upload down; one of the same name that is still open gives way."""
    place = admission.batch
    same = (Upload.batch_id == place.batch, Upload.name == admission.name)
    session.execute(update(Upload).where(*same, Upload.state.in_(ACTIVE)).values(state="gone"))
    upload = Upload(
        id=admission.upload,
        client=place.client,
        project=place.project,
        batch_id=place.batch,
        name=admission.name,
        length_bytes=wanted.length_bytes,
        offset_bytes=0,
        sha256=wanted.sha256,
        metadata_header=wanted.metadata_header,
        part=admission.upload,
        fence=1,
        state="receiving",
        is_comparison=compares,
        created_by=created_by,
        expires_at=func.clock_timestamp() + rows.interval(wanted.life_seconds),
    )
    session.add(upload)
    session.flush()
    session.refresh(upload)
    if not compares:
        mine = rows.mine(admission)
        session.execute(update(rows.FILE).where(*mine).values(received_bytes=0))
    return upload


def find(session: Session, client: str, upload_id: str, *, lock: bool = False) -> Upload:
    """Return a client's upload that is not gone.

    Raises
    ------
    NotFoundError
        The client never had such an upload.
    UploadGoneError
    """
    if ID.fullmatch(upload_id) is None:
        raise NotFoundError
    query = select(Upload, Upload.expires_at <= func.clock_timestamp())
    query = query.where(Upload.client == client, Upload.id == upload_id)
    if lock:
        query = query.with_for_update(of=Upload)
    found = session.execute(query.execution_options(populate_existing=True)).one_or_none()
    if found is None:
        raise NotFoundError
    upload, has_expired = found
    if upload.state == "gone" or (has_expired and upload.state != "complete"):
        raise UploadGoneError
    return upload


def take_over(session: Session, client: str, upload_id: str, at_bytes: int | None) -> Upload:
    """Become the one who receives an upload's bytes, from its present offset on.

    Parameters
    ----------
    at_bytes
        Where the sender means to go on; None takes over wherever it stands.

    Raises
    ------
    NotFoundError, UploadGoneError, BatchSealedError, BatchClosedError
    UploadConflictError
        The upload stands elsewhere. Who receives is left alone then.
    """
    seen = find(session, client, upload_id)
    # The batch before the upload, as everywhere: two who wait for each other wait for ever.
    batch = ledger.find(session, client, seen.batch_id, lock=True)
    upload = find(session, client, upload_id, lock=True)
    if at_bytes not in {None, upload.offset_bytes}:
        raise UploadConflictError(f"The upload stands at {upload.offset_bytes}.")
    if upload.state == "complete":
        return upload
    ledger.require_open(batch)
    if not upload.is_comparison and not _owns_its_name(session, upload):
        upload.state = "gone"
        return upload
    upload.fence += 1
    session.flush()
    return upload


def _owns_its_name(session: Session, upload: Upload) -> bool:
    return (
        session.execute(select(rows.FILE.c.name).where(*rows.mine(admission_of(upload)))).first()
        is not None
    )


def admission_of(upload: Upload) -> Admission:
    """Return what was admitted when the upload was opened."""
    place = BatchPath(upload.client, upload.project, upload.batch_id)
    return Admission(place, upload.name, upload.id, upload.length_bytes, upload.length_bytes)


def move(session: Session, upload: Upload, offset_bytes: int, life_seconds: float) -> None:
    """Say that an upload's bytes are durable up to here.

    Raises
    ------
    UploadConflictError
        Somebody else has taken it over.
    """
    values = {
        "offset_bytes": offset_bytes,
        "updated_at": func.clock_timestamp(),
        "expires_at": func.clock_timestamp() + rows.interval(life_seconds),
    }
    _mine(session, upload, values)
    if not upload.is_comparison:
        mine = rows.mine(admission_of(upload))
        session.execute(update(rows.FILE).where(*mine).values(received_bytes=offset_bytes))


def verify(session: Session, upload: Upload, verified_bytes: int) -> None:
    """Say how far a whole upload's digest has been taken.

    Raises
    ------
    UploadConflictError
    """
    _mine(session, upload, {"state": "verifying", "updated_at": func.clock_timestamp()})
    if not upload.is_comparison:
        mine = rows.mine(admission_of(upload))
        session.execute(update(rows.FILE).where(*mine).values(verified_bytes=verified_bytes))


def prove(session: Session, upload: Upload, sha256: str) -> None:
    """Write down what a whole upload's bytes are, before they are published.

    After a crash, the published file is known by it.

    Raises
    ------
    UploadConflictError
        Somebody else has taken the upload over.
    """
    _mine(session, upload, {"sha256": sha256, "updated_at": func.clock_timestamp()})


def settle(session: Session, upload: Upload, state: str) -> None:
    """End an upload: ``complete`` or ``gone``.

    Raises
    ------
    UploadConflictError
    """
    _mine(session, upload, {"state": state, "updated_at": func.clock_timestamp()})


def rename_part(session: Session, upload: Upload, part: str) -> None:
    """Say that an upload's bytes are in another part now.

    Raises
    ------
    UploadConflictError
    """
    _mine(session, upload, {"part": part})


def _mine(session: Session, upload: Upload, values: Mapping[str, object]) -> None:
    newest = (Upload.id == upload.id, Upload.fence == upload.fence, Upload.state.in_(ACTIVE))
    changed = session.execute(update(Upload).where(*newest).values(**values))
    assert isinstance(changed, CursorResult)  # noqa: S101 - what an UPDATE gives
    if changed.rowcount == 0:
        raise UploadConflictError


def require_newest(session: Session, upload: Upload) -> None:
    """See to it that nobody has taken an upload over.

    Raises
    ------
    UploadConflictError
    """
    ledger.find(session, upload.client, upload.batch_id, lock=True)
    _mine(session, upload, {"updated_at": func.clock_timestamp()})


def give_up(session: Session, upload: Upload, actor: str, action: str) -> None:
    """End an open upload and give its name and room back. Whoever receives it is outrun."""
    ended = update(Upload).where(Upload.id == upload.id, Upload.state.in_(ACTIVE))
    session.execute(ended.values(state="gone", fence=Upload.fence + 1))
    if upload.is_comparison:
        return
    if completion.take_back(session, admission_of(upload)):
        facts = {"batch": upload.batch_id, "name": upload.name, "was": "pending"}
        rows.tell(session, actor, upload.client, action, facts)


def close(session: Session, upload: Upload) -> None:
    """Let go of an upload that has become a file."""
    session.execute(update(Upload).where(Upload.id == upload.id).values(state="gone"))


def fences(session: Session, ids: Collection[str]) -> dict[str, int]:
    """Return the newest fence of each of these uploads; -1 where it is over."""
    query = select(Upload.id, Upload.fence, Upload.state).where(Upload.id.in_(list(ids)))
    return {
        row.id: row.fence if row.state in ACTIVE else -1 for row in session.execute(query).all()
    }
