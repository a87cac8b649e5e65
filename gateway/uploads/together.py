"""Many small files in one transaction: admitted, published and written down together.

Each is durable already, under no name. This takes only what is plainly within every rule; whatever
is not (a name that is there, a batch that is sealed, a limit that is reached) is left to the way
of a single file, which knows the exceptions and how to word a refusal.

Locks are taken in the order of everybody: client, batches by id, feed, audit.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from gateway import database
from gateway.audit import actions, trail
from gateway.batches.views import FileView
from gateway.clients import usage
from gateway.events import feed
from gateway.landing.zone import BatchPath, Gathering
from gateway.uploads import tally
from gateway.uploads.small import Ready
from gateway.uploads.tally import Tally


def store(
    session: Session, zone: Gathering, client: str, files: Sequence[Ready]
) -> list[FileView | None]:
    """Store what can be stored of one client's files; None stands for each that was left alone.

    They may be acknowledged once ``session`` commits. If it does not, they are published and
    unknown: ``settle``.
    """
    found = tally.look(session, client, files)
    fitting = [place for place, file in enumerate(files) if found.take(file)]
    wanted = [
        (files[each].part, found.path(files[each]), files[each].small.name.text) for each in fitting
    ]
    taken = zone.publish_all(wanted)
    stored = [each for place, each in enumerate(fitting) if place not in taken]
    if stored:
        _write(session, found, [files[each] for each in stored])
    views: list[FileView | None] = [None] * len(files)
    for each in stored:
        views[each] = _view(files[each], found.at)
    return views


def _write(session: Session, found: Tally, files: Sequence[Ready]) -> None:
    rows = json.dumps([_row(file, found.at) for file in files], ensure_ascii=False)
    database.later(session, _INSERT, {"rows": rows})
    received: Counter[str] = Counter()
    for file in files:
        received[found.project(file)] += file.stored.size_bytes
    day = usage.day_of(found.at)
    amounts = {(found.client, each, day): amount for each, amount in received.items()}
    usage.add_all(session, amounts)
    facts = [file.facts for file in files]
    told = [
        {"type": actions.FILE_RECEIVED, "subject": each["batch"], "data": each} for each in facts
    ]
    feed.publish_all(session, client=found.client, events=told)
    for file, each in zip(files, facts, strict=True):
        trail.record(
            session,
            actor=file.small.principal.subject,
            action=actions.FILE_RECEIVED,
            client=found.client,
            subject=each["batch"],
            details=each,
            request_id=file.small.request_id,
        )


_INSERT = database.prepared(
    """
WITH new AS (
    INSERT INTO file (batch_id, name, collision_key, state, upload, reserved_bytes, size_bytes,
        sha256, media_type, created_by, created_at, completed_at)
    SELECT batch_id, name, collision_key, 'complete', upload, size_bytes, size_bytes,
        sha256, media_type, created_by, created_at, created_at
    FROM json_populate_recordset(NULL::file, %(rows)s)
    RETURNING batch_id, size_bytes
)
UPDATE batch SET
    reserved_bytes = reserved_bytes + added.size_bytes,
    file_count = file_count + added.files,
    version = version + 1,
    updated_at = clock_timestamp()
FROM (SELECT batch_id, count(*) AS files, sum(size_bytes) AS size_bytes FROM new GROUP BY batch_id)
    AS added
WHERE batch.id = added.batch_id
""",
    rows="json",
)


def _row(file: Ready, at: datetime) -> dict[str, Any]:
    return {
        "batch_id": file.small.batch_id,
        "name": file.small.name.text,
        "collision_key": file.small.name.collision_key,
        "upload": file.upload,
        "size_bytes": file.stored.size_bytes,
        "sha256": file.stored.sha256,
        "media_type": file.small.announced.media_type,
        "created_by": file.small.principal.subject,
        "created_at": at.isoformat(),
    }


def _view(file: Ready, at: datetime) -> FileView:
    return FileView(
        name=file.small.name.text,
        state="complete",
        size_bytes=file.stored.size_bytes,
        sha256=file.stored.sha256,
        media_type=file.small.announced.media_type,
        created_at=at,
        completed_at=at,
    )


def settle(
    session: Session, zone: Gathering, client: str, files: Sequence[Ready]
) -> list[FileView | None]:
    """After a commit that failed, or whose answer was lost: look what became of its files.

    What was written down after all is stored. What has no row is taken back, under the lock that
    an upload needs to adopt it; what somebody else works on by now is theirs.
    """
    ids = {"client": client, "batches": sorted({file.small.batch_id for file in files})}
    locked = session.connection().exec_driver_sql(_LOCK, ids).all()
    projects: dict[str, str] = {row[0]: row[1] for row in locked}
    names = {
        "of": [f.small.batch_id for f in files],
        "keys": [f.small.name.collision_key for f in files],
    }
    known = {(row[0], row[1]): row for row in session.connection().exec_driver_sql(_NOW, names)}
    views: list[FileView | None] = []
    for file in files:
        row = known.get((file.small.batch_id, file.small.name.collision_key))
        is_mine = row is not None and row[2] == file.upload
        views.append(_view(file, row[3]) if row is not None and is_mine else None)
        if row is None and file.small.batch_id in projects:
            place = BatchPath(client, projects[file.small.batch_id], file.small.batch_id)
            zone.retract(file.part, place, file.small.name.text)
    return views


_LOCK = """
SELECT id, project FROM batch WHERE client = %(client)s AND id = ANY(%(batches)s)
ORDER BY id FOR NO KEY UPDATE
"""
_NOW = """
SELECT batch_id, collision_key, upload, created_at FROM file
JOIN unnest(%(of)s::text[], %(keys)s::text[]) AS asked (batch_id, collision_key)
USING (batch_id, collision_key)
"""
