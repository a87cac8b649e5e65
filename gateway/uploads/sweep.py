"""Gives back what uploads hold that nobody will finish."""

from __future__ import annotations

from sqlalchemy.orm import Session, sessionmaker

from gateway import logs
from gateway.errors import GatewayError
from gateway.landing.zone import Zone
from gateway.uploads import expiry
from gateway.uploads.model import Upload

log = logs.get("uploads")
LIMIT = 500
# Not at once: the sender's next attempt takes over by itself, which tells a nicer story.
MIN_AGE_SECONDS = 60.0
# A sender that comes back is told for so long that its upload is gone, not that it never was.
REMEMBERED_SECONDS = 7 * 86_400.0


def run(
    sessions: sessionmaker[Session], zone: Zone, max_age_seconds: float = MIN_AGE_SECONDS
) -> int:
    """Expire what is over, and remove parts that belong to nothing; return how many there were.

    Over are uploads whose process has ended, and resumable ones that have rested for too long.
    """
    with sessions.begin() as session:
        stale = expiry.stale(session, max_age_seconds, LIMIT)
        expiry.forget(session, REMEMBERED_SECONDS)
        overdue = expiry.overdue(session, LIMIT)
    expired = 0
    for each in stale:
        if not zone.is_receiving(each.upload, each.batch, each.name):
            with sessions.begin() as session:
                expired += expiry.expire(session, each)
    for upload in overdue:
        expired += _end(sessions, upload)
    return expired + _remove_dead_parts(sessions, zone, max_age_seconds)


def _end(sessions: sessionmaker[Session], upload: Upload) -> bool:
    try:
        with sessions.begin() as session:
            return expiry.end_overdue(session, upload)
    except GatewayError as error:
        # What is wrong with one must not keep the rest from being swept.
        log.warning("upload_not_ended", upload=upload.id, slug=error.slug)
        return False


def _remove_dead_parts(sessions: sessionmaker[Session], zone: Zone, max_age_seconds: float) -> int:
    stale = zone.stale_parts(max_age_seconds)
    with sessions.begin() as session:
        dead = set(stale) - expiry.parts_in_use(session, stale)
    for part in dead:
        zone.remove_part(part)
    return len(dead)
