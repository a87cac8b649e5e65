"""The seal: a batch's files are what its sender says, and never change again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Row, select
from sqlalchemy.orm import Session, sessionmaker

from gateway import database
from gateway.batches import layers, ledger, manifest, states
from gateway.batches.model import Batch, File
from gateway.batches.views import ListedFile
from gateway.clients import registry
from gateway.errors import Fault, GatewayError
from gateway.identity.access import Principal
from gateway.identity.tokens import KeyRing
from gateway.jobs import pinning, reading
from gateway.jobs import states as job_states
from gateway.jobs.model import Job
from gateway.landing.zone import BatchPath, Zone


class BatchIncompleteError(GatewayError):
    """What is there is not what was meant; ``errors`` names each file."""

    slug = "batch-incomplete"
    status = 409
    title = "The batch is not complete"


class NothingStagedError(GatewayError):
    """There are no staged rows of the batch that were made under the wanted contract."""

    slug = "nothing-staged"
    status = 409
    title = "Nothing is staged under this contract"


# Files that come while others are looked at are looked at too; who sends for ever is not waited for.
LOOKS = 5
Stand = tuple[str, str]


class _UnseenError(Exception):
    """There are files at which nobody has looked in the landing zone."""


def carry_out(
    sessions: sessionmaker[Session],
    principal: Principal,
    zone: Zone,
    keys: KeyRing,
    batch_id: str,
    listed: Sequence[ListedFile] | None = None,
) -> tuple[Batch, Job]:
    """Look whether a batch's files stand in the landing zone, outside any transaction, and seal it.

    Raises
    ------
    GatewayError
        As ``seal``; the landing zone's.
    """
    stands: dict[Stand, bool] = {}
    for _ in range(LOOKS):
        with sessions.begin() as session:
            path, files = _to_look_at(session, reading.client_of(principal), batch_id)
        unseen = [each for each in files if (each.name, each.upload) not in stands]
        stands |= {(each.name, each.upload): _stands(zone, path, each) for each in unseen}
        with contextlib.suppress(_UnseenError), sessions.begin() as session:
            return seal(session, principal, keys, batch_id, listed, stands)
    raise BatchIncompleteError("Files are still arriving.")


def seal(
    session: Session,
    principal: Principal,
    keys: KeyRing,
    batch_id: str,
    listed: Sequence[ListedFile] | None,
    stands: Mapping[Stand, bool],
) -> tuple[Batch, Job]:
    """Seal a batch: manifest, receipt and first job, or nothing at all.

    Parameters
    ----------
    listed
        Exactly the files that the batch must consist of; None takes what is there.
    stands
        Whether files, by name and upload, lie in the landing zone as they were received.

    Raises
    ------
    NotFoundError
        The client has no such batch.
    ClientSuspendedError
        The client may not deliver at present.
    BatchClosedError
        It was canceled, has expired or was purged.
    BatchIncompleteError
        It has no files, or they are unfinished, missing, surplus, different or damaged.

    Notes
    -----
    Sealing a sealed batch gives the first answer again, whatever is listed.
    """
    client = reading.client_of(principal)
    batch = ledger.find(session, client, batch_id, lock=True)
    if batch.state == "sealed":
        return batch, reading.first_of_batch(session, client, batch_id)
    ledger.require_open(batch)
    registry.active_client(session, client)
    files = ledger.files_of(session, batch_id)
    _check(files, listed, stands)
    now = database.now(session)
    manifest.issue(session, keys, batch, files, now)
    states.move(session, batch, "sealed", actor=principal.subject, at=now)
    return batch, _queue(session, principal, batch)


def _to_look_at(
    session: Session, client: str, batch_id: str
) -> tuple[BatchPath, Sequence[Row[str, str, int | None]]]:
    """Return where a batch lies, and its complete files while it is open."""
    batch = ledger.find(session, client, batch_id)
    path = BatchPath(batch.client, batch.project, batch.id)
    if batch.state != "open":
        return path, ()
    query = select(File.name, File.upload, File.size_bytes).where(
        File.batch_id == batch.id, File.state == "complete"
    )
    return path, session.execute(query).all()


def _queue(session: Session, principal: Principal, batch: Batch) -> Job:
    return job_states.queue_job(
        session,
        client=batch.client,
        project=batch.project,
        batch_id=batch.id,
        cause="seal",
        created_by=principal.subject,
    )


def replay(
    session: Session,
    principal: Principal,
    batch_id: str,
    reason: str,
    source: pinning.Source = "landing",
    contract: pinning.Choice = "latest",
) -> Job:
    """Process a sealed batch again, or a purged one whose staged rows are kept for longer.

    Raises
    ------
    NotFoundError
        The client has no such batch.
    ClientSuspendedError
        The client may not deliver at present.
    BatchIncompleteError
        It is not sealed yet.
    BatchClosedError
        It was canceled or has expired, or its files were purged and are needed.
    JobActiveError
        It is being worked on, or retention is about to take a layer of it.
    NothingStagedError
        No earlier attempt left rows that were staged under this contract.
    """
    client = reading.client_of(principal)
    batch = ledger.find(session, client, batch_id, lock=True)
    registry.active_client(session, client)
    if batch.state == "open":
        raise BatchIncompleteError("The batch is not sealed.")
    if batch.state != "sealed" and not (batch.state == "purged" and source == "staged"):
        ledger.require_open(batch)
    if reading.is_active(session, batch_id) or layers.is_being_purged(session, batch_id):
        raise job_states.JobActiveError
    start = pinning.chosen(session, client, batch.project, batch_id, contract)
    if source == "staged":
        start = _staged(session, batch_id, start)
    return job_states.queue_job(
        session,
        client=client,
        project=batch.project,
        batch_id=batch_id,
        cause="replay",
        created_by=principal.subject,
        reason=reason,
        start=start,
    )


def _staged(session: Session, batch_id: str, start: pinning.Start) -> pinning.Start:
    purged_at = layers.purged_at(session, batch_id, "staged")
    job = pinning.last_staged(session, batch_id, start.contract_sha256, after=purged_at)
    if job is None:
        raise NothingStagedError("Replay it from landing.")
    return replace(start, staged_job=job.id)


def _check(
    files: Sequence[File], listed: Sequence[ListedFile] | None, stands: Mapping[Stand, bool]
) -> None:
    faults = list(_unfinished(files))
    if listed is not None:
        faults += _unlike(files, listed)
    if not files and not faults:
        faults = [Fault("files", "the batch has no files", "empty")]
    if not faults:
        faults = list(_damaged(files, stands))
    if faults:
        raise BatchIncompleteError("See errors.", errors=faults)


def _unfinished(files: Sequence[File]) -> Iterator[Fault]:
    for file in files:
        if file.state == "pending":
            yield _fault(file.name, "is not completely received", "unfinished")
        elif file.state == "error":
            yield _fault(file.name, "is damaged: delete it and send it again", "damaged")


def _unlike(files: Sequence[File], listed: Sequence[ListedFile]) -> Iterator[Fault]:
    here = {file.name: file for file in files}
    wanted = {each.name for each in listed}
    for each in listed:
        file = here.get(each.name)
        if file is None:
            yield _fault(each.name, "is listed and was not received", "missing")
        elif file.state == "complete" and not _is_same(file, each):
            yield _fault(each.name, "is not the file that is listed", "different")
    for name in here.keys() - wanted:
        yield _fault(name, "was received and is not listed", "surplus")


def _is_same(file: File, listed: ListedFile) -> bool:
    return (listed.size_bytes in {None, file.size_bytes}) and (listed.sha256 in {None, file.sha256})


def _damaged(files: Sequence[File], stands: Mapping[Stand, bool]) -> Iterator[Fault]:
    """Find files that were lost or cut since they were received. Their bytes are not read."""
    for file in files:
        found = stands.get((file.name, file.upload))
        if found is None:
            raise _UnseenError
        if not found:
            yield _fault(file.name, "is damaged: delete it and send it again", "damaged")


def _stands(zone: Zone, path: BatchPath, file: Row[str, str, int | None]) -> bool:
    try:
        opened, size_bytes = zone.open_file(path, file.name)
    except FileNotFoundError:
        return False
    opened.close()
    return bool(size_bytes == file.size_bytes)


def _fault(name: str, detail: str, code: str) -> Fault:
    return Fault(f"files/{name}", detail, code)
