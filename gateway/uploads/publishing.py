"""Giving a finished part its name, and taking names away: each outside every transaction.

A crash may have left a file of that name before.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from gateway import logs
from gateway.landing.zone import NameTakenError, Stored, Zone
from gateway.uploads import completion, holding
from gateway.uploads.admission import UploadConflictError
from gateway.uploads.rows import Admission

log = logs.get("uploads")
PAUSES_SECONDS = (0.05, 0.2, 1.0)


def publish(
    sessions: sessionmaker[Session], zone: Zone, admission: Admission, part: Any, stored: Stored
) -> None:
    """Publish a finished part under its admitted name.

    A published file that no row acknowledges, which a crash left behind, is adopted when it has the
    same bytes; another is set aside, never deleted.

    Raises
    ------
    UploadConflictError
        A newer upload of the name took over.
    InsufficientStorageError, StorageUnavailableError
    """
    place, name = admission.batch, admission.name
    try:
        zone.publish(part, place, name)
    except NameTakenError:
        pass
    else:
        return
    with sessions.begin() as session:
        completion.require_mine(session, admission)
    if zone.adopt(place, name, stored):
        log.info("orphan_adopted", upload=admission.upload)
        return
    with sessions.begin() as session:
        # Held, so that no other upload's file is acknowledged meanwhile.
        holding.take(session, admission)
    with contextlib.suppress(FileNotFoundError):
        zone.quarantine(place, name)
        log.warning("orphan_quarantined", upload=admission.upload)
    _persistently(sessions, lambda session: holding.let_go(session, admission))
    try:
        zone.publish(part, place, name)
    except NameTakenError:
        raise UploadConflictError from None


def remove(sessions: sessionmaker[Session], zone: Zone, withdrawn: Admission) -> None:
    """Remove a file that was withdrawn; its name and room are free once its bytes are gone.

    Raises
    ------
    StorageUnavailableError
        It is in error until it is deleted again, or replaced.
    """
    zone.remove_file(withdrawn.batch, withdrawn.name)
    _persistently(sessions, lambda session: holding.forget(session, withdrawn))


def retract(sessions: sessionmaker[Session], zone: Zone, admission: Admission, part: Any) -> None:
    """Take back what an upload has published that is given up, where nobody can want it.

    Elsewhere it stays: who has the name by now adopts it or sets it aside. The name is let go of
    even where the database drops its sessions meanwhile: the sender's next attempt needs it.

    Raises
    ------
    StorageUnavailableError
    """
    with sessions.begin() as session:
        may_go = holding.may_retract(session, admission)
    if may_go:
        zone.retract(part, admission.batch, admission.name)
        _persistently(sessions, lambda session: holding.let_go(session, admission))


def _persistently(sessions: sessionmaker[Session], work: Callable[[Session], None]) -> None:
    """Carry out a transaction that may be repeated, over new connections where one was lost."""
    for pause_seconds in PAUSES_SECONDS:
        try:
            with sessions.begin() as session:
                work(session)
        except (OperationalError, InterfaceError):
            time.sleep(pause_seconds)
        else:
            return
    with sessions.begin() as session:
        work(session)
