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
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from gateway import database
from gateway.audit import actions, trail
from gateway.batches.views import FileView
from gateway.clients import limits, usage
from gateway.clients.limits import Limits
from gateway.clients.registry import Client, Project
from gateway.events import feed
from gateway.identity import access
from gateway.identity.access import Principal
from gateway.landing.names import FileName
from gateway.landing.zone import BatchPath, Chunk, Gathering, Part, Stored, Zone
from gateway.uploads import completion
from gateway.uploads.admission import most_bytes
from gateway.uploads.announced import Announced

SMALL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Small:
    """A small file that came whole, and what its sender said of it."""

    principal: Principal
    batch_id: str
    name: FileName
    announced: Announced
    request_id: str | None
    content: Sequence[Chunk]


@dataclass(frozen=True, slots=True)
class Ready:
    """A small file that is durable in its part."""

    small: Small
    upload: str
    part: Part
    stored: Stored

    @property
    def facts(self) -> dict[str, Any]:
        """Return what the trail and the feed say of it."""
        return completion.facts(self.small.batch_id, self.small.name.text, self.stored)


def write(zone: Zone, small: Small) -> Ready:
    """Make a small file's bytes durable, under no name; blocks.

    Raises
    ------
    InvalidRequestError, DigestMismatchError
        They are not what was announced.
    InsufficientStorageError, StorageUnavailableError
    """
    upload = database.new_id("upl")
    part = zone.open_part(upload, small.announced.size_bytes)
    try:
        part.write(small.content)
        stored = part.finish()
        small.announced.check(stored)
    except BaseException:
        part.abort()
        raise
    return Ready(small, upload, part, stored)


def store(
    session: Session, zone: Gathering, client: str, files: Sequence[Ready]
) -> list[FileView | None]:
    """Store what can be stored of one client's files; None stands for each that was left alone.

    They may be acknowledged once ``session`` commits. If it does not, they are published and
    unknown: ``settle``.
    """
    found = _look(session, client, files)
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


class _Batch:
    """What a batch holds and may hold, while its files are counted in."""

    def __init__(self, row: dict[str, Any], held: Limits) -> None:
        self.project: str = row["project"]
        self.is_open = row["state"] == "open"
        self.reserved_bytes: int = row["reserved_bytes"]
        self.file_count: int = row["file_count"]
        self.held = held


class _Found:
    """What the database says while its rows are locked, and what was taken since."""

    def __init__(self, session: Session, client: str, at: datetime, rows: dict[str, Any]) -> None:
        self.client = client
        self.at = at
        self.revoked: frozenset[str] = frozenset()
        row = rows["client"] or {"state": "gone", "limits": {}}
        owner = Client(name=client, **row)
        self._may_deliver = owner.state == "active"
        self._names = {(batch, key) for batch, key in rows["names"] or ()}
        self._batches: dict[str, _Batch] = {}
        self._with_slot: set[str] = set()
        self._day_left: dict[str, int | None] = {}
        pending = {each["project"]: each["files"] for each in rows["pending"] or ()}
        held = limits.of(owner)
        self._may_deliver &= sum(pending.values()) < held.uploads_in_flight
        for each in rows["batches"] or ():
            project = Project(client=client, name=each["project"], limits=each["limits"])
            own = limits.for_project(owner, project)
            self._batches[each["id"]] = _Batch(each, own)
            if project.name not in self._day_left:
                day = usage.day_of(at)
                self._day_left[project.name] = usage.room_left(session, owner, project, day)
            if pending.get(project.name, 0) < own.uploads_in_flight:
                self._with_slot.add(project.name)

    def take(self, file: Ready) -> bool:
        """Say whether a file is within every rule, and count it in if it is."""
        batch = self._batches.get(file.small.batch_id)
        if not (self._may_deliver and batch and batch.is_open):
            return False
        key = (file.small.batch_id, file.small.name.collision_key)
        left = self._day_left[batch.project]
        size_bytes = file.stored.size_bytes
        if (
            key in self._names
            or file.small.principal.jti in self.revoked
            or batch.project not in self._with_slot
            or batch.file_count >= batch.held.files_per_batch
            or size_bytes > most_bytes(batch.held, batch.reserved_bytes, left)
        ):
            return False
        self._names.add(key)
        batch.file_count += 1
        batch.reserved_bytes += size_bytes
        # What one project takes of the day may be the client's: less is left to all of them.
        for project, room in self._day_left.items():
            self._day_left[project] = None if room is None else room - size_bytes
        return True

    def path(self, file: Ready) -> BatchPath:
        """Return where a file's batch lies."""
        return BatchPath(self.client, self.project(file), file.small.batch_id)

    def project(self, file: Ready) -> str:
        """Return the project that a file belongs to."""
        return self._batches[file.small.batch_id].project


def _look(session: Session, client: str, files: Sequence[Ready]) -> _Found:
    values = {
        "client": client,
        "batches": sorted({file.small.batch_id for file in files}),
        "of": [file.small.batch_id for file in files],
        "keys": [file.small.name.collision_key for file in files],
    }
    at, rows = session.connection().exec_driver_sql(_LOOK, values).one()
    found = _Found(session, client, at, rows)
    # Asked under the locks: what was revoked before this transaction commits nothing.
    found.revoked = access.revoked(session, [file.small.principal for file in files])
    return found


# The last statement's snapshot is taken when the locks are held: it sees what they waited for.
_LOOK = """
SELECT FROM client WHERE name = %(client)s FOR NO KEY UPDATE;
SELECT FROM batch WHERE client = %(client)s AND id = ANY(%(batches)s)
ORDER BY id FOR NO KEY UPDATE;
SELECT clock_timestamp(), json_build_object(
    'client', (SELECT json_build_object('state', state, 'limits', limits)
        FROM client WHERE name = %(client)s),
    'batches', (SELECT json_agg(json_build_object('id', batch.id, 'project', batch.project,
            'state', batch.state, 'reserved_bytes', reserved_bytes, 'file_count', file_count,
            'limits', project.limits))
        FROM batch
        JOIN project ON project.client = batch.client AND project.name = batch.project
        WHERE batch.client = %(client)s AND id = ANY(%(batches)s)),
    'names', (SELECT json_agg(json_build_array(batch_id, collision_key))
        FROM file
        JOIN unnest(%(of)s::text[], %(keys)s::text[]) AS asked (batch_id, collision_key)
        USING (batch_id, collision_key)),
    'pending', (SELECT json_agg(json_build_object('project', project, 'files', files))
        FROM (SELECT batch.project, count(*) AS files FROM file
            JOIN batch ON batch.id = file.batch_id
            WHERE file.state = 'pending' AND batch.state = 'open' AND batch.client = %(client)s
            GROUP BY batch.project) AS moving)
)
"""


def _write(session: Session, found: _Found, files: Sequence[Ready]) -> None:
    rows = json.dumps([_row(file, found.at) for file in files], ensure_ascii=False)
    session.connection().exec_driver_sql(_INSERT, {"rows": rows})
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


_INSERT = """
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
"""


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
