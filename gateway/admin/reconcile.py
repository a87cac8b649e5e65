"""Compares the landing zone with the ledger, reports, and on demand adopts or sets aside.

Nothing that the ledger does not know is ever deleted, and nothing is sealed or triggered here.
Only what sets a file aside speaks to the landing zone with a batch locked: no upload may write down
meanwhile that the file is its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Row, Select, func, select, tuple_, update
from sqlalchemy.orm import Session, sessionmaker

from gateway.admin.views import Finding, Reconciliation
from gateway.audit import actions, trail
from gateway.batches.model import Batch, File
from gateway.landing.zone import BatchPath, Landed, Zone

LIVE = ("open", "sealed")
PAGE = 1000


def run(sessions: sessionmaker[Session], zone: Zone, *, repair: bool, actor: str) -> Reconciliation:
    """Look at every published file and every complete row.

    Parameters
    ----------
    repair
        Set published files that no row acknowledges aside (they stay in ``.quarantine``), mark
        rows whose file is lost or cut as ``error``, and correct the counters of batches.
    """
    checked = 0
    findings: list[Finding] = []
    for landed in zone.walk():
        checked += 1
        findings += _published(sessions, zone, landed, repair=repair)
    findings += _rows(sessions, zone, repair=repair)
    with sessions.begin() as session:
        findings += _counters(session, repair=repair)
        if findings:
            trail.record(
                session,
                actor=actor,
                action=actions.RECONCILED,
                client=None,
                subject="landing",
                details={"findings": len(findings), "repair": repair},
            )
    return Reconciliation(files_checked=checked, findings=findings)


def _published(
    sessions: sessionmaker[Session], zone: Zone, landed: Landed, *, repair: bool
) -> Iterator[Finding]:
    subject = f"{landed.batch.batch}/{landed.name}"
    with sessions.begin() as session:
        # Locked: an upload that is about to write its row down waits until this has looked. And
        # locked first: a statement does not see rows that were written while it waited.
        mine = (
            Batch.id == landed.batch.batch,
            Batch.client == landed.batch.client,
            Batch.project == landed.batch.project,
        )
        session.execute(select(Batch.id).where(*mine).with_for_update(key_share=True))
        query = (
            select(Batch.state, File.state)
            .join(File, (File.batch_id == Batch.id) & (File.name == landed.name), isouter=True)
            .where(*mine)
        )
        row = session.execute(query).one_or_none()
        if row is not None and row[0] in LIVE and row[1] in {"complete", "pending"}:
            return
        kind = "file-without-batch" if row is None else "file-without-row"
        if row is not None and row[1] == "error":
            kind = "file-in-error"
        done = None
        if repair:
            zone.quarantine(landed.batch, landed.name)
            done = "quarantined"
        yield Finding(kind=kind, subject=subject, done=done)


def _rows(sessions: sessionmaker[Session], zone: Zone, *, repair: bool) -> Iterator[Finding]:
    for row in _complete(sessions):
        size = _size(zone, BatchPath(row.client, row.project, row.batch_id), row.name)
        if size == row.size_bytes:
            continue
        kind = "file-lost" if size is None else "file-changed"
        with sessions.begin() as session:
            if not _stands(session, row, repair=repair):
                continue
        done = "marked as error" if repair else None
        yield Finding(kind=kind, subject=f"{row.batch_id}/{row.name}", done=done)


Complete = Row[str, str, str, int | None, str, str]


def _complete(sessions: sessionmaker[Session]) -> Iterator[Complete]:
    """Return the complete files of live batches, a page in each transaction."""
    query = (
        select(File.batch_id, File.name, File.upload, File.size_bytes, Batch.client, Batch.project)
        .join(Batch, Batch.id == File.batch_id)
        .where(File.state == "complete", Batch.state.in_(LIVE))
        .order_by(File.batch_id, File.name)
        .limit(PAGE)
    )
    last = ("", "")
    while True:
        with sessions.begin() as session:
            page = session.execute(query.where(tuple_(File.batch_id, File.name) > last)).all()
        yield from page
        if len(page) < PAGE:
            return
        last = (page[-1].batch_id, page[-1].name)


def _stands(session: Session, row: Complete, *, repair: bool) -> bool:
    """Say whether a row that was looked at is still the same file's; mark it on demand."""
    ended = select(Batch.state).where(Batch.id == row.batch_id).with_for_update(key_share=True)
    if session.scalars(ended).one_or_none() not in LIVE:
        return False
    file = session.get(File, (row.batch_id, row.name))
    if file is None or (file.state, file.upload) != ("complete", row.upload):
        return False
    if repair:
        file.state = "error"
    return True


def _size(zone: Zone, batch: BatchPath, name: str) -> int | None:
    try:
        file, size = zone.open_file(batch, name)
    except FileNotFoundError:
        return None
    file.close()
    return size


def _counters(session: Session, *, repair: bool) -> Iterator[Finding]:
    suspects = session.scalars(_miscounted().with_only_columns(Batch.id)).all()
    for batch_id in suspects:
        # Counted again under the batch's lock: an upload may have been admitted in between.
        lock = select(Batch.id).where(Batch.id == batch_id).with_for_update(key_share=True)
        session.execute(lock)
        row = session.execute(_miscounted().where(Batch.id == batch_id)).one_or_none()
        if row is None:
            continue
        if repair:
            values = {"reserved_bytes": row.size_bytes, "file_count": row.files}
            session.execute(update(Batch).where(Batch.id == batch_id).values(values))
        yield Finding(kind="counter-wrong", subject=batch_id, done="corrected" if repair else None)


def _miscounted() -> Select[str, int, int]:
    held = (
        select(
            File.batch_id,
            func.sum(File.reserved_bytes).label("size_bytes"),
            func.count().label("files"),
        )
        .group_by(File.batch_id)
        .subquery()
    )
    size = func.coalesce(held.c.size_bytes, 0).label("size_bytes")
    files = func.coalesce(held.c.files, 0).label("files")
    return (
        select(Batch.id, size, files)
        .join(held, held.c.batch_id == Batch.id, isouter=True)
        .where(Batch.state.in_(LIVE), (Batch.reserved_bytes != size) | (Batch.file_count != files))
    )
