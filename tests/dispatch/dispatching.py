"""What tests of the messenger start from: sealed batches whose jobs wait for a run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update

from gateway.audit.model import AuditEvent
from gateway.batches import ledger, seal
from gateway.batches.model import File
from gateway.batches.views import BatchRequest
from gateway.bootstrap import Services
from gateway.database import new_id
from gateway.dispatch import trigger
from gateway.dispatch.messenger import Messenger
from gateway.identity.access import Principal
from gateway.jobs import reading, states
from gateway.jobs.model import Job
from gateway.jobs.views import ProgressReport
from gateway.landing.zone import BatchPath
from gateway.outbox import queue
from gateway.outbox.model import Message
from gateway.outbox.queue import Claim
from tests.fakes.airflow_server import AirflowServer

CONTENT = b"id,note\n1,one\n"
SCOPES = frozenset({"batches:read", "batches:write", "jobs:write"})


def principal(client: str) -> Principal:
    """Return a service account of a client."""
    return Principal(f"svc-{client}", "service", client, SCOPES, (), "jti", 2**40)


@dataclass
class Desk:
    """The messenger's parts, the Airflow it goes to, and shorthand for both."""

    services: Services
    airflow: AirflowServer

    def __post_init__(self) -> None:
        built = self.services
        self.parts = Messenger(
            built.settings, built.sessions, built.zone, built.keys, built.airflow_api
        )

    def seal(self, client: str = "acme", project: str = "flights") -> str:
        """Deliver and seal a batch of one file; return its job's id."""
        caller, zone = principal(client), self.services.zone
        with self.services.sessions.begin() as session:
            wanted = BatchRequest(project=project, reference=new_id("ref"))
            batches = self.services.settings.batches
            batch = ledger.open_batch(session, caller, wanted, batches=batches)
            session.add(complete_file(batch.id))
        path = BatchPath(client, project, batch.id)
        part = zone.open_part(new_id("upl"), len(CONTENT))
        part.write([CONTENT])
        part.finish()
        zone.publish(part, path, "rows.csv")
        sessions, keys = self.services.sessions, self.services.keys
        _, job = seal.carry_out(sessions, caller, zone, keys, batch.id)
        return job.id

    def claim(self, topic: str = "job.trigger", claim_seconds: int = 30) -> Claim:
        """Claim the one message that is due; wait for it where it was deferred."""
        found = until(lambda: self._claim(topic, claim_seconds), seconds=20)
        claim: Claim = found[0]
        return claim

    def _claim(self, topic: str, claim_seconds: int) -> list[Claim]:
        with self.services.sessions.begin() as session:
            return queue.claim(session, topics=[topic], limit=1, claim_seconds=claim_seconds)

    def carry(self) -> Claim:
        """Claim and carry one trigger message, without waiting where it was deferred."""
        with self.services.sessions.begin() as session:
            pending = update(Message).where(Message.state == "pending")
            session.execute(pending.values(available_at=func.clock_timestamp()))
        claim = self.claim()
        trigger.carry(self.parts, claim)
        return claim

    def dispatch(self, client: str = "acme", project: str = "flights") -> str:
        """Seal a batch and have its run started; return the job's id."""
        job_id = self.seal(client, project)
        self.carry()
        assert self.job(job_id).state == "dispatched"
        return job_id

    def replay(self, job_id: str) -> str:
        """Have a job's batch processed again; return the new job's id."""
        with self.services.sessions.begin() as session:
            job = session.get_one(Job, job_id)
            return seal.replay(session, principal(job.client), job.batch_id, "lost").id

    def job(self, job_id: str) -> Job:
        """Return a job as it stands."""
        with self.services.sessions.begin() as session:
            return session.get_one(Job, job_id)

    def message(self, job_id: str, topic: str = "job.trigger") -> Message:
        """Return a job's message as it stands."""
        with self.services.sessions.begin() as session:
            query = select(Message).where(Message.key == job_id, Message.topic == topic)
            return session.scalars(query).one()

    def actions(self, job_id: str) -> list[str]:
        """Return what the audit trail holds of a job."""
        with self.services.sessions.begin() as session:
            query = select(AuditEvent.action).where(AuditEvent.subject == job_id)
            return list(session.scalars(query.order_by(AuditEvent.number)))

    def cancel(self, job_id: str) -> None:
        """Cancel a job as its client would."""
        with self.services.sessions.begin() as session:
            client = session.get_one(Job, job_id).client
            states.cancel(session, client, job_id, actor="acme-operator")

    def report(self, job_id: str, step: str = "publish", **fields: Any) -> None:
        """Say what a task of the job's run would say."""
        job = self.job(job_id)
        said = {
            "dag_id": f"{job.client}__{job.project}",
            "run_id": f"gw.{job.id}",
            "task_id": step,
            "map_index": -1,
            "try_number": 1,
            "step": step,
            "state": "succeeded",
            "total": 1,
            "rows": {"read": 1, "loaded": 1, "rejected": 0},
            "rejects": [],
        }
        with self.services.sessions.begin() as session:
            states.report(session, job_id, ProgressReport(**(said | fields)))

    def view(self, job_id: str) -> Any:
        """Return a job as its client sees it."""
        with self.services.sessions.begin() as session:
            return reading.view(session, session.get_one(Job, job_id))


def complete_file(batch_id: str) -> File:
    """Return the row of a batch's only file."""
    return File(
        batch_id=batch_id,
        name="rows.csv",
        collision_key="rows.csv",
        state="complete",
        upload=new_id("upl"),
        reserved_bytes=len(CONTENT),
        size_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        created_by="svc-acme",
    )


def until(check: Callable[[], Any], seconds: float = 10) -> Any:
    """Return what ``check`` returns once it is something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come about")


@contextmanager
def timed() -> Iterator[Callable[[], float]]:
    """Measure the seconds that a block takes."""
    start = time.monotonic()
    yield lambda: time.monotonic() - start
