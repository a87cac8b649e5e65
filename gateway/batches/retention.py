"""Takes what has had its time: decided in the ledger first, then removed, then written down.

What a crash leaves between is found by the next sweep. While a hold covers a batch, or a job of it
is active, nothing of it is decided; what was decided before a hold came waits for its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Integer, and_, case, cast, exists, func, or_, select
from sqlalchemy.orm import Session

from gateway.audit import actions, trail
from gateway.batches import holds, layers, ledger, states
from gateway.batches.layers import Layer
from gateway.batches.model import Batch, BatchLayer
from gateway.clients.registry import Project
from gateway.jobs.model import Job
from gateway.jobs.reading import ACTIVE


@dataclass(frozen=True, slots=True)
class Purge:
    """A layer of a batch that goes; ``jobs`` are the attempts whose staged rows do."""

    client: str
    project: str
    batch: str
    layer: Layer
    jobs: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return what the pipeline is told."""
        return {
            "client": self.client,
            "project": self.project,
            "batch": self.batch,
            "layer": self.layer,
            "jobs": list(self.jobs),
        }


def decide(session: Session, layer: Layer, limit: int) -> int:
    """Decide of batches past their project's retention that a layer goes; return how many."""
    query = (
        select(Batch)
        .join(Project, and_(Project.client == Batch.client, Project.name == Batch.project))
        .where(
            Batch.state.in_(("sealed", "purged")),
            Batch.sealed_at + _kept_for(layer) <= func.clock_timestamp(),
            ~holds.is_held(),
            ~_has_active_job(),
            _is_there(layer),
        )
        .order_by(Batch.sealed_at)
        .limit(limit)
        .with_for_update(of=Batch, skip_locked=True, key_share=True)
    )
    # Looked at again under the lock: a replay or a hold may have come between.
    found = session.scalars(query).all()
    again = select(Batch.id).where(
        Batch.id.in_([each.id for each in found]), ~holds.is_held(), ~_has_active_job()
    )
    free = set(session.scalars(again))
    for batch in found:
        if batch.id in free:
            _decide(session, batch, layer)
    return len(free)


def _kept_for(layer: Layer) -> ColumnElement[Any]:
    text = Project.retention[layer].astext
    unit = case((func.right(text, 1) == "h", 1), else_=24)
    # What says nothing, or ``forever``, has no number: NULL, which is never past.
    number = cast(func.substring(text, "^[0-9]+"), Integer)
    return func.make_interval(0, 0, 0, 0, number * unit)


def _has_active_job() -> ColumnElement[bool]:
    return exists().where(Job.batch_id == Batch.id, Job.state.in_(ACTIVE))


def _is_there(layer: Layer) -> ColumnElement[bool]:
    """Whether the layer was never taken, or has been filled again by a later attempt."""
    taken = and_(BatchLayer.batch_id == Batch.id, BatchLayer.layer == layer)
    later = exists().where(Job.batch_id == Batch.id, Job.created_at > BatchLayer.purged_at)
    return or_(~exists().where(taken), exists().where(taken, later))


def _decide(session: Session, batch: Batch, layer: Layer) -> None:
    layers.decide(session, batch.id, layer)
    # A batch that is purged already has had a replay, which laid its documents there again.
    is_first = layer == "landing" and states.move(session, batch, "purged", actor=ledger.GATEWAY)
    if not is_first:
        _record(session, batch, layer, actions.LAYER_PURGED)


def pending(session: Session, limit: int, *wanted: Layer) -> list[Purge]:
    """Return what is to be removed now: decided, not yet gone, under no hold."""
    query = (
        select(Batch, BatchLayer.layer)
        .join(BatchLayer, BatchLayer.batch_id == Batch.id)
        .where(BatchLayer.cleared_at.is_(None), BatchLayer.layer.in_(wanted), ~holds.is_held())
        .order_by(BatchLayer.purged_at)
        .limit(limit)
    )
    named: dict[str, Layer] = {"landing": "landing", "staged": "staged", "curated": "curated"}
    return [
        Purge(batch.client, batch.project, batch.id, named[layer], _jobs_of(session, batch.id))
        for batch, layer in session.execute(query).all()
    ]


def _jobs_of(session: Session, batch_id: str) -> tuple[str, ...]:
    return tuple(session.scalars(select(Job.id).where(Job.batch_id == batch_id).order_by(Job.id)))


def settle(session: Session, purge: Purge) -> None:
    """Write down that a layer is gone."""
    batch = ledger.find(session, purge.client, purge.batch, lock=True)
    if not layers.cleared(session, purge.batch, purge.layer):
        return
    if purge.layer == "landing":
        batch.reserved_bytes = 0
    _record(session, batch, purge.layer, actions.LAYER_CLEARED)


def _record(session: Session, batch: Batch, layer: Layer, action: str) -> None:
    trail.record(
        session,
        actor=ledger.GATEWAY,
        action=action,
        client=batch.client,
        subject=batch.id,
        details={"project": batch.project, "reference": batch.reference, "layer": layer},
    )
