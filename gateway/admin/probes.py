"""Is everything there? Each dependency asked on its own; and numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from gateway import logs
from gateway.jobs.model import Job
from gateway.leases.model import Lease
from gateway.outbox.model import Message

log = logs.get("probes")


def database_answers(engine: Engine) -> None:
    """Ask Postgres for nothing in particular."""
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))


def airflow_as_seen(sessions: sessionmaker[Session]) -> str:
    """Return how the worker last found Airflow: ``ok``, ``unavailable``, or ``unknown``.

    Read off the jobs that wait for it. The API's processes do not speak to Airflow themselves.
    """
    waiting = select(Job.id).where(
        Job.state.in_(("queued", "blocked")), Job.waiting_reason.like("airflow-%")
    )
    try:
        with sessions.begin() as session:
            return "unavailable" if session.scalars(waiting.limit(1)).first() else "ok"
    except SQLAlchemyError:
        return "unknown"


def leases_as_seen(sessions: sessionmaker[Session]) -> str:
    """Return ``ok``, or ``irrevocable`` where somebody has to look after a credential."""
    stuck = select(Lease.id).where(Lease.state == "irrevocable").limit(1)
    try:
        with sessions.begin() as session:
            return "irrevocable" if session.scalars(stuck).first() else "ok"
    except SQLAlchemyError:
        return "unknown"


def ask(checks: dict[str, Callable[[], Any]]) -> dict[str, str]:
    """Return ``ok`` or ``unavailable`` for each check; a check fails by raising."""
    return {name: _outcome(name, check) for name, check in checks.items()}


def _outcome(name: str, check: Callable[[], Any]) -> str:
    try:
        check()
    except Exception as error:  # noqa: BLE001 - whatever it is, the part is not usable
        log.warning("dependency_unavailable", dependency=name, kind=type(error).__name__)
        return "unavailable"
    return "ok"


class _Backlog:
    """Gauges read from the database at each scrape; no client's name among their labels."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self.sessions = sessions

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges (the protocol of prometheus_client's collectors)."""
        with self.sessions.begin() as session:
            messages = _counts(session, Message.topic, Message.state, Message.state != "done")
            jobs = _counts(session, Job.state, Job.cause, Job.finished_at.is_(None))
            leases = _counts(session, Lease.resource, Lease.state, Lease.state != "revoked")
        yield _gauge("gateway_outbox_messages", "Messages not done", ["topic", "state"], messages)
        yield _gauge("gateway_jobs_unfinished", "Jobs not finished", ["state", "cause"], jobs)
        yield _gauge("gateway_leases", "Leases not revoked", ["resource", "state"], leases)


def _counts(session: Session, first: Any, second: Any, condition: Any) -> list[Any]:
    query = select(first, second, func.count()).where(condition).group_by(first, second)
    return list(session.execute(query))


def _gauge(name: str, text_: str, labels: list[str], rows: list[Any]) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, text_, labels=labels)
    for *values, count in rows:
        gauge.add_metric(values, count)
    return gauge


def metrics(sessions: sessionmaker[Session]) -> bytes:
    """Return the metrics in Prometheus's text format."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Backlog(sessions))
    return generate_latest(registry)
