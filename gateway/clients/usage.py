"""Bytes received on a day (UTC), per client and project.

Counted when room for them is reserved, before the first byte; what turns out not to be needed is
given back to the day that it was taken from. What was acknowledged has been received: deleting it
later gives nothing back.

Who adds in order to stay within a limit holds the lock of the client's row (``FOR NO KEY UPDATE``),
so that those who reserve at once count one after another. Giving back needs no lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from gateway import database
from gateway.clients import limits
from gateway.clients.model import DayUsage
from gateway.clients.registry import Client, Project

KEPT_DAYS = 35


def day_of(moment: datetime) -> date:
    """Return the day that bytes reserved at ``moment`` (the database's time) count for."""
    return moment.astimezone(UTC).date()


def seconds_left(moment: datetime) -> int:
    """Return the whole seconds, at least one, until the day of ``moment`` is over."""
    midnight = datetime.combine(day_of(moment) + timedelta(days=1), time(), UTC)
    return int((midnight - moment).total_seconds()) + 1


def of_day(session: Session, client: str, day: date) -> dict[str, int]:
    """Return the bytes of each project that has received any."""
    query = select(DayUsage.project, DayUsage.received_bytes).where(
        DayUsage.client == client, DayUsage.day == day
    )
    return {row.project: row.received_bytes for row in session.execute(query)}


def room_left(session: Session, client: Client, project: Project, day: date) -> int | None:
    """Return how many more bytes the project may receive on ``day``; None where all may come.

    Both count: what is left to the client as a whole, and to the project alone.
    """
    held = limits.of(client).bytes_per_day
    own = limits.for_project(client, project).bytes_per_day
    if held is None and own is None:
        return None
    used = of_day(session, client.name, day)
    rooms = [] if held is None else [held - sum(used.values())]
    rooms += [] if own is None else [own - used.get(project.name, 0)]
    return max(0, min(rooms))


def add(session: Session, client: str, project: str, day: date, size_bytes: int) -> None:
    """Count bytes, or give back as many as ``size_bytes`` is below zero."""
    add_all(session, {(client, project, day): size_bytes})


def add_all(session: Session, amounts: Mapping[tuple[str, str, date], int]) -> None:
    """Count for several of (client, project, day), in an order that cannot deadlock."""
    for (client, project, day), amount in sorted(amounts.items()):
        if amount:
            values = {"client": client, "project": project, "day": day, "amount": amount}
            database.later(session, _ADD, values)


def sweep(session: Session) -> int:
    """Forget days that no question is about any more; return how many rows went."""
    oldest = day_of(database.now(session)) - timedelta(days=KEPT_DAYS)
    gone = session.execute(delete(DayUsage).where(DayUsage.day < oldest))
    return int(getattr(gone, "rowcount", 0))


# Not below zero: what is given back to a day that was forgotten meanwhile must fail nobody.
_ADD = database.prepared(
    """
INSERT INTO day_usage (client, project, day, received_bytes)
VALUES (%(client)s, %(project)s, %(day)s, greatest(0, %(amount)s))
ON CONFLICT (client, project, day) DO UPDATE
SET received_bytes = greatest(0, day_usage.received_bytes + %(amount)s)
""",
    client="text",
    project="text",
    day="date",
    amount="bigint",
)
