"""Has a project's curated tables made again from the batches that are retained."""

from __future__ import annotations

from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session, sessionmaker

from gateway.audit import actions, trail
from gateway.batches import layers, orders, program
from gateway.batches.model import Batch
from gateway.clients import registry
from gateway.clients.registry import Project
from gateway.errors import Fault, GatewayError, NotFoundError
from gateway.identity.tokens import KeyRing
from gateway.jobs.model import Job
from gateway.jobs.pinning import LOADED
from gateway.jobs.reading import ACTIVE
from gateway.settings import Pipeline


class NotRebuildableError(GatewayError):
    """What would be made is not what was loaded; ``errors`` names the batches."""

    slug = "not-rebuildable"
    status = 409
    title = "The tables cannot be made again as they were"


def run(
    sessions: sessionmaker[Session],
    keys: KeyRing,
    config: Pipeline,
    client: str,
    project: str,
    *,
    without_purged: bool,
    actor: str,
) -> dict[str, Any]:
    """Rebuild a project's tables, and return how many rows each has.

    Raises
    ------
    NotFoundError
        There is no such project.
    NotRebuildableError
        A job is active, or batches were purged and are not to be left out.
    PipelineUnavailableError
        The pipeline's program failed; the tables are as they were.
    """
    with sessions.begin() as session:
        said = _order(session, client, project, without_purged=without_purged)
    done = program.run(config, "rebuild", {**said, "jwks": keys.jwks()})
    with sessions.begin() as session:
        trail.record(
            session,
            actor=actor,
            action=actions.CURATED_REBUILT,
            client=client,
            subject=f"{client}/{project}",
            details={"batches": len(said["batches"]), "left_out": said["left_out"], **done},
        )
    return {**done, "left_out": said["left_out"]}


def _order(session: Session, client: str, project: str, *, without_purged: bool) -> dict[str, Any]:
    if session.get(Project, (client, project)) is None:
        raise NotFoundError
    mine = (Job.client == client, Job.project == project)
    if session.scalar(select(exists().where(*mine, Job.state.in_(ACTIVE)))):
        raise NotRebuildableError("A job of the project is active.")
    found = _loaded(session, client, project)
    retired = {each for batch, _ in found for each in orders.retired_by(session, batch)}
    batches, lost = [], []
    for batch, job in found:
        entry = _entry(session, batch, job)
        purged_at = layers.purged_at(session, batch.id, "curated")
        if batch.id in retired or (purged_at is not None and job.created_at <= purged_at):
            continue
        if batch.state == "purged" or entry["contract"] is None:
            lost.append(batch.id)
        else:
            batches.append(entry)
    if lost and not without_purged:
        faults = [Fault(each, "its files are no longer retained", "purged") for each in lost]
        raise NotRebuildableError("Leave them out with --without-purged.", errors=faults)
    return {
        "client": client,
        "project": project,
        "batches": batches,
        "retired": sorted(retired),
        "left_out": lost,
    }


def _loaded(session: Session, client: str, project: str) -> list[tuple[Batch, Job]]:
    """Return the batches that were loaded, each with its last such attempt, in that order."""
    query = (
        select(Batch, Job)
        .join(Job, Job.batch_id == Batch.id)
        .where(
            Batch.client == client,
            Batch.project == project,
            Batch.mode == "load",
            Job.state.in_(LOADED),
        )
        .order_by(Job.finished_at, Job.id)
    )
    last = {batch.id: (batch, job) for batch, job in session.execute(query).all()}
    return sorted(last.values(), key=lambda each: (each[1].finished_at, each[1].id))


def _entry(session: Session, batch: Batch, job: Job) -> dict[str, Any]:
    return {
        "batch": batch.id,
        "job": job.id,
        "attempt": job.attempt,
        "contract": registry.kept_contract(session, job.contract_sha256),
        "on_reject": job.on_reject,
    }
