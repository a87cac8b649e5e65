"""Tasks that ask for leases, and ways to look at what became of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import psycopg2
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from gateway.audit.model import AuditEvent
from gateway.database import new_id
from gateway.jobs import states
from gateway.jobs.model import Job
from gateway.leases.lending import Lending
from gateway.leases.model import Lease
from gateway.leases.resources.driver import Connection, Purpose
from gateway.leases.views import LeaseRequest

ACTOR = "svc-airflow-api"


def wanted(job: Job, resource: str = "postgres", **fields: Any) -> dict[str, Any]:
    """Return what a task of a job asks with."""
    return {
        "resource": resource,
        "dag_id": f"{job.client}__{job.project}",
        "run_id": f"gw.{job.id}",
        "task_id": "process",
        "map_index": -1,
        "try_number": 1,
        **fields,
    }


@dataclass
class Desk:
    """The ledger, what lends, and what was lent."""

    sessions: sessionmaker[Session]
    lending: Lending

    def running(self, client: str = "acme", project: str = "flights") -> Job:
        with self.sessions.begin() as session:
            job = states.queue_job(
                session,
                client=client,
                project=project,
                batch_id=new_id("bat"),
                cause="seal",
                created_by=f"{client}-uploader",
            )
            found = states.move(session, job.id, "running")
            assert found is not None
            return found

    def ask(self, job: Job, resource: str = "postgres", **fields: Any) -> tuple[Lease, Connection]:
        request = LeaseRequest.model_validate(wanted(job, resource, **fields))
        return self.lending.issue(request, actor=ACTOR)

    def lease(self, lease_id: str) -> Lease:
        with self.sessions.begin() as session:
            return session.get_one(Lease, lease_id)

    def move(self, job: Job, state: Any) -> None:
        with self.sessions.begin() as session:
            assert states.move(session, job.id, state) is not None

    def age(self, lease_id: str, **columns: float) -> None:
        """Move moments of a lease so many seconds into the past."""
        values = {
            name: getattr(Lease, name) - timedelta(seconds=seconds)
            for name, seconds in columns.items()
        }
        with self.sessions.begin() as session:
            session.execute(update(Lease).where(Lease.id == lease_id).values(values))

    def due(self, lease_id: str) -> None:
        """Have the reaper look at a lease now."""
        with self.sessions.begin() as session:
            moment = func.clock_timestamp()
            session.execute(update(Lease).where(Lease.id == lease_id).values(due_at=moment))

    def actions(self, lease_id: str) -> list[str]:
        query = select(AuditEvent.action).where(AuditEvent.subject == lease_id)
        with self.sessions.begin() as session:
            return list(session.scalars(query.order_by(AuditEvent.number)))

    def but(self, **changed: Any) -> Lending:
        """Return a lending of other settings."""
        config = self.lending.config.model_copy(update=changed)
        return replace(self.lending, config=config)

    def clear(self) -> None:
        """Leave nothing behind in the servers of the session."""
        with self.sessions.begin() as session:
            query = select(Lease).where(Lease.state != "revoked")
            left = [(each.driver, each.handle) for each in session.scalars(query)]
        for driver, handle in left:
            self.lending.resources.known[driver].revoke(handle)


def purpose(client: str, project: str = "flights") -> Purpose:
    """Return a purpose that no ledger knows, for a driver alone."""
    return Purpose(new_id("lea"), client, project, new_id("bat"))


def connected(found: Connection, **changed: Any) -> Any:
    """Sign in to Postgres as a task does."""
    connection = psycopg2.connect(
        host=found.host,
        port=found.port,
        dbname=changed.get("dbname", found.schema),
        user=found.login,
        password=found.password,
    )
    connection.autocommit = True
    return connection


def asked(connection: Any, statement: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else None
