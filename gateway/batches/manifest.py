"""The manifest: the immutable list of a sealed batch's files, and the same signed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

import rfc8785
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.batches.model import Batch, File, Manifest
from gateway.errors import NotFoundError
from gateway.identity.tokens import KeyRing

CONTRACT = 1
DOCUMENT = "manifest.json"
RECEIPT = "receipt.jws"


def document_of(batch: Batch, files: Sequence[File], sealed_at: datetime) -> bytes:
    """Return the manifest in its one canonical form (RFC 8785), files in order of name."""
    period = {"start": batch.period_start, "end": batch.period_end}
    listed = [
        {"name": file.name, "sha256": file.sha256, "size_bytes": file.size_bytes}
        for file in sorted(files, key=lambda each: each.name)
    ]
    return rfc8785.dumps(
        {
            "contract": CONTRACT,
            "batch": batch.id,
            "client": batch.client,
            "project": batch.project,
            "reference": batch.reference,
            "mode": batch.mode,
            "period": period if batch.period_start else None,
            "metadata": batch.details,
            "supersedes": batch.supersedes,
            "sealed_at": sealed_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "files": listed,
        }
    )


def issue(
    session: Session, keys: KeyRing, batch: Batch, files: Sequence[File], sealed_at: datetime
) -> Manifest:
    """Write a batch's manifest and its receipt into the ledger."""
    document = document_of(batch, files, sealed_at)
    manifest = Manifest(
        batch_id=batch.id,
        document=document,
        sha256=hashlib.sha256(document).hexdigest(),
        receipt=keys.sign_bytes(document),
    )
    session.add(manifest)
    session.flush()
    return manifest


def of(session: Session, client: str, batch_id: str) -> Manifest:
    """Return the manifest of a client's batch.

    Raises
    ------
    NotFoundError
        The client has no such batch, or it is not sealed.
    """
    query = (
        select(Manifest)
        .join(Batch, Batch.id == Manifest.batch_id)
        .where(Batch.client == client, Batch.id == batch_id)
    )
    # A NUL, which Postgres takes for no text, cannot be part of an id either.
    found = None if "\x00" in batch_id else session.scalars(query).one_or_none()
    if found is None:
        raise NotFoundError
    return found


def documents(manifest: Manifest) -> dict[str, bytes]:
    """Return what lies beside a batch's files before its run is triggered, by name."""
    return {DOCUMENT: manifest.document, RECEIPT: manifest.receipt.encode()}
