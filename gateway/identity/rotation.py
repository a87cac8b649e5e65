"""Rotating the signing keys, with a record of each change."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from gateway.audit import actions, trail
from gateway.identity import keys
from gateway.identity.keys import SigningKey


def rotate(
    database: sessionmaker[Session], keys_dir: Path, *, wait_seconds: float, actor: str
) -> SigningKey:
    """Make a new key, and retire those that have had their time.

    Parameters
    ----------
    wait_seconds
        How long the new key is published before it signs.

    Raises
    ------
    SettingsError
        The keys cannot be read or written, or the last new key is still waiting.
    """
    made = None
    try:
        with database.begin() as session:
            made = keys.rotate(keys_dir, wait_seconds)
            details = {"signs_from": int(made.signs_from)}
            _record(session, actor, actions.KEY_ROTATED, made.kid, details)
    except BaseException:
        # No change without its record.
        if made is not None:
            keys.remove(keys_dir, made)
        raise
    retire(database, keys_dir, actor=actor)
    return made


def retire(database: sessionmaker[Session], keys_dir: Path, *, actor: str) -> int:
    """Destroy the private halves of keys whose last token has expired; return how many.

    Raises
    ------
    SettingsError
        The keys cannot be read or written.
    """
    with database.begin() as session:
        done = keys.retire(keys_dir)
        for kid in done:
            _record(session, actor, actions.KEY_RETIRED, kid, {})
    return len(done)


def _record(session: Session, actor: str, action: str, kid: str, details: dict[str, int]) -> None:
    trail.record(session, actor=actor, action=action, subject=kid, client=None, details=details)
