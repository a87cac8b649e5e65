"""What an attack must leave as it was: every row, and every name and size on disk."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

State = dict[str, list[str]]


# What only counts: being asked is no change.
COUNTERS = ("request_window",)


def rows(sessions: sessionmaker[Session], *, without: tuple[str, ...] = ()) -> State:
    """Return each table's rows as text."""
    with sessions.begin() as session:
        names = session.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        ).all()
        assert {"batch", "file", "job", "event", "outbox_message", "audit_event"} <= set(names)
        return {
            name: sorted(session.scalars(text(f'SELECT t::text FROM "{name}" t')))
            for name in names
            if name not in (*without, *COUNTERS)
        }


def on_disk(environment: dict[str, str]) -> list[tuple[str, int]]:
    """Return what lies in the landing zone."""
    root = Path(environment["GATEWAY_LANDING_ROOT"])
    return sorted(
        (str(path.relative_to(root)), path.stat().st_size)
        for path in root.rglob("*")
        if path.is_file()
    )
