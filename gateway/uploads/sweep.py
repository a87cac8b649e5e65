"""Gives back what uploads hold that nobody will finish: their process has ended."""

from __future__ import annotations

from sqlalchemy.orm import Session, sessionmaker

from gateway.landing.zone import Zone
from gateway.uploads import completion

LIMIT = 500
# Not at once: the sender's next attempt takes over by itself, which tells a nicer story.
MIN_AGE_SECONDS = 60.0


def run(
    sessions: sessionmaker[Session], zone: Zone, max_age_seconds: float = MIN_AGE_SECONDS
) -> int:
    """Expire dead uploads and remove dead parts that are older; return how many there were."""
    with sessions.begin() as session:
        expired = completion.expire_pending(session, max_age_seconds, LIMIT, zone.is_receiving)
    dead = zone.stale_parts(max_age_seconds)
    for upload in dead:
        zone.remove_part(upload)
    return expired + len(dead)
