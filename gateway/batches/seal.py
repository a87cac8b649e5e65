"""The seal: a batch's files are what its sender says, and never change again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy.orm import Session

from gateway import database
from gateway.batches import ledger, manifest, states
from gateway.batches.model import Batch, File
from gateway.batches.views import ListedFile
from gateway.clients import registry
from gateway.errors import Fault, GatewayError
from gateway.identity.access import Principal
from gateway.identity.tokens import KeyRing
from gateway.jobs import reading
from gateway.jobs import states as job_states
from gateway.jobs.model import Job
from gateway.landing.zone import BatchPath, Zone


class BatchIncompleteError(GatewayError):
    """What is there is not what was meant; ``errors`` names each file."""

    slug = "batch-incomplete"
    status = 409
    title = "The batch is not complete"


def seal(
    session: Session,
    principal: Principal,
    zone: Zone,
    keys: KeyRing,
    batch_id: str,
    listed: Sequence[ListedFile] | None = None,
) -> tuple[Batch, Job]:
    """Seal a batch: manifest, receipt and first job, or nothing at all.

    Parameters
    ----------
    listed
        Exactly the files that the batch must consist of; None takes what is there.

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
    _check(zone, batch, files, listed)
    now = database.now(session)
    manifest.issue(session, keys, batch, files, now)
    states.move(session, batch, "sealed", actor=principal.subject, at=now)
    return batch, _queue(session, principal, batch)


def _queue(session: Session, principal: Principal, batch: Batch) -> Job:
    return job_states.queue_job(
        session,
        client=batch.client,
        project=batch.project,
        batch_id=batch.id,
        cause="seal",
        created_by=principal.subject,
    )


def replay(session: Session, principal: Principal, batch_id: str, reason: str) -> Job:
    """Process a sealed batch again.

    Raises
    ------
    NotFoundError
        The client has no such batch.
    ClientSuspendedError
        The client may not deliver at present.
    BatchIncompleteError
        It is not sealed yet.
    BatchClosedError
        It was canceled, has expired or was purged.
    JobActiveError
        It is being worked on.
    """
    client = reading.client_of(principal)
    batch = ledger.find(session, client, batch_id, lock=True)
    registry.active_client(session, client)
    if batch.state == "open":
        raise BatchIncompleteError("The batch is not sealed.")
    if batch.state != "sealed":
        ledger.require_open(batch)
    if reading.is_active(session, batch_id):
        raise job_states.JobActiveError
    return job_states.queue_job(
        session,
        client=client,
        project=batch.project,
        batch_id=batch_id,
        cause="replay",
        created_by=principal.subject,
        reason=reason,
    )


def _check(
    zone: Zone, batch: Batch, files: Sequence[File], listed: Sequence[ListedFile] | None
) -> None:
    faults = list(_unfinished(files))
    if listed is not None:
        faults += _unlike(files, listed)
    if not files and not faults:
        faults = [Fault("files", "the batch has no files", "empty")]
    if not faults:
        faults = list(_damaged(zone, batch, files))
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


def _damaged(zone: Zone, batch: Batch, files: Sequence[File]) -> Iterator[Fault]:
    """Find files that were lost or cut since they were received. Their bytes are not read."""
    path = BatchPath(batch.client, batch.project, batch.id)
    for file in files:
        if not _stands(zone, path, file):
            yield _fault(file.name, "is damaged: delete it and send it again", "damaged")


def _stands(zone: Zone, path: BatchPath, file: File) -> bool:
    try:
        opened, size_bytes = zone.open_file(path, file.name)
    except FileNotFoundError:
        return False
    opened.close()
    return size_bytes == file.size_bytes


def _fault(name: str, detail: str, code: str) -> Fault:
    return Fault(f"files/{name}", detail, code)
