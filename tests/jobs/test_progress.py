from __future__ import annotations

import threading
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from gateway.errors import InvalidRequestError, NotFoundError
from gateway.jobs import reading, states
from gateway.jobs.model import Job, Reject
from gateway.jobs.states import JobFinishedError
from gateway.jobs.views import JobView, ProgressReport
from tests.jobs import making
from tests.jobs.making import report, rows


@pytest.fixture
def job(sessions: sessionmaker[Session]) -> Job:
    return making.queued(sessions)


@pytest.mark.parametrize("other", [{"batch_id": "bat_another"}, {"attempt": 2}])
def test_a_run_that_works_on_something_else_than_the_job_is_not_heard(
    sessions: sessionmaker[Session], job: Job, other: dict[str, Any]
) -> None:
    own = {"batch_id": job.batch_id, "attempt": job.attempt}
    with pytest.raises(reading.OtherWorkError):
        report(sessions, job, state="running", **(own | other))
    assert view(sessions, job).state == "queued"
    report(sessions, job, state="running", **own)
    assert view(sessions, job).state == "running"


def view(sessions: sessionmaker[Session], job: Job) -> JobView:
    with sessions.begin() as session:
        return states.view(session, states.find(session, job.client, job.id))


def count_of_rejects(sessions: sessionmaker[Session], job: Job) -> int:
    with sessions.begin() as session:
        query = select(func.count()).select_from(Reject).where(Reject.job_id == job.id)
        return session.scalar(query) or 0


def end(sessions: sessionmaker[Session], job: Job, run_state: states.RunState) -> JobView:
    with sessions.begin() as session:
        states.finish(session, job.id, run_state)
    return view(sessions, job)


def test_a_first_report_makes_the_job_running(sessions: sessionmaker[Session], job: Job) -> None:
    report(sessions, job, step="plan", state="running")
    report(sessions, job, step="plan")
    assert view(sessions, job).state == "running"
    assert making.told(sessions, job)[0] == ["job.queued", "job.running"]


def test_steps_are_in_order_and_count_their_parts(
    sessions: sessionmaker[Session], job: Job
) -> None:
    report(sessions, job, step="process", map_index=0, total=2, rows=rows(read=10, rejected=1))
    report(sessions, job, step="process", map_index=1, total=2, state="running")
    report(sessions, job, step="plan", rows=rows())
    found = view(sessions, job)
    shown = [(each.name, each.state, each.done, each.total) for each in found.steps]
    assert shown == [("plan", "succeeded", 1, 1), ("process", "running", 1, 2)]
    assert [each.finished_at is None for each in found.steps] == [False, True]
    report(sessions, job, step="process", map_index=1, total=2, rows=rows(read=5))
    report(sessions, job, step="publish", rows=rows(loaded=14))
    found = view(sessions, job)
    assert [each.state for each in found.steps] == ["succeeded"] * 3
    assert found.rows.model_dump() == rows(read=15, loaded=14, rejected=1)


def test_a_report_that_comes_twice_counts_once(sessions: sessionmaker[Session], job: Job) -> None:
    for _ in range(2):
        report(sessions, job, rows=rows(read=7, rejected=2), rejects=making.rejects(2))
    assert view(sessions, job).rows.read == 7
    assert count_of_rejects(sessions, job) == 2


def test_a_later_try_replaces_rows_and_rejects(sessions: sessionmaker[Session], job: Job) -> None:
    report(sessions, job, try_number=1, rows=rows(read=7), rejects=making.rejects(3))
    report(sessions, job, try_number=2, rows=rows(read=9), rejects=making.rejects(1))
    assert view(sessions, job).rows.read == 9
    assert count_of_rejects(sessions, job) == 1


def test_an_older_try_is_ignored(sessions: sessionmaker[Session], job: Job) -> None:
    report(sessions, job, try_number=2, rows=rows(read=9), rejects=making.rejects(1))
    report(sessions, job, try_number=1, rows=rows(read=7), rejects=making.rejects(3))
    assert view(sessions, job).rows.read == 9
    assert count_of_rejects(sessions, job) == 1


def test_a_late_running_does_not_undo_the_end_of_its_try(
    sessions: sessionmaker[Session], job: Job
) -> None:
    report(sessions, job, rows=rows(read=9), rejects=making.rejects(1))
    report(sessions, job, state="running")
    assert view(sessions, job).steps[0].state == "succeeded"
    assert count_of_rejects(sessions, job) == 1


def test_parts_that_report_at_once_all_count(sessions: sessionmaker[Session], job: Job) -> None:
    barrier = threading.Barrier(6)
    failed = []

    def one(index: int) -> None:
        barrier.wait()
        try:
            report(sessions, job, map_index=index, total=6, rows=rows(read=1))
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=one, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    found = view(sessions, job)
    assert (found.steps[0].done, found.rows.read) == (6, 6)


@pytest.mark.parametrize("wrong", [{"dag_id": "globex__flights"}, {"run_id": "gw.job_other"}])
def test_a_report_of_another_run_is_refused(
    sessions: sessionmaker[Session], job: Job, wrong: dict[str, str]
) -> None:
    with pytest.raises(InvalidRequestError):
        report(sessions, job, **wrong)
    assert view(sessions, job).steps == []


def test_a_report_of_an_unknown_job_is_not_found(sessions: sessionmaker[Session], job: Job) -> None:
    said = ProgressReport.model_validate(making.said(job))
    with sessions.begin() as session, pytest.raises(NotFoundError):
        states.report(session, "job_" + "0" * 26, said)


def test_a_report_after_the_end_is_refused(sessions: sessionmaker[Session], job: Job) -> None:
    report(sessions, job, step="publish")
    end(sessions, job, "success")
    with pytest.raises(JobFinishedError):
        report(sessions, job, step="publish", rows=rows(loaded=99))
    assert view(sessions, job).rows.loaded == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "done"},
        {"step": "clean"},
        {"map_index": -2},
        {"total": -1},
        {"rows": {"read": -1, "loaded": 0, "rejected": 0}},
        {"rows": {"read": 1, "loaded": 0}},
        {"rejects": making.rejects(1001)},
        {"rejects": making.rejects(1, value="x" * 1001)},
        {"rejects": making.rejects(1, file="x" * 1025)},
        {"surplus": 1},
    ],
)
def test_a_report_of_another_shape_is_refused(job: Job, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ProgressReport.model_validate({**making.said(job), **wrong})


# --- how a job ends ---------------------------------------------------------------------------


def test_a_run_that_published_everything_succeeded(
    sessions: sessionmaker[Session], job: Job
) -> None:
    report(sessions, job, step="process", rows=rows(read=5))
    report(sessions, job, step="publish", rows=rows(loaded=5))
    found = end(sessions, job, "success")
    assert (found.state, found.error) == ("succeeded", None)
    assert found.finished_at is not None


def test_a_run_that_rejected_rows_succeeded_in_part(
    sessions: sessionmaker[Session], job: Job
) -> None:
    report(sessions, job, step="process", rows=rows(read=5, rejected=1))
    report(sessions, job, step="publish", rows=rows(loaded=4))
    assert end(sessions, job, "success").state == "partially_succeeded"


@pytest.mark.parametrize("publish", [None, "running", "failed"])
def test_a_run_without_a_published_result_failed(
    sessions: sessionmaker[Session], job: Job, publish: str | None
) -> None:
    report(sessions, job, step="process", rows=rows(read=5))
    if publish:
        report(sessions, job, step="publish", state=publish)
    found = end(sessions, job, "success")
    assert found.state == "failed"
    assert found.error is not None
    assert found.error.code == "no-result"


def test_a_failed_run_has_the_error_its_task_reported(
    sessions: sessionmaker[Session], job: Job
) -> None:
    error = {"code": "too-many-rejects", "detail": "12 of 90 rows"}
    report(sessions, job, step="publish", state="failed", error=error)
    assert view(sessions, job).error is None
    found = end(sessions, job, "failed")
    assert found.state == "failed"
    assert found.error is not None
    assert found.error.model_dump() == error


def test_an_error_that_a_later_try_mended_is_forgotten(
    sessions: sessionmaker[Session], job: Job
) -> None:
    error = {"code": "storage-away", "detail": "try again"}
    report(sessions, job, step="process", state="failed", error=error)
    report(sessions, job, step="process", try_number=2)
    found = end(sessions, job, "failed")
    assert found.error is not None
    assert found.error.code == "run-failed"


def test_a_run_that_died_without_a_word_names_the_step(
    sessions: sessionmaker[Session], job: Job
) -> None:
    report(sessions, job, step="process", state="running")
    with sessions.begin() as session:
        states.finish(session, job.id, "failed", "process")
    found = view(sessions, job)
    assert found.error is not None
    assert (found.error.code, "process" in found.error.detail) == ("run-failed", True)
    assert [each.state for each in found.steps] == ["failed"]


def test_a_run_that_failed_because_it_was_canceled_is_canceled(
    sessions: sessionmaker[Session], job: Job
) -> None:
    report(sessions, job, step="process", state="running")
    with sessions.begin() as session:
        states.cancel(session, "acme", job.id, actor="ann")
    found = end(sessions, job, "failed")
    assert (found.state, found.error) == ("canceled", None)
    assert [each.state for each in found.steps] == ["canceled"]


@pytest.mark.parametrize("run_state", ["success", "failed", "lost"])
@pytest.mark.parametrize("rejected", [0, 2])
def test_what_was_published_was_published_however_its_run_ended(
    sessions: sessionmaker[Session], job: Job, run_state: states.RunState, rejected: int
) -> None:
    report(sessions, job, step="process", rows=rows(read=9, rejected=rejected))
    report(sessions, job, step="publish", rows=rows(loaded=9 - rejected))
    with sessions.begin() as session:
        states.cancel(session, "acme", job.id, actor="ann")
    found = end(sessions, job, run_state)
    assert found.state == ("partially_succeeded" if rejected else "succeeded")
    assert (found.error, found.rows.loaded) == (None, 9 - rejected)


def test_a_run_that_is_gone_is_told_as_such_unless_it_was_canceled(
    sessions: sessionmaker[Session], job: Job
) -> None:
    report(sessions, job, step="publish", state="running")
    other = making.queued(sessions)
    report(sessions, other, step="publish", state="running")
    with sessions.begin() as session:
        states.cancel(session, "acme", other.id, actor="ann")
    found = end(sessions, job, "lost")
    assert found.error is not None
    assert (found.state, found.error.code) == ("failed", "run-lost")
    assert end(sessions, other, "lost").state == "canceled"


def test_a_run_that_ended_before_its_trigger_was_settled_is_dispatched_to_its_end(
    sessions: sessionmaker[Session], job: Job
) -> None:
    assert end(sessions, job, "success").state == "failed"
    events = making.told(sessions, job)[0]
    assert events == ["job.queued", "job.dispatched", "job.finished"]


def test_ending_an_ended_job_changes_nothing(sessions: sessionmaker[Session], job: Job) -> None:
    report(sessions, job, step="publish")
    end(sessions, job, "success")
    assert end(sessions, job, "failed").state == "succeeded"
    assert making.told(sessions, job)[0].count("job.finished") == 1
