from __future__ import annotations

import threading

from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from gateway.outbox import queue
from gateway.outbox.model import Message


def put(sessions: sessionmaker[Session], *keys: str, lane: str = "acme") -> None:
    with sessions.begin() as session:
        for key in keys:
            queue.put(session, topic="job.trigger", key=key, lane=lane, payload={"key": key})


def claim(sessions: sessionmaker[Session], limit: int = 10, seconds: int = 30) -> list[queue.Claim]:
    with sessions.begin() as session:
        return queue.claim(session, topics=["job.trigger"], limit=limit, claim_seconds=seconds)


def state(sessions: sessionmaker[Session], key: str) -> str:
    with sessions.begin() as session:
        return session.scalars(select(Message.state).where(Message.key == key)).one()


def test_the_same_key_twice_is_one_message(sessions: sessionmaker[Session]) -> None:
    put(sessions, "a")
    put(sessions, "a")
    assert [each.key for each in claim(sessions)] == ["a"]


def test_a_lane_gets_no_more_than_its_width_counting_what_is_being_carried(
    sessions: sessionmaker[Session],
) -> None:
    put(sessions, "a1", "a2", "a3", "a4")
    put(sessions, "b1", "b2", lane="globex")
    with sessions.begin() as session:
        found = queue.claim(
            session,
            topics=["job.trigger"],
            limit=10,
            claim_seconds=30,
            busy={"acme": 1},
            lane_width=2,
        )
    assert [each.key for each in found] == ["b1", "a1", "b2"]


def test_a_claimed_message_is_nobody_elses_until_the_claim_lapses(
    sessions: sessionmaker[Session],
) -> None:
    put(sessions, "a")
    (first,) = claim(sessions, seconds=0)
    (second,) = claim(sessions)
    assert claim(sessions) == []
    with sessions.begin() as session:
        assert not queue.settle(session, first), "a lapsed claim must not settle"
        assert not queue.defer(session, first, delay_seconds=0, error="late")
        assert queue.settle(session, second)
    assert state(sessions, "a") == "done"


def test_lanes_take_turns(sessions: sessionmaker[Session]) -> None:
    put(sessions, *(f"a{n}" for n in range(5)))
    put(sessions, "b0", lane="globex")
    assert [each.key for each in claim(sessions, limit=3)] == ["a0", "b0", "a1"]


def test_two_claimers_never_get_the_same_message(sessions: sessionmaker[Session]) -> None:
    put(sessions, *(f"k{n}" for n in range(60)))
    got: list[str] = []

    def work() -> None:
        while batch := claim(sessions, limit=5):
            got.extend(each.key for each in batch)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    assert sorted(got) == sorted(f"k{n}" for n in range(60))


def test_a_deferred_message_waits_and_a_quarantined_one_stays(
    sessions: sessionmaker[Session],
) -> None:
    put(sessions, "a", "b")
    first, second = claim(sessions)
    with sessions.begin() as session:
        assert queue.defer(session, first, delay_seconds=60, error="airflow-unavailable")
        assert queue.quarantine(session, second, error="poison")
    assert claim(sessions) == []
    assert state(sessions, "b") == "quarantined"
    with sessions.begin() as session:
        assert queue.release(session, topic="job.trigger", key="b")
    assert [each.key for each in claim(sessions)] == ["b"]


def test_put_wakes_listeners_at_commit(sessions: sessionmaker[Session]) -> None:
    with sessions() as listener:
        raw = listener.connection().connection.driver_connection
        assert raw is not None
        listener.execute(text(f"LISTEN {queue.CHANNEL}"))
        listener.commit()
        raw = listener.connection().connection.driver_connection
        put(sessions, "a")
        listener.execute(text("SELECT 1"))
        listener.commit()
        raw.poll()  # type: ignore[union-attr]
        assert [each.payload for each in raw.notifies] == ["job.trigger"]  # type: ignore[union-attr]
