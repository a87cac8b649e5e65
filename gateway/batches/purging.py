"""One round of retention: landed files here, staged and curated rows by the pipeline's program."""

from __future__ import annotations

from sqlalchemy.orm import Session, sessionmaker

from gateway import logs
from gateway.batches import program, retention
from gateway.batches.layers import Layer
from gateway.batches.retention import Purge
from gateway.errors import GatewayError
from gateway.landing.zone import BatchPath, Zone
from gateway.settings import Pipeline

log = logs.get("retention")


def run(sessions: sessionmaker[Session], zone: Zone, config: Pipeline, limit: int) -> int:
    """Decide what goes, remove it, and return how many layers are gone.

    Raises
    ------
    PipelineUnavailableError
        Staged and curated rows wait for the next round.
    """
    with sessions.begin() as session:
        retention.decide(session, "landing", limit)
    gone = sum(_remove(sessions, zone, each) for each in _pending(sessions, limit, "landing"))
    if not config.command:
        return gone
    for layer in ("staged", "curated"):
        with sessions.begin() as session:
            retention.decide(session, layer, limit)
    wanted = _pending(sessions, limit, "staged", "curated")
    if wanted:
        program.run(config, "purge", {"layers": [each.as_json() for each in wanted]})
    for each in wanted:
        _settle(sessions, each)
    return gone + len(wanted)


def _pending(sessions: sessionmaker[Session], limit: int, *layers: Layer) -> list[Purge]:
    with sessions.begin() as session:
        return retention.pending(session, limit, *layers)


def _remove(sessions: sessionmaker[Session], zone: Zone, purge: Purge) -> bool:
    try:
        zone.remove_batch(BatchPath(purge.client, purge.project, purge.batch))
    except GatewayError as error:
        # What is wrong with one batch must not keep the rest from being swept.
        log.warning("batch_not_purged", batch=purge.batch, slug=error.slug)
        return False
    _settle(sessions, purge)
    return True


def _settle(sessions: sessionmaker[Session], purge: Purge) -> None:
    with sessions.begin() as session:
        retention.settle(session, purge)
