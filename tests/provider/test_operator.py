"""The operator, its hook and its trigger, against a gateway that is real."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from gateway.provider.hooks import GatewayHook
from tests.provider.conftest import Gateway
from tests.provider.running import Try, beside, deferred, deliver, elsewhere, fired
from tests.sdk import valve

CONN = "AIRFLOW_CONN_INGESTION_GATEWAY_DEFAULT"
MIB = 1024 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "rows.csv"
    found.write_text("id,note\n1,one\n")
    return found


@pytest.fixture
def attempt() -> Try:
    return Try()


def until(question: Any) -> Any:
    deadline = time.monotonic() + 30
    while not (answer := question()):
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)
    return answer


def test_a_task_waits_in_the_triggerer_and_names_the_first_of_all_rejects(
    connected: Gateway, path: Path, attempt: Try, capsys: pytest.CaptureFixture[str]
) -> None:
    task = deliver(path, deferrable=True, max_rejects=3)
    waiting = deferred(task, attempt)
    job = attempt.xcoms["job_id"]
    assert attempt.xcoms["batch_id"].startswith("bat_")
    receipt = attempt.xcoms["receipt"]
    assert receipt["batch"] == attempt.xcoms["batch_id"]
    assert (receipt["files"], receipt["jws"].count(".")) == (1, 2)

    event = beside(lambda: fired(elsewhere(waiting.trigger)))
    assert connected.end(job, rejected=7) == "partially_succeeded"
    result = getattr(task, waiting.method_name)(attempt.context, event=event.result(timeout=30))
    rows = {"read": 100, "loaded": 93, "rejected": 7}
    assert result == {
        "batch_id": attempt.xcoms["batch_id"],
        "job_id": job,
        "state": "partially_succeeded",
        "rows": rows,
    }
    assert attempt.xcoms["rows"] == rows
    rejects = attempt.xcoms["rejects"]
    assert rejects["total"] == 7
    assert [each["line"] for each in rejects["shown"]] == [1, 2, 3]
    log = capsys.readouterr().out
    assert "7 rows were rejected; the first 3:" in log
    assert "a.csv  1     id      type" in log
    assert "\x1b" not in log


def test_a_later_try_finds_the_delivery_and_sends_nothing_again(
    connected: Gateway, path: Path, attempt: Try, capsys: pytest.CaptureFixture[str]
) -> None:
    task = deliver(path, deferrable=True)
    deferred(task, attempt)
    again = Try()
    capsys.readouterr()
    deferred(deliver(path, deferrable=True, reference=task.reference), again)
    log = capsys.readouterr().out
    assert again.xcoms["job_id"] == attempt.xcoms["job_id"]
    assert "known before, sealed" in log
    assert "already there: rows.csv" in log
    connected.end(attempt.xcoms["job_id"])


def test_a_worker_that_waits_itself_comes_to_the_same_end(
    connected: Gateway, path: Path, attempt: Try
) -> None:
    task = deliver([str(path)], deferrable=False, metadata={"origin": "test"})
    result = beside(lambda: task.execute(attempt.context))
    connected.end(until(lambda: attempt.xcoms.get("job_id")))
    assert result.result(timeout=30)["state"] == "succeeded"
    assert attempt.xcoms["rejects"] == {"total": 0, "shown": []}


def test_who_does_not_wait_is_done_when_the_batch_is_sealed(
    connected: Gateway, path: Path, attempt: Try
) -> None:
    result = deliver(path, wait_for_job=False).execute(attempt.context)
    assert result is not None
    assert result["state"] == "queued"
    connected.end(result["job_id"])


def test_a_large_file_goes_in_pieces_beside_a_small_one(
    connected: Gateway, path: Path, attempt: Try, capsys: pytest.CaptureFixture[str]
) -> None:
    large = path.with_name("large.csv")
    large.write_bytes(os.urandom(9 * MIB))
    deliver([str(large), str(path)], wait_for_job=False).execute(attempt.context)
    assert "sent: large.csv (9.4 MB)" in capsys.readouterr().out
    assert attempt.xcoms["receipt"]["files"] == 2
    connected.end(attempt.xcoms["job_id"])


def test_a_try_that_is_ended_in_the_midst_of_a_large_file_is_gone_on_with_by_the_next(
    gateway: Gateway, path: Path, attempt: Try, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(os.urandom(20 * MIB))
    with valve.running(int(gateway.url.rpartition(":")[2])) as line:
        monkeypatch.setenv(CONN, gateway.connection(host=line.url))
        task = deliver(path, wait_for_job=False)
        line.close_after(11 * MIB)
        result = beside(lambda: task.execute(attempt.context))
        until(line.is_closed)
        task.on_kill()
        with pytest.raises(AirflowException, match="stopped"):
            result.result(timeout=30)
        line.cut()
        before = line.passed
        assert task.execute(attempt.context)
        assert line.passed - before < 11 * MIB
    gateway.end(attempt.xcoms["job_id"])


@pytest.mark.parametrize(
    ("how", "fields"),
    [({"failed": True}, {}), ({"rejected": 1}, {"fail_on_rejects": True})],
    ids=["failed", "rejects"],
)
def test_a_bad_end_of_the_job_fails_the_task_for_good(
    connected: Gateway, path: Path, attempt: Try, how: dict[str, Any], fields: dict[str, Any]
) -> None:
    task = deliver(path, deferrable=True, **fields)
    waiting = deferred(task, attempt)
    state = connected.end(attempt.xcoms["job_id"], **how)
    event = fired(waiting.trigger)
    assert event["outcome"] == state
    with pytest.raises(AirflowFailException, match=state):
        task.execute_complete(attempt.context, event)
    assert attempt.xcoms["rejects"]["total"] == how.get("rejected", 0)


def test_other_files_by_the_same_reference_fail_the_task_for_good_and_missing_ones_may_come(
    connected: Gateway, path: Path, attempt: Try
) -> None:
    with pytest.raises(AirflowException, match="No such file") as missing:
        deliver(path.with_name("absent.csv")).execute(attempt.context)
    assert not isinstance(missing.value, AirflowFailException)
    task = deliver(path, wait_for_job=False)
    task.execute(attempt.context)
    path.write_text("id,note\n2,other\n")
    with pytest.raises(AirflowFailException, match="with other files"):
        task.execute(attempt.context)


def test_a_gateway_that_is_away_is_left_to_the_retries_and_a_wrong_password_is_not(
    gateway: Gateway, path: Path, attempt: Try, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONN, gateway.connection(host="http://127.0.0.1:9"))
    with pytest.raises(AirflowException, match="did not answer") as away:
        deliver(path, patience=timedelta(0)).execute(attempt.context)
    assert not isinstance(away.value, AirflowFailException)
    monkeypatch.setenv(CONN, gateway.connection(password="wrong"))
    with pytest.raises(AirflowFailException, match="invalid_client"):
        deliver(path).execute(attempt.context)
    monkeypatch.setenv(CONN, gateway.connection(host="http://gateway.example"))
    with pytest.raises(AirflowFailException, match="unencrypted"):
        deliver(path).execute(attempt.context)


def test_a_task_that_is_ended_cancels_its_job_and_run_again_has_it_processed_again(
    gateway: Gateway, path: Path, attempt: Try, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONN, gateway.connection("acme-operator", extra={"account": "person"}))
    task = deliver(path, deferrable=False)
    result = beside(lambda: task.execute(attempt.context))
    job = until(lambda: attempt.xcoms.get("job_id"))
    task.on_kill()
    with pytest.raises(AirflowException, match="stopped"):
        result.result(timeout=30)
    with GatewayHook().get_conn() as speaker:
        assert speaker.get_job(job).state == "canceled"

    again = Try()
    waiting = deferred(deliver(path, deferrable=True, reference=task.reference), again)
    assert again.xcoms["job_id"] != job
    assert gateway.end(again.xcoms["job_id"]) == "succeeded"
    assert fired(waiting.trigger)["outcome"] == "succeeded"


def test_a_canceled_job_stays_so_for_who_may_not_have_it_processed_again(
    gateway: Gateway, path: Path, attempt: Try, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONN, gateway.connection("acme-operator", extra={"account": "person"}))
    task = deliver(path, deferrable=True)
    trigger = deferred(task, attempt).trigger
    asyncio.run(trigger.on_kill())
    monkeypatch.setenv(CONN, gateway.connection())
    with pytest.raises(AirflowFailException, match="canceled"):
        deliver(path, deferrable=True, reference=task.reference).execute(Try().context)


def test_a_wait_that_is_over_is_a_failure_that_may_be_retried(
    connected: Gateway, path: Path, attempt: Try
) -> None:
    task = deliver(path, deferrable=True, wait_timeout=timedelta(0))
    event = fired(deferred(task, attempt).trigger)
    assert event["outcome"] == "timeout"
    with pytest.raises(AirflowException, match="still queued") as over:
        task.execute_complete(attempt.context, event)
    assert not isinstance(over.value, AirflowFailException)
    connected.end(attempt.xcoms["job_id"])


def test_the_link_leads_to_the_page_that_the_connection_names(
    gateway: Gateway, path: Path, attempt: Try, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = "https://airflow.example/auth/views/jobs/{job}"
    monkeypatch.setenv(CONN, gateway.connection(extra={"page": page}))
    task = deliver(path, deferrable=True)
    deferred(task, attempt)
    job = attempt.xcoms["job_id"]
    wanted = f"https://airflow.example/auth/views/jobs/{job}"
    assert attempt.xcoms["_link_GatewayJobLink"] == wanted
    (link,) = task.operator_extra_links
    assert link.get_link(task, ti_key=None) == wanted
    gateway.end(job)


def test_what_a_task_delivers_may_be_a_template() -> None:
    task = deliver(
        "{{ folder }}/a.zip",
        reference="daily {{ ds }}",
        period={"start": "{{ ds }}", "end": "{{ ds }}"},
    )
    task.render_template_fields({"ds": "2026-01-31", "folder": "/exports"})
    assert (task.reference, task.paths) == ("daily 2026-01-31", "/exports/a.zip")
    assert task.period == {"start": "2026-01-31", "end": "2026-01-31"}


def test_the_form_can_try_a_connection(connected: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    assert GatewayHook().test_connection() == (
        True,
        "Signed in as acme-uploader; files go by multipart, put, tus",
    )
    monkeypatch.setenv(CONN, connected.connection(password="wrong"))
    is_good, reason = GatewayHook().test_connection()
    assert not is_good
    assert "invalid_client" in reason
