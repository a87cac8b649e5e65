"""What a client's rows say while they are locked, and which files are plainly within its limits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from gateway import database
from gateway.clients import limits, usage
from gateway.clients.limits import Limits
from gateway.clients.registry import Client, Project
from gateway.identity import access
from gateway.landing.zone import BatchPath
from gateway.uploads.admission import most_bytes
from gateway.uploads.small import Ready


def look(session: Session, client: str, files: Sequence[Ready]) -> Tally:
    """Lock a client's rows and its batches', and read what decides about these files."""
    values = {
        "client": client,
        "batches": sorted({file.small.batch_id for file in files}),
        "of": [file.small.batch_id for file in files],
        "keys": [file.small.name.collision_key for file in files],
        **access.asked(file.small.principal for file in files),
    }
    at, rows = session.connection().exec_driver_sql(_LOOK, values).one()
    return Tally(session, client, at, rows)


# The last statement's snapshot is taken when the locks are held: it sees what they waited for, and
# what was revoked before this transaction commits nothing.
_LOOK = database.prepared(
    "SELECT FROM client WHERE name = %(client)s FOR NO KEY UPDATE",
    """
SELECT FROM batch WHERE client = %(client)s AND id = ANY(%(batches)s)
ORDER BY id FOR NO KEY UPDATE
""",
    f"""
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
        FROM unnest(%(of)s::text[], %(keys)s::text[]) AS asked (batch, key)
        CROSS JOIN LATERAL (
            SELECT batch_id, collision_key FROM file
            WHERE batch_id = asked.batch AND collision_key = asked.key LIMIT 1
        ) AS taken),
    'pending', (SELECT json_agg(json_build_object('project', project, 'files', files))
        FROM (SELECT project, count(*) AS files FROM (
                SELECT batch.project FROM file JOIN batch ON batch.id = file.batch_id
                WHERE file.state = 'pending' AND batch.state = 'open' AND batch.client = %(client)s
                UNION ALL
                SELECT project FROM upload
                WHERE state IN ('receiving', 'verifying') AND client = %(client)s
                    AND is_comparison) AS each
            GROUP BY project) AS moving),
    'revoked', (SELECT json_agg(id) FROM ({access.REVOKED}) AS gone (id))
)
""",  # noqa: S608 - put together from constants
    client="text",
    batches="text[]",
    of="text[]",
    keys="text[]",
    jtis="text[]",
    families="text[]",
)


class _Batch:
    """What a batch holds and may hold, while its files are counted in."""

    def __init__(self, row: dict[str, Any], held: Limits) -> None:
        self.project: str = row["project"]
        self.is_open = row["state"] == "open"
        self.reserved_bytes: int = row["reserved_bytes"]
        self.file_count: int = row["file_count"]
        self.held = held


class Tally:
    """What the database says while its rows are locked, and what was taken since."""

    def __init__(self, session: Session, client: str, at: datetime, rows: dict[str, Any]) -> None:
        self.client = client
        self.at = at
        self._revoked = frozenset(rows["revoked"] or ())
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
            or access.is_revoked(file.small.principal, self._revoked)
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
