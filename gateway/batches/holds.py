"""Legal holds: what is under one is kept, whatever retention says."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, exists, or_, select
from sqlalchemy.orm import Session

from gateway import database
from gateway.audit import actions, trail
from gateway.batches.model import Batch, LegalHold
from gateway.clients.registry import Client, Project
from gateway.errors import NotFoundError


def is_held() -> ColumnElement[bool]:
    """Return the condition, in a query of ``Batch``, that a hold covers the batch."""
    return exists().where(
        LegalHold.lifted_at.is_(None),
        LegalHold.client == Batch.client,
        or_(LegalHold.project.is_(None), LegalHold.project == Batch.project),
        or_(LegalHold.batch_id.is_(None), LegalHold.batch_id == Batch.id),
    )


def put(
    session: Session,
    client: str,
    *,
    project: str | None = None,
    batch_id: str | None = None,
    reason: str,
    actor: str,
) -> LegalHold:
    """Hold a client's deliveries, those of a project, or one batch.

    Raises
    ------
    NotFoundError
        There is no such client, project or batch.
    """
    _require_there(session, client, project, batch_id)
    hold = LegalHold(
        id=database.new_id("hld"),
        client=client,
        project=project,
        batch_id=batch_id,
        reason=reason,
        set_by=actor,
    )
    session.add(hold)
    session.flush()
    _record(session, hold, actions.HOLD_SET, actor)
    return hold


def lift(session: Session, hold_id: str, *, actor: str) -> LegalHold:
    """End a hold; again is no error.

    Raises
    ------
    NotFoundError
        There is no such hold.
    """
    hold = session.get(LegalHold, hold_id, with_for_update=True, populate_existing=True)
    if hold is None:
        raise NotFoundError
    if hold.lifted_at is None:
        hold.lifted_at, hold.lifted_by = database.now(session), actor
        session.flush()
        _record(session, hold, actions.HOLD_LIFTED, actor)
    return hold


def in_force(session: Session) -> Sequence[LegalHold]:
    """Return the holds that nobody has lifted, oldest first."""
    query = select(LegalHold).where(LegalHold.lifted_at.is_(None)).order_by(LegalHold.id)
    return session.scalars(query).all()


def _require_there(
    session: Session, client: str, project: str | None, batch_id: str | None
) -> None:
    is_there = session.get(Client, client) is not None
    if project is not None:
        is_there &= session.get(Project, (client, project)) is not None
    if batch_id is not None:
        query = select(Batch.id).where(Batch.client == client, Batch.id == batch_id)
        if project is not None:
            query = query.where(Batch.project == project)
        # Locked, so that a purge which is being decided is decided before this or sees it.
        is_there &= session.scalar(query.with_for_update(key_share=True)) is not None
    if not is_there:
        raise NotFoundError


def _record(session: Session, hold: LegalHold, action: str, actor: str) -> None:
    details = {"project": hold.project, "batch": hold.batch_id, "reason": hold.reason}
    trail.record(
        session,
        actor=actor,
        action=action,
        client=hold.client,
        subject=hold.id,
        details={name: value for name, value in details.items() if value is not None},
    )
