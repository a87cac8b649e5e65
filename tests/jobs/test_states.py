from __future__ import annotations

import itertools
import threading
from typing import get_args

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from gateway.errors import NotFoundError
from gateway.jobs import states
from gateway.jobs.model import Job
from gateway.jobs.states import JobFinishedError, JobState
from gateway.outbox import queue
from gateway.outbox.model import Message
from tests.jobs import making

STATES = get_args(JobState)
FORWARD = {
    "queued": {"queued", "blocked"},
    "blocked": {"queued", "blocked"},
    "dispatched": {"queued", "blocked"},
    "running": {"queued", "blocked", "dispatched"},
    "succeeded": {"dispatched", "running"},
    "partially_succeeded": {"dispatched", "running"},
    "failed": {"queued", "blocked", "dispatched", "running"},
    "canceled": {"queued", "blocked", "dispatched", "running"},
}


def put_into(sessions: sessionmaker[Session], job: Job, state: str) -> None:
    with sessions.begin() as session:
        session.execute(update(Job).where(Job.id == job.id).values(state=state))


def messages(sessions: sessionmaker[Session]) -> list[tuple[str, str, str]]:
    with sessions.begin() as session:
        query = select(Message.topic, Message.key, Message.state).order_by(Message.id)
        return [tuple(row) for row in session.execute(query)]


def test_every_transition_is_allowed_or_refused_as_the_table_says(
    sessions: sessionmaker[Session],
) -> None:
    job = making.queued(sessions)
    for before, after in itertools.product(STATES, STATES):
        put_into(sessions, job, before)
        with sessions.begin() as session:
            moved = states.move(session, job.id, after, waiting_reason=f"{before}, {after}")
        assert (moved is not None) == (before in FORWARD[after]), (before, after)
        assert making.now(sessions, job).state == (after if moved else before)


def test_a_queued_job_has_its_message_event_and_record(sessions: sessionmaker[Session]) -> None:
    job = making.queued(sessions)
    assert messages(sessions) == [("job.trigger", job.id, "pending")]
    assert making.told(sessions, job) == (["job.queued"], ["job.queued"])


def test_a_refused_move_leaves_no_event_and_no_record(sessions: sessionmaker[Session]) -> None:
    job = making.queued(sessions)
    with sessions.begin() as session:
        assert states.move(session, job.id, "succeeded") is None
    assert making.told(sessions, job) == (["job.queued"], ["job.queued"])


def test_each_move_is_told_once_and_in_order(sessions: sessionmaker[Session]) -> None:
    job = making.queued(sessions)
    for state in ("dispatched", "dispatched", "running", "dispatched", "succeeded", "failed"):
        with sessions.begin() as session:
            states.move(session, job.id, state)
    events, records = making.told(sessions, job)
    assert events == ["job.queued", "job.dispatched", "job.running", "job.finished"]
    assert records == ["job.queued", "job.dispatched", "job.started", "job.finished"]
    ended = making.now(sessions, job)
    assert ended.dispatched_at <= ended.started_at <= ended.finished_at


def test_attempts_of_a_batch_are_numbered_on(sessions: sessionmaker[Session]) -> None:
    first = making.queued(sessions)
    second = making.queued(sessions, batch=first.batch_id)
    assert [first.attempt, second.attempt] == [1, 2]


def test_a_blocked_job_says_why_until_it_is_queued_again(sessions: sessionmaker[Session]) -> None:
    job = making.queued(sessions)
    with sessions.begin() as session:
        assert states.move(session, job.id, "blocked", waiting_reason="dag-missing")
    with sessions.begin() as session:
        assert states.move(session, job.id, "blocked", waiting_reason="dag-missing") is None
    with sessions.begin() as session:
        assert states.move(session, job.id, "blocked", waiting_reason="dag-paused")
    assert making.now(sessions, job).waiting_reason == "dag-paused"
    with sessions.begin() as session:
        assert states.move(session, job.id, "queued")
    assert making.now(sessions, job).waiting_reason is None


def test_of_many_who_end_a_job_at_once_one_does(sessions: sessionmaker[Session]) -> None:
    job = making.queued(sessions)
    put_into(sessions, job, "running")
    barrier = threading.Barrier(6)
    won = []

    def end(state: JobState) -> None:
        barrier.wait()
        with sessions.begin() as session:
            if states.move(session, job.id, state) is not None:
                won.append(state)

    ends: list[JobState] = ["succeeded", "failed", "canceled"]
    threads = [threading.Thread(target=end, args=(state,)) for state in ends * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [making.now(sessions, job).state]
    assert making.told(sessions, job)[0].count("job.finished") == 1


@pytest.mark.parametrize("state", ["queued", "blocked"])
def test_canceling_a_job_that_waits_ends_it_at_once(
    sessions: sessionmaker[Session], state: str
) -> None:
    job = making.queued(sessions)
    put_into(sessions, job, state)
    with sessions.begin() as session:
        assert states.cancel(session, "acme", job.id, actor="ann").state == "canceled"
    assert messages(sessions) == [("job.trigger", job.id, "pending")]
    assert making.told(sessions, job)[1][-1] == "job.canceled"


@pytest.mark.parametrize("state", ["dispatched", "running"])
def test_canceling_a_job_that_runs_asks_for_its_end_once(
    sessions: sessionmaker[Session], state: str
) -> None:
    job = making.queued(sessions)
    put_into(sessions, job, state)
    for _ in range(2):
        with sessions.begin() as session:
            asked = states.cancel(session, "acme", job.id, actor="ann")
            assert (asked.state, asked.cancel_requested_at is not None) == (state, True)
    assert messages(sessions)[1:] == [("job.cancel", job.id, "pending")]
    assert making.told(sessions, job)[1].count("job.cancel_requested") == 1


def test_canceling_a_canceled_job_is_no_error_and_an_ended_one_is(
    sessions: sessionmaker[Session],
) -> None:
    job = making.queued(sessions)
    put_into(sessions, job, "canceled")
    with sessions.begin() as session:
        assert states.cancel(session, "acme", job.id, actor="ann").state == "canceled"
    put_into(sessions, job, "succeeded")
    with sessions.begin() as session, pytest.raises(JobFinishedError):
        states.cancel(session, "acme", job.id, actor="ann")


@pytest.mark.parametrize("wanted", ["job_" + "0" * 26, "job_1", "", "job_\x00", "*"])
def test_what_is_not_a_job_is_not_found(sessions: sessionmaker[Session], wanted: str) -> None:
    with sessions.begin() as session, pytest.raises(NotFoundError):
        states.find(session, "acme", wanted)


def test_another_clients_job_is_not_found(sessions: sessionmaker[Session]) -> None:
    job = making.queued(sessions)
    with sessions.begin() as session, pytest.raises(NotFoundError):
        states.find(session, "globex", job.id)
    with sessions.begin() as session, pytest.raises(NotFoundError):
        states.cancel(session, "globex", job.id, actor="bob")


def test_a_retry_makes_a_quarantined_job_due(sessions: sessionmaker[Session]) -> None:
    job = making.queued(sessions)
    with sessions.begin() as session:
        [claim] = queue.claim(session, topics=["job.trigger"], limit=1, claim_seconds=60)
        queue.quarantine(session, claim, error="refused")
        states.move(session, job.id, "blocked", waiting_reason="quarantined")
    with sessions.begin() as session:
        assert states.retry(session, job.id, actor="admin").state == "queued"
    assert messages(sessions) == [("job.trigger", job.id, "pending")]


def test_pages_of_jobs_are_newest_first_and_without_gaps(sessions: sessionmaker[Session]) -> None:
    made = [making.queued(sessions).id for _ in range(5)]
    making.queued(sessions, client="globex")
    seen: list[str] = []
    before = None
    while True:
        with sessions.begin() as session:
            found, before = states.page(session, client="acme", before=before, limit=2)
        seen += [each.id for each in found]
        if before is None:
            break
    assert seen == sorted(made, reverse=True)
