"""Bytes of a day: counted, given back, forgotten; the narrower of two limits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from threading import Barrier

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from gateway import database
from gateway.clients import limits, registry, usage
from gateway.clients.limits import Limits
from gateway.clients.model import DayUsage
from gateway.clients.registry import Client, Project
from gateway.onboarding import apply, spec
from tests.factories import CONTRACT

DAY = date(2026, 11, 27)
NEXT = date(2026, 11, 28)


@pytest.fixture(autouse=True)
def two_projects(sessions: sessionmaker[Session]) -> None:
    document = {
        "client": "acme",
        "name": "Acme",
        "limits": {"bytes_per_day": 1000, "open_batches": 7},
        "projects": {
            "flights": {
                "contract": CONTRACT,
                "limits": {"bytes_per_day": 600, "file_bytes": "1KiB"},
            },
            "crews": {"contract": CONTRACT},
        },
    }
    with sessions.begin() as session:
        apply.apply(session, spec.parse(document), actor="operator:test")


def room(session: Session, project: str, day: date = DAY) -> int | None:
    client = registry.active_client(session, "acme")
    return usage.room_left(session, client, registry.active_project(session, "acme", project), day)


def test_what_is_received_narrows_the_room_of_the_project_and_of_the_client(
    sessions: sessionmaker[Session],
) -> None:
    with sessions.begin() as session:
        assert (room(session, "flights"), room(session, "crews")) == (600, 1000)
        usage.add(session, "acme", "flights", DAY, 250)
        usage.add(session, "acme", "flights", DAY, 250)
        assert (room(session, "flights"), room(session, "crews")) == (100, 500)
        usage.add(session, "acme", "crews", DAY, 450)
        assert (room(session, "flights"), room(session, "crews")) == (50, 50)
        usage.add(session, "acme", "crews", DAY, 450)
        assert (room(session, "flights"), room(session, "crews")) == (0, 0)
        assert (room(session, "flights", NEXT), room(session, "crews", NEXT)) == (600, 1000)
        assert usage.of_day(session, "acme", DAY) == {"flights": 500, "crews": 900}
        assert usage.of_day(session, "globex", DAY) == {}


def test_what_was_not_needed_goes_back_to_its_own_day(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        usage.add(session, "acme", "flights", DAY, 500)
        usage.add(session, "acme", "flights", NEXT, 100)
        usage.add(session, "acme", "flights", DAY, -200)
        assert usage.of_day(session, "acme", DAY) == {"flights": 300}
        assert usage.of_day(session, "acme", NEXT) == {"flights": 100}


def test_a_day_never_counts_less_than_nothing(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        usage.add(session, "acme", "flights", DAY, -5)
        usage.add(session, "acme", "crews", DAY, 5)
        usage.add(session, "acme", "crews", DAY, -9)
        assert usage.of_day(session, "acme", DAY) == {"flights": 0, "crews": 0}


def test_several_amounts_are_counted_at_once(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        usage.add(session, "acme", "flights", DAY, 10)
        usage.add_all(
            session,
            {
                ("acme", "flights", DAY): -4,
                ("acme", "crews", DAY): 7,
                ("acme", "flights", NEXT): 2,
                ("acme", "crews", NEXT): 0,
            },
        )
        usage.add_all(session, {})
        assert usage.of_day(session, "acme", DAY) == {"flights": 6, "crews": 7}
        assert usage.of_day(session, "acme", NEXT) == {"flights": 2}


def test_parallel_reservations_fill_a_day_exactly(sessions: sessionmaker[Session]) -> None:
    gate = Barrier(9)

    def reserved(number: int) -> bool:
        gate.wait()
        with sessions.begin() as session:
            lock = select(Client.name).where(Client.name == "acme")
            session.execute(lock.with_for_update(key_share=True))
            left = room(session, "crews")
            if left is None or left < 200:
                return False
            usage.add(session, "acme", "crews", DAY, 200)
            return True

    with ThreadPoolExecutor(9) as crowd:
        assert sum(crowd.map(reserved, range(9))) == 5


def test_days_that_nobody_asks_for_any_more_are_forgotten(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        today = usage.day_of(database.now(session))
        for age in (0, usage.KEPT_DAYS, usage.KEPT_DAYS + 1, 400):
            usage.add(session, "acme", "flights", today - timedelta(days=age), 1)
        assert usage.sweep(session) == 2
        assert session.scalar(select(func.count()).select_from(DayUsage)) == 2


def test_a_day_is_one_of_utc() -> None:
    late = datetime(2026, 11, 28, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    assert usage.day_of(late) == DAY
    assert usage.seconds_left(late) == 30 * 60 + 1
    assert usage.seconds_left(datetime(2026, 11, 27, 23, 59, 59, 999999, tzinfo=UTC)) == 1


def test_a_project_has_the_narrower_of_both_limits() -> None:
    client = Client(name="acme", limits={"file_bytes": 100, "open_batches": 7})
    narrow = Project(limits={"file_bytes": 10, "bytes_per_day": 5})
    assert limits.for_project(client, narrow) == Limits(
        file_bytes=10, open_batches=7, bytes_per_day=5
    )
    # The client's was lowered, and nobody has touched the project since.
    wide = Project(limits={"file_bytes": 1000, "open_batches": 9})
    assert limits.for_project(client, wide) == limits.of(client)


def test_where_no_day_has_a_limit_all_may_come(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        client = registry.active_client(session, "acme")
        client.limits = {}
        assert room(session, "crews") is None
        assert room(session, "flights") == 600
