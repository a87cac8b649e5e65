from __future__ import annotations

import pytest
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from gateway import database
from gateway.audit import trail
from gateway.events import feed
from gateway.identity.model import RevokedToken

ADD = database.prepared("INSERT INTO noted (word) VALUES (%(word)s)", word="text")
PLAIN = "INSERT INTO noted (word) VALUES (%(word)s)"
BOTH = database.prepared(
    "DELETE FROM noted WHERE word = %(word)s", "SELECT count(*) FROM noted", word="text"
)


@pytest.fixture(autouse=True)
def _table(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        session.execute(text("CREATE TABLE noted (word text NOT NULL, number serial)"))


def words(session: Session) -> list[str]:
    return list(session.scalars(text("SELECT word FROM noted ORDER BY number")))


@pytest.mark.parametrize("statement", [ADD, PLAIN])
def test_what_waits_is_sent_before_the_next_statement(
    sessions: sessionmaker[Session], statement: str
) -> None:
    with sessions.begin() as session:
        for word in ("a", "100%s '; --", "ü"):
            database.later(session, statement, {"word": word})
        assert words(session) == ["a", "100%s '; --", "ü"]


def test_what_waits_is_sent_before_the_commit(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        database.later(session, ADD, {"word": "a"})
    with sessions.begin() as session:
        assert words(session) == ["a"]


def test_what_waits_when_a_transaction_is_given_up_never_happens(
    sessions: sessionmaker[Session],
) -> None:
    with sessions() as session:
        database.later(session, ADD, {"word": "a"})
        session.rollback()
        assert words(session) == []
    with sessions() as session:
        database.later(session, ADD, {"word": "b"})
    with sessions.begin() as session:
        assert words(session) == []


def test_a_savepoint_takes_with_it_what_waited_in_it_alone(
    sessions: sessionmaker[Session],
) -> None:
    with sessions.begin() as session:
        database.later(session, ADD, {"word": "outside"})
        inner = session.begin_nested()
        database.later(session, ADD, {"word": "inside"})
        inner.rollback()
        assert words(session) == ["outside"]


def test_what_waits_and_fails_fails_the_commit(sessions: sessionmaker[Session]) -> None:
    session = sessions()
    database.later(session, ADD, {"word": "a"})
    database.later(session, ADD, {"word": None})
    with pytest.raises(DBAPIError, match="null value"):
        session.commit()
    session.close()
    with sessions.begin() as session:
        assert words(session) == []


def test_many_sets_of_values_go_after_what_waits(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        database.later(session, ADD, {"word": "a"})
        many = [{"word": "b"}, {"word": "c"}]
        session.execute(text("INSERT INTO noted (word) VALUES (:word)"), many)
        assert words(session) == ["a", "b", "c"]


def test_prepared_statements_are_planned_once_and_live_through_what_fails(
    sessions: sessionmaker[Session],
) -> None:
    with sessions() as session:
        connection = session.connection()
        count = "SELECT count(*) FROM pg_prepared_statements"
        for _ in range(2):
            assert connection.exec_driver_sql(BOTH, {"word": "x"}).scalar_one() == 0
            assert connection.exec_driver_sql(count).scalar_one() == 2
        with pytest.raises(DBAPIError):
            connection.exec_driver_sql("SELECT 1 / 0")
        session.rollback()
        assert session.connection().exec_driver_sql(BOTH, {"word": "x"}).scalar_one() == 0


def test_a_statement_alone_is_committed_at_once_and_the_next_transaction_is_one(
    sessions: sessionmaker[Session],
) -> None:
    with sessions() as session:
        database.alone(session).exec_driver_sql(PLAIN, {"word": "alone"})
        with sessions() as other:
            assert words(other) == ["alone"]
    for _ in range(3):
        with sessions() as session:
            session.execute(text("DELETE FROM noted"))
    with sessions.begin() as session:
        assert words(session) == ["alone"]


def test_a_session_that_reads_holds_no_transaction_and_sees_what_is_committed(
    sessions: sessionmaker[Session],
) -> None:
    with database.reader(sessions) as reading:
        assert words(reading) == []
        with sessions.begin() as session:
            session.execute(text("LOCK TABLE noted"))
            session.execute(text(PLAIN.replace("%(word)s", "'a'")))
        assert words(reading) == ["a"]
        raw = reading.connection().connection.driver_connection
        assert raw is not None
        assert raw.info.transaction_status == TRANSACTION_STATUS_IDLE
    with sessions() as session:
        session.execute(text(PLAIN.replace("%(word)s", "'b'")))
        session.rollback()
        assert words(session) == ["a"]


def test_what_is_noted_in_a_session_that_reads_is_refused(
    sessions: sessionmaker[Session],
) -> None:
    with database.reader(sessions) as reading:
        with pytest.raises(TypeError, match="only reads"):
            trail.record(reading, actor="a", action="a", subject="a", client=None)
        with pytest.raises(TypeError, match="only reads"):
            feed.publish(reading, client="acme", type="a", subject="a", data={})
        reading.add(RevokedToken(jti="a", expires_at=database.now(reading)))
        with pytest.raises(TypeError, match="only reads"):
            reading.flush()


def test_a_kept_connection_that_its_server_closed_is_replaced(
    sessions: sessionmaker[Session],
) -> None:
    with sessions() as session:
        number = session.scalar(text("SELECT pg_backend_pid()"))
        with sessions() as other:
            other.execute(text("SELECT 1"))
            assert number != other.scalar(text("SELECT pg_backend_pid()"))
            session.close()
            other.execute(text(f"SELECT pg_terminate_backend({number}, 5000)"))
    with sessions() as one, sessions() as two:
        assert one.scalar(text("SELECT 1")) == two.scalar(text("SELECT 1"))


def test_a_connection_lost_amid_a_transaction_shows_as_such_whatever_is_done_next(
    sessions: sessionmaker[Session],
) -> None:
    for lost in ("SELECT 1", BOTH, PLAIN):
        with sessions() as session:
            number = session.scalar(text("SELECT pg_backend_pid()"))
            with sessions() as other:
                other.execute(text(f"SELECT pg_terminate_backend({number}, 5000)"))
            with pytest.raises(OperationalError):
                session.connection().exec_driver_sql(lost, {"word": "x"})
            with pytest.raises(SQLAlchemyError):
                database.later(session, ADD, {"word": "x"})
            session.rollback()
            assert session.scalar(text("SELECT 1")) == 1
