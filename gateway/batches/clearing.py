"""Removes what lies in the landing zone of a batch that was given up."""

from __future__ import annotations

from sqlalchemy.orm import Session, sessionmaker

from gateway.batches import ledger
from gateway.batches.model import Batch
from gateway.landing.zone import BatchPath, Zone


def clear(sessions: sessionmaker[Session], zone: Zone, batch: Batch) -> None:
    """Remove a canceled or expired batch's bytes, then its rows and its quota.

    In this order: what is counted is never less than what lies there. What a crash leaves between
    is found by the worker's sweep.

    Raises
    ------
    StorageUnavailableError
    """
    zone.remove_batch(BatchPath(batch.client, batch.project, batch.id))
    with sessions.begin() as session:
        ledger.clear(session, batch)
