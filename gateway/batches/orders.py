"""A job's order: what its run is told beyond the ids in its conf, signed, beside the manifest."""

from __future__ import annotations

import rfc8785
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.batches.model import Batch
from gateway.clients import registry
from gateway.identity.tokens import KeyRing
from gateway.jobs.model import Job

VERSION = 1
TYPE = "order+jws"
# A delivery that was corrected more often than this replaces the newest of them.
LONGEST_CHAIN = 100


def document_of(session: Session, job: Job, batch: Batch) -> bytes:
    """Return a job's order: its contract and tolerance, where it starts, what it retires."""
    return rfc8785.dumps(
        {
            "version": VERSION,
            "job": job.id,
            "batch": job.batch_id,
            "client": job.client,
            "project": job.project,
            "attempt": job.attempt,
            "contract": registry.kept_contract(session, job.contract_sha256),
            "contract_sha256": job.contract_sha256,
            "on_reject": job.on_reject,
            "from": job.starts_from,
            "staged_job": job.staged_job,
            "retires": retired_by(session, batch),
        }
    )


def retired_by(session: Session, batch: Batch) -> list[str]:
    """Return the batches that this one takes the place of, and those that they did, newest first.

    A correction that never loaded leaves the rows of what it corrected to the next one.
    """
    found: list[str] = []
    older = batch.supersedes
    while older is not None and older not in found and len(found) < LONGEST_CHAIN:
        found.append(older)
        query = select(Batch.supersedes).where(
            Batch.id == older, Batch.client == batch.client, Batch.project == batch.project
        )
        older = session.scalar(query)
    return found


def documents(keys: KeyRing, job: Job, document: bytes) -> dict[str, bytes]:
    """Return what lies beside the batch's manifest before the job's run is triggered, by name."""
    return {f"{job.id}.jws": keys.sign_bytes(document, typ=TYPE).encode()}
