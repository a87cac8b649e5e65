"""The states of a batch: one table of allowed transitions, and the move."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from gateway import database
from gateway.audit import actions, trail
from gateway.batches.model import Batch
from gateway.events import feed

# What a batch may become, and from what.
FROM: Mapping[str, str] = MappingProxyType(
    {"sealed": "open", "canceled": "open", "expired": "open", "purged": "sealed"}
)
_ACTIONS: Mapping[str, str] = MappingProxyType(
    {
        "sealed": actions.BATCH_SEALED,
        "canceled": actions.BATCH_CANCELED,
        "expired": actions.BATCH_EXPIRED,
    }
)


def move(
    session: Session, batch: Batch, to: str, *, actor: str, at: datetime | None = None
) -> bool:
    """Move a batch to another state. False: it is not in the state that leads there."""
    now = at or database.now(session)
    values: dict[str, Any] = {"state": to, "updated_at": now, "version": Batch.version + 1}
    if to == "sealed":
        values["sealed_at"] = now
    statement = (
        update(Batch)
        .where(Batch.id == batch.id, Batch.client == batch.client, Batch.state == FROM[to])
        .values(values)
        .returning(Batch)
        .execution_options(populate_existing=True, synchronize_session=False)
    )
    if session.scalars(statement).one_or_none() is None:
        return False
    tell(session, batch, actor, _ACTIONS.get(to, f"batch.{to}"), to)
    return True


def tell(session: Session, batch: Batch, actor: str, action: str, kind: str) -> None:
    """Record what happened to a batch, and tell its client."""
    facts = {"project": batch.project, "reference": batch.reference, "state": batch.state}
    details = {**facts, "mode": batch.mode, "files": batch.file_count}
    trail.record(
        session,
        actor=actor,
        action=action,
        client=batch.client,
        subject=batch.id,
        details=details,
    )
    feed.publish(session, client=batch.client, type=f"batch.{kind}", subject=batch.id, data=facts)
