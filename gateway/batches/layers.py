"""What retention took of batches, layer by layer."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy import exists, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from gateway.batches.model import BatchLayer

Layer = Literal["landing", "staged", "curated"]


def decide(session: Session, batch_id: str, layer: Layer) -> None:
    """Write down that a layer of a batch goes; from now on it counts as gone."""
    values = {"purged_at": func.clock_timestamp(), "cleared_at": None}
    statement = insert(BatchLayer).values(batch_id=batch_id, layer=layer, **values)
    keys = [BatchLayer.batch_id, BatchLayer.layer]
    session.execute(statement.on_conflict_do_update(index_elements=keys, set_=values))


def cleared(session: Session, batch_id: str, layer: Layer) -> bool:
    """Write down that a layer is gone. False: somebody else has done so."""
    statement = (
        update(BatchLayer)
        .where(
            BatchLayer.batch_id == batch_id,
            BatchLayer.layer == layer,
            BatchLayer.cleared_at.is_(None),
        )
        .values(cleared_at=func.clock_timestamp())
    )
    return session.execute(statement.returning(BatchLayer.batch_id)).first() is not None


def purged_at(session: Session, batch_id: str, layer: Layer) -> datetime | None:
    """Return when it was last decided that a layer of a batch goes."""
    found = session.get(BatchLayer, (batch_id, layer))
    return None if found is None else found.purged_at


def is_being_purged(session: Session, batch_id: str) -> bool:
    """Say whether a layer of a batch is to go and is not gone yet."""
    pending = exists().where(BatchLayer.batch_id == batch_id, BatchLayer.cleared_at.is_(None))
    return bool(session.scalar(select(pending)))
