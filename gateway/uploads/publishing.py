"""Giving a finished part its name, where a crash may have left a file of that name before."""

from __future__ import annotations

import contextlib
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from gateway import logs
from gateway.landing.zone import NameTakenError, Stored, Zone
from gateway.uploads import completion
from gateway.uploads.admission import UploadConflictError
from gateway.uploads.rows import Admission

log = logs.get("uploads")


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
        # The lock makes sure that no other upload's file is acknowledged meanwhile.
        completion.require_mine(session, admission)
        with contextlib.suppress(FileNotFoundError):
            zone.quarantine(place, name)
            log.warning("orphan_quarantined", upload=admission.upload)
    try:
        zone.publish(part, place, name)
    except NameTakenError:
        raise UploadConflictError from None
