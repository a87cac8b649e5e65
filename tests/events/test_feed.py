from __future__ import annotations

import threading

from sqlalchemy.orm import Session, sessionmaker

from gateway.events import feed


def publish(session: Session, client: str, subject: str) -> None:
    feed.publish(session, client=client, type="batch.created", subject=subject, data={})


def numbers(sessions: sessionmaker[Session], client: str, after: int = 0) -> list[int]:
    with sessions.begin() as session:
        return [each.number for each in feed.after(session, client, after, 1000)]


def test_each_client_counts_by_itself(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        publish(session, "acme", "bat_1")
        publish(session, "globex", "bat_2")
        publish(session, "acme", "bat_3")
    assert numbers(sessions, "acme") == [1, 2]
    assert numbers(sessions, "acme", after=1) == [2]
    assert numbers(sessions, "globex") == [1]


def test_a_reader_never_skips_what_commits_late(sessions: sessionmaker[Session]) -> None:
    seen: list[int] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.extend(numbers(sessions, "acme", after=seen[-1] if seen else 0))

    def write() -> None:
        for _ in range(15):
            with sessions.begin() as session:
                publish(session, "acme", "bat_1")

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write) for _ in range(3)]
    for each in (reader, *writers):
        each.start()
    for each in writers:
        each.join()
    stop.set()
    reader.join()
    seen.extend(numbers(sessions, "acme", after=seen[-1]))
    assert seen == list(range(1, 46))
