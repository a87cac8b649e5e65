"""The ledger of deliveries: opened, listed, canceled, expired."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from gateway import database, settings
from gateway.audit import actions
from gateway.batches import states
from gateway.batches.model import Batch, File
from gateway.batches.views import BATCH_ID, BatchRequest
from gateway.clients import limits, registry, usage
from gateway.clients.registry import Client, Project
from gateway.errors import Fault, GatewayError, InvalidRequestError, NotFoundError
from gateway.identity.access import Principal
from gateway.jobs import reading

GATEWAY = "gateway"
LIVE = ("open", "sealed")


class BatchExistsError(GatewayError):
    """The project has a live batch of this reference; ``Location`` names it."""

    slug = "batch-exists"
    status = 409
    title = "There is a batch of this reference already"


class BatchSealedError(GatewayError):
    """The batch is sealed and never changes again."""

    slug = "batch-sealed"
    status = 409
    title = "The batch is sealed"


class BatchClosedError(GatewayError):
    """The batch was canceled, has expired or was purged."""

    slug = "batch-closed"
    status = 409
    title = "The batch is no longer live"


class QuotaExceededError(GatewayError):
    """The client holds as much as it may at a time."""

    slug = "quota-exceeded"
    status = 429
    title = "A quota of your account is used up"
    retryable = True


def open_batch(
    session: Session, principal: Principal, wanted: BatchRequest, *, batches: settings.Batches
) -> Batch:
    """Open a delivery for the caller's client.

    Raises
    ------
    ClientSuspendedError
        The client may not deliver at present.
    InvalidRequestError
        There is no such project, or no such batch to supersede.
    BatchExistsError
        A live batch has this reference.
    QuotaExceededError
        The client, or the project alone, has as many open batches as it may.
    """
    client = reading.client_of(principal)
    held = _client_locked(session, client)
    project = registry.active_project(session, client, wanted.project)
    _check_superseded(session, client, wanted)
    batch = _inserted(session, principal, client, wanted, batches.open_max_age_seconds)
    _require_slot(session, held, project)
    states.tell(session, batch, principal.subject, actions.BATCH_CREATED, "created")
    return batch


def _client_locked(session: Session, name: str) -> Client:
    # The lock makes those who open batches at once count one after another.
    lock = select(Client.name).where(Client.name == name).with_for_update(key_share=True)
    session.execute(lock)
    return registry.active_client(session, name)


def _check_superseded(session: Session, client: str, wanted: BatchRequest) -> None:
    if wanted.supersedes is None:
        return
    known = exists().where(
        Batch.id == wanted.supersedes, Batch.client == client, Batch.project == wanted.project
    )
    if not session.scalar(select(known)):
        fault = Fault("supersedes", "the project has no such batch", "unknown-batch")
        raise InvalidRequestError(errors=[fault])


def _inserted(
    session: Session, principal: Principal, client: str, wanted: BatchRequest, age_seconds: int
) -> Batch:
    period = wanted.period
    now = database.now(session)
    statement = (
        insert(Batch)
        .values(
            id=database.new_id("bat"),
            client=client,
            project=wanted.project,
            reference=wanted.reference,
            mode=wanted.mode,
            period_start=period.start if period else None,
            period_end=period.end if period else None,
            details=wanted.metadata,
            supersedes=wanted.supersedes,
            created_by=principal.subject,
            created_at=now,
            updated_at=now,
            expires_at=now + timedelta(seconds=age_seconds),
        )
        .on_conflict_do_nothing(
            index_elements=[Batch.client, Batch.project, Batch.reference],
            index_where=Batch.state.in_(LIVE),
        )
        .returning(Batch)
    )
    batch = session.scalars(statement).one_or_none()
    if batch is None:
        raise _exists_already(session, client, wanted)
    return batch


def _exists_already(session: Session, client: str, wanted: BatchRequest) -> BatchExistsError:
    query = select(Batch.id).where(
        Batch.client == client,
        Batch.project == wanted.project,
        Batch.reference == wanted.reference,
        Batch.state.in_(LIVE),
    )
    live = session.scalar(query)
    return BatchExistsError(headers={"Location": f"/v1/batches/{live}"} if live else {})


def _require_slot(session: Session, client: Client, project: Project) -> None:
    """Count the open batches, the new one among them."""
    of_project = func.count().filter(Batch.project == project.name)
    query = select(func.count(), of_project).where(
        Batch.client == client.name, Batch.state == "open"
    )
    in_all, alone = session.execute(query).one()
    if in_all > limits.of(client).open_batches:
        raise QuotaExceededError("Seal or cancel an open batch first.")
    if alone > limits.for_project(client, project).open_batches:
        raise QuotaExceededError("Seal or cancel an open batch of this project first.")


def find(session: Session, client: str, batch_id: str, *, lock: bool = False) -> Batch:
    """Return a client's batch.

    Raises
    ------
    NotFoundError
        The client has no such batch.
    """
    if re.fullmatch(BATCH_ID, batch_id) is None:
        raise NotFoundError
    query = select(Batch).where(Batch.client == client, Batch.id == batch_id)
    if lock:
        query = query.with_for_update(key_share=True)
    batch = session.scalars(query.execution_options(populate_existing=lock)).one_or_none()
    if batch is None:
        raise NotFoundError
    return batch


def files_of(session: Session, batch_id: str) -> list[File]:
    """Return the files of a batch that the caller was given by ``find``, by name."""
    return list(session.scalars(select(File).where(File.batch_id == batch_id).order_by(File.name)))


def page(
    session: Session,
    client: str,
    *,
    project: str | None = None,
    state: str | None = None,
    reference: str | None = None,
    before: str | None = None,
    limit: int = 50,
) -> tuple[list[Batch], str | None]:
    """Return a client's batches, newest first, and where the following page begins."""
    query = select(Batch).where(Batch.client == client).order_by(Batch.id.desc())
    exact = {Batch.project: project, Batch.state: state, Batch.reference: reference}
    for column, value in exact.items():
        if value is not None:
            query = query.where(column == value)
    if before is not None:
        query = query.where(Batch.id < before)
    found = list(session.scalars(query.limit(limit + 1)))
    return found[:limit], found[limit - 1].id if len(found) > limit else None


def require_open(batch: Batch) -> None:
    """Refuse a batch that takes no more files.

    Raises
    ------
    BatchSealedError, BatchClosedError
        By its state.
    """
    if batch.state == "sealed":
        raise BatchSealedError
    if batch.state != "open":
        raise BatchClosedError(f"The batch is {batch.state}.")


def cancel(session: Session, principal: Principal, batch_id: str) -> Batch:
    """Give an open batch up; again is no error. Its files are removed after the commit.

    Raises
    ------
    NotFoundError
        The client has no such batch.
    BatchSealedError
        It is sealed, or was.
    """
    batch = find(session, reading.client_of(principal), batch_id, lock=True)
    if batch.state in {"sealed", "purged"}:
        raise BatchSealedError
    states.move(session, batch, "canceled", actor=principal.subject)
    return batch


def expire_open(session: Session, limit: int) -> list[Batch]:
    """Expire open batches past their time and return them, for their files to be removed."""
    query = (
        select(Batch)
        .where(Batch.state == "open", Batch.expires_at <= func.clock_timestamp())
        .order_by(Batch.expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
    )
    overdue = session.scalars(query).all()
    return [batch for batch in overdue if states.move(session, batch, "expired", actor=GATEWAY)]


def uncleared(session: Session, limit: int) -> Sequence[Batch]:
    """Return canceled and expired batches whose files are still to be removed."""
    query = select(Batch).where(
        Batch.state.in_(("canceled", "expired")), exists().where(File.batch_id == Batch.id)
    )
    return session.scalars(query.order_by(Batch.updated_at).limit(limit)).all()


def clear(session: Session, batch: Batch) -> None:
    """Forget the files of a canceled or expired batch: the landing zone no longer has them.

    What unfinished uploads held of a day's bytes is given back to it.
    """
    ended = update(Batch).where(
        Batch.id == batch.id,
        Batch.client == batch.client,
        Batch.state.in_(("canceled", "expired")),
    )
    values = {"reserved_bytes": 0, "file_count": 0}
    if session.execute(ended.values(values).returning(Batch.id)).first() is None:
        return
    unfinished = delete(File).where(File.batch_id == batch.id, File.state == "pending")
    held: Counter[tuple[str, str, date]] = Counter()
    for row in session.execute(unfinished.returning(File.created_at, File.reserved_bytes)):
        held[batch.client, batch.project, usage.day_of(row.created_at)] -= row.reserved_bytes
    usage.add_all(session, held)
    session.execute(delete(File).where(File.batch_id == batch.id))
