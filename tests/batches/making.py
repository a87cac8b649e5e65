"""Makes batches and files for the tests of batches, without a door."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from gateway.batches import ledger, seal
from gateway.batches.model import Batch, File
from gateway.batches.views import BatchRequest, ListedFile
from gateway.bootstrap import Services
from gateway.database import new_id
from gateway.identity.access import Principal
from gateway.jobs.model import Job
from gateway.landing.zone import BatchPath
from gateway.settings import Batches


def principal(client: str = "acme", subject: str = "") -> Principal:
    return Principal(
        subject=subject or f"{client}-uploader",
        kind="service",
        client=client,
        scopes=frozenset({"batches:read", "batches:write", "jobs:write"}),
        groups=(),
        jti="1",
        expires_at=2**33,
    )


ACME = principal()
GLOBEX = principal("globex")


def opened(
    sessions: sessionmaker[Session], reference: str = "2013", who: Principal = ACME, **fields: Any
) -> Batch:
    project = "flights" if who.client == "acme" else "weather"
    wanted = BatchRequest.model_validate({"project": project, "reference": reference, **fields})
    with sessions.begin() as session:
        return ledger.open_batch(session, who, wanted, batches=Batches())


def landed(
    services: Services, batch: Batch, name: str = "a.csv", content: bytes = b"id\n1\n"
) -> str:
    """Put a file into the zone and the ledger, as an upload does; return its digest."""
    upload = new_id("upl")
    part = services.zone.open_part(upload, len(content))
    part.write([content])
    part.finish()
    services.zone.publish(part, path(batch), name)
    digest = hashlib.sha256(content).hexdigest()
    row(services.sessions, batch, name, upload, size_bytes=len(content), sha256=digest)
    return digest


def row(
    sessions: sessionmaker[Session], batch: Batch, name: str, upload: str = "u", **facts: Any
) -> None:
    state = "complete" if facts else "pending"
    with sessions.begin() as session:
        values = {"collision_key": name, "reserved_bytes": 0, "created_by": "acme-uploader"}
        session.add(
            File(batch_id=batch.id, name=name, upload=upload, **{"state": state, **values, **facts})
        )
        count = {"file_count": Batch.file_count + 1}
        session.execute(update(Batch).where(Batch.id == batch.id).values(count))


def path(batch: Batch) -> BatchPath:
    return BatchPath(batch.client, batch.project, batch.id)


@dataclass
class Sealer:
    """Seals batches the way the door does."""

    services: Services

    def __call__(
        self, batch: Batch, listed: list[dict[str, Any]] | None = None, who: Principal = ACME
    ) -> tuple[Batch, Job]:
        files = None if listed is None else [ListedFile.model_validate(each) for each in listed]
        parts = self.services
        return seal.carry_out(parts.sessions, who, parts.zone, parts.keys, batch.id, files)


def sealed(services: Services) -> Batch:
    """Open a batch, put a file into it and seal it."""
    made = opened(services.sessions)
    landed(services, made)
    Sealer(services)(made)
    return made
