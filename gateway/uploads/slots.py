"""How many uploads a client, and each of its projects, has under way at a time.

Whether a pending file's upload is alive, the landing zone knows, which is not asked while a
transaction is open. So each counts as alive at first; a refusal that this leads to names those of
whom nobody has asked yet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from sqlalchemy import Row, select, true, union_all
from sqlalchemy.orm import Session

from gateway.batches.ledger import QuotaExceededError
from gateway.clients import limits
from gateway.clients.registry import Client, Project
from gateway.landing.zone import BatchPath
from gateway.uploads import rows
from gateway.uploads.model import ACTIVE, Upload
from gateway.uploads.rows import BATCH, FILE


@dataclass(frozen=True, slots=True)
class Moving:
    """A file that is under way, as the ledger says."""

    upload: str
    batch: BatchPath
    name: str


class OccupiedError(Exception):
    """Uploads are in the way; ``suspects`` are those of them that may have ended without a word."""

    suspects: Sequence[Moving] = ()

    def because_of(self, suspects: Iterable[Moving]) -> Self:
        """Name the suspects."""
        self.suspects = tuple(suspects)
        return self


class SlotsTakenError(OccupiedError, QuotaExceededError):
    """As many uploads are under way as may be at a time."""


def require(session: Session, client: Client, project: Project, dead: Collection[str]) -> None:
    """See to it that one more upload may begin. The client's row is locked by the caller.

    Parameters
    ----------
    dead
        Uploads of which the landing zone says that nobody works on them.

    Raises
    ------
    SlotsTakenError
        The client's uploads, or the project's alone, are as many as they may be.
    """
    under_way = _under_way(session, client.name)
    alone = [row for row in under_way if row.project == project.name]
    counted = (
        (under_way, limits.of(client)),
        (alone, limits.for_project(client, project)),
    )
    for moving, held in counted:
        # What a crash left is no upload any more.
        alive = [row for row in moving if row.is_resumable or row.upload not in dead]
        if len(alive) < held.uploads_in_flight:
            continue
        suspects = [_moving(client.name, row) for row in alive if not row.is_resumable]
        refusal = SlotsTakenError("As many uploads are under way as you may have at a time.")
        raise refusal.because_of(suspects)


def _under_way(session: Session, client: str) -> Sequence[Row[str, str, str, str, bool]]:
    """Return files that are received, and uploads that are compared with one that is there."""
    files = (
        select(FILE.c.upload, FILE.c.batch_id, FILE.c.name, BATCH.c.project, rows.IS_RESUMABLE)
        .join(BATCH, BATCH.c.id == FILE.c.batch_id)
        .where(BATCH.c.client == client, BATCH.c.state == "open", FILE.c.state == "pending")
    )
    compared = select(
        Upload.id, Upload.batch_id, Upload.name, Upload.project, true().label("is_resumable")
    ).where(Upload.client == client, Upload.is_comparison, Upload.state.in_(ACTIVE))
    return session.execute(union_all(files, compared)).all()


def _moving(client: str, row: Row[str, str, str, str, bool]) -> Moving:
    return Moving(row.upload, BatchPath(client, row.project, row.batch_id), row.name)
