from __future__ import annotations

import threading

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from gateway.audit import actions, trail
from gateway.audit.model import AuditEvent, AuditHead


def note(session: Session, subject: str = "bat_1", **details: object) -> None:
    trail.record(
        session,
        actor="tester",
        action=actions.BATCH_CREATED,
        subject=subject,
        client="acme",
        details=details,
    )


def verdict(sessions: sessionmaker[Session]) -> trail.Verdict:
    with sessions.begin() as session:
        return trail.verify(session)


def test_records_are_linked_from_the_first_to_the_head(sessions: sessionmaker[Session]) -> None:
    for number in range(3):
        with sessions.begin() as session:
            note(session, f"bat_{number}")
            note(session, f"bat_{number}", size=number)
    found = verdict(sessions)
    assert (found.records, found.broken_at) == (6, None)
    with sessions.begin() as session:
        first = session.scalars(select(AuditEvent).where(AuditEvent.number == 1)).one()
        assert first.previous_hash == trail.GENESIS
        assert session.scalars(select(AuditHead.hash)).one() == found.head


def test_a_rolled_back_change_leaves_no_record(sessions: sessionmaker[Session]) -> None:
    session = sessions()
    note(session)
    session.rollback()
    session.execute(text("SELECT 1"))
    session.commit()
    session.close()
    assert verdict(sessions).records == 0


def test_a_savepoint_taken_back_takes_its_records_with_it(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        note(session, "bat_kept")
        savepoint = session.begin_nested()
        note(session, "bat_undone")
        savepoint.rollback()
        with session.begin_nested():
            note(session, "bat_kept_too")
    with sessions.begin() as session:
        found = [each.subject for each in trail.search(session)]
    assert found == ["bat_kept_too", "bat_kept"]


def test_many_writers_make_one_chain(sessions: sessionmaker[Session]) -> None:
    def write() -> None:
        for _ in range(10):
            with sessions.begin() as session:
                note(session)

    writers = [threading.Thread(target=write) for _ in range(6)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    found = verdict(sessions)
    assert (found.records, found.broken_at) == (60, None)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_event SET actor = 'somebody'",
        "DELETE FROM audit_event",
        "TRUNCATE audit_event",
        "DELETE FROM audit_head",
    ],
)
def test_the_database_refuses_to_change_what_was_written(
    sessions: sessionmaker[Session], statement: str
) -> None:
    with sessions.begin() as session:
        note(session)
    with pytest.raises(DBAPIError, match="append-only"), sessions.begin() as session:
        session.execute(text(statement))
    assert verdict(sessions).records == 1


@pytest.mark.parametrize(
    ("statement", "number", "reason"),
    [
        ("UPDATE audit_event SET actor = 'x' WHERE number = 2", 2, "a record was changed"),
        ("UPDATE audit_event SET details = '{\"n\": 1}' WHERE number = 3", 3, "was changed"),
        ("DELETE FROM audit_event WHERE number = 2", 2, "a record is missing"),
        ("DELETE FROM audit_event WHERE number = 3", 3, "cut short"),
    ],
)
def test_what_gets_past_the_triggers_is_found(
    sessions: sessionmaker[Session], statement: str, number: int, reason: str
) -> None:
    for _ in range(3):
        with sessions.begin() as session:
            note(session)
    with sessions.begin() as session:
        session.execute(text("ALTER TABLE audit_event DISABLE TRIGGER ALL"))
        session.execute(text(statement))
    found = verdict(sessions)
    assert found.broken_at == number
    assert reason in (found.reason or "")


def test_without_the_trail_there_is_no_change(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        session.execute(text("ALTER TABLE audit_event RENAME TO elsewhere"))
    session = sessions()
    session.execute(text("INSERT INTO feed_head VALUES ('acme', 1)"))
    note(session)
    with pytest.raises(DBAPIError):
        session.commit()
    session.close()
    with sessions.begin() as session:
        assert session.execute(text("SELECT count(*) FROM feed_head")).scalar_one() == 0


def test_search_narrows_by_every_field(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        note(session, "bat_a")
        note(session, "bat_b")
        trail.record(
            session, actor="other", action=actions.BATCH_SEALED, subject="bat_b", client="globex"
        )
    with sessions.begin() as session:
        assert [e.subject for e in trail.search(session, client="acme")] == ["bat_b", "bat_a"]
        assert [e.actor for e in trail.search(session, action="batch.sealed")] == ["other"]
        assert len(trail.search(session, subject="bat_b", actor="tester")) == 1
        assert [e.number for e in trail.search(session, before=3, limit=1)] == [2]
        assert trail.search(session, since=session.scalar(func.now())) == []
