"""Exactly one run for each job, whatever goes wrong on the way."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.batches.model import Manifest
from gateway.dispatch import messenger, trigger
from gateway.jobs.model import Job
from gateway.outbox.model import Message
from tests.dispatch.dispatching import Desk
from tests.fakes.airflow_server import Dag

CONTRACT = Path(__file__).parents[2] / "airflow" / "contract"


def test_a_sealed_batch_gets_one_run_told_exactly_the_contracts_conf(desk: Desk) -> None:
    job_id = desk.dispatch()
    run = desk.airflow.runs["acme__flights", f"gw.{job_id}"]
    golden = json.loads((CONTRACT / "dag_run_conf.json").read_text())
    job = desk.job(job_id)
    assert run["conf"].keys() == golden.keys()
    assert run["conf"] == {
        "contract": golden["contract"],
        "job_id": job_id,
        "batch_id": job.batch_id,
        "client": "acme",
        "project": "flights",
        "attempt": 1,
    }
    assert desk.airflow.created == {f"gw.{job_id}": 1}
    assert desk.message(job_id).state == "done"
    assert desk.actions(job_id) == ["job.queued", "job.dispatched"]


def test_the_run_is_started_with_a_short_token_for_its_client_and_dag_alone(desk: Desk) -> None:
    desk.dispatch()
    _, _, claims = desk.airflow.requests[-1]
    golden = json.loads((CONTRACT / "token_claims.json").read_text())["trigger"]["claims"]
    assert claims.keys() == golden.keys()
    shown = {name: claims[name] for name in ("aud", "sub", "client", "scope", "dags")}
    assert shown == {name: golden[name] for name in shown}
    assert claims["exp"] - claims["iat"] == 60


def test_manifest_and_receipt_lie_beside_the_files_before_the_run_is_asked_for(desk: Desk) -> None:
    desk.airflow.down()
    job_id = desk.seal()
    desk.carry()
    job = desk.job(job_id)
    folder = desk.services.settings.landing.root / "acme" / "flights" / job.batch_id
    with desk.services.sessions.begin() as session:
        manifest = session.get_one(Manifest, job.batch_id)
    assert (folder / "manifest.json").read_bytes() == manifest.document
    assert (folder / "receipt.jws").read_text() == manifest.receipt


@pytest.mark.parametrize("act", ["drop", "hang"])
def test_an_answer_lost_after_airflow_accepted_still_makes_one_run(desk: Desk, act: str) -> None:
    desk.airflow.fail(act, method="POST", after=True, times=1)
    job_id = desk.dispatch()
    assert desk.airflow.created == {f"gw.{job_id}": 1}
    assert desk.airflow.count("POST", "dagRuns") == 1


@pytest.mark.parametrize("act", ["drop", "hang"])
def test_a_request_lost_before_airflow_saw_it_is_repeated_after_a_look(
    desk: Desk, act: str
) -> None:
    desk.airflow.fail(act, method="POST", times=1)
    job_id = desk.seal()
    desk.carry()
    assert (desk.job(job_id).state, desk.job(job_id).waiting_reason) == (
        "queued",
        "airflow-unavailable",
    )
    desk.carry()
    assert desk.job(job_id).state == "dispatched"
    assert desk.airflow.created == {f"gw.{job_id}": 1}
    assert [verb for verb, _, _ in desk.airflow.requests] == ["POST", "GET", "GET", "POST"]


def test_a_500_after_airflow_accepted_makes_no_second_run(desk: Desk) -> None:
    desk.airflow.fail(500, method="POST", after=True, times=1)
    job_id = desk.seal()
    desk.carry()
    assert desk.job(job_id).state == "queued"
    desk.carry()
    assert desk.job(job_id).state == "dispatched"
    assert desk.airflow.count("POST", "dagRuns") == 1


def test_a_run_that_is_there_already_is_taken_for_what_it_is(desk: Desk) -> None:
    job_id = desk.seal()
    _start_by_hand(desk, job_id)
    desk.carry()
    assert desk.job(job_id).state == "dispatched"
    assert desk.airflow.created == {f"gw.{job_id}": 1}


def test_a_run_of_the_same_id_for_another_job_is_quarantined_at_once(desk: Desk) -> None:
    job_id = desk.seal()
    _start_by_hand(desk, job_id, job_in_conf="job_of_somebody_else")
    desk.carry()
    assert (desk.job(job_id).state, desk.job(job_id).waiting_reason) == ("blocked", "quarantined")
    assert desk.message(job_id).state == "quarantined"
    assert "message.quarantined" in desk.actions(job_id)
    assert desk.message(job_id).last_error == "run-taken, 1 in a row"


def test_a_worker_killed_after_airflow_accepted_is_followed_by_another(desk: Desk) -> None:
    job_id = desk.seal()
    lost = desk.claim(claim_seconds=0)
    _start_by_hand(desk, job_id)
    trigger.carry(desk.parts, desk.claim())
    assert desk.job(job_id).state == "dispatched"
    # The first worker was only stopped, and goes on as if nothing had happened.
    trigger.carry(desk.parts, lost)
    assert desk.airflow.created == {f"gw.{job_id}": 1}
    assert desk.actions(job_id) == ["job.queued", "job.dispatched"]


def test_a_worker_whose_claim_lapsed_changes_nothing(desk: Desk) -> None:
    job_id = desk.seal()
    slow = desk.claim(claim_seconds=0)
    desk.claim(claim_seconds=60)
    desk.airflow.fail(401)
    trigger.carry(desk.parts, slow)
    assert desk.job(job_id).waiting_reason is None
    assert desk.message(job_id).last_error is None


def test_the_same_claim_carried_by_many_at_once_makes_one_run(desk: Desk) -> None:
    job_id = desk.seal()
    claim = desk.claim()
    threads = [threading.Thread(target=trigger.carry, args=(desk.parts, claim)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert desk.airflow.created == {f"gw.{job_id}": 1}
    assert desk.actions(job_id) == ["job.queued", "job.dispatched"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_overloaded_airflow_is_waited_for_however_long(desk: Desk, status: int) -> None:
    fault = desk.airflow.fail(status)
    job_id = desk.seal()
    for _ in range(5):
        desk.carry()
    assert (desk.job(job_id).state, desk.job(job_id).waiting_reason) == (
        "queued",
        "airflow-unavailable",
    )
    assert desk.actions(job_id) == ["job.queued"]
    fault.times = 0
    desk.carry()
    assert desk.job(job_id).state == "dispatched"
    assert desk.job(job_id).waiting_reason is None


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusing_airflow_is_borne_a_bounded_number_of_times(desk: Desk, status: int) -> None:
    desk.airflow.fail(status)
    job_id = desk.seal()
    for _ in range(2):
        desk.carry()
    assert (desk.job(job_id).state, desk.job(job_id).waiting_reason) == (
        "queued",
        "airflow-refused",
    )
    desk.carry()
    assert (desk.job(job_id).state, desk.job(job_id).waiting_reason) == ("blocked", "quarantined")
    assert desk.message(job_id).last_error == "airflow-refused, 3 in a row"


def test_failures_that_airflow_cannot_help_are_not_counted(desk: Desk) -> None:
    desk.airflow.fail(503, times=6)
    desk.airflow.fail(401, times=2)
    job_id = desk.seal()
    for _ in range(5):
        desk.carry()
    assert desk.message(job_id).attempts == 5
    assert desk.message(job_id).state == "pending"


def test_only_the_same_failure_in_a_row_is_counted_up(desk: Desk) -> None:
    for status in (401, 422, 401, 422):
        desk.airflow.fail(status, times=1)
    job_id = desk.seal()
    for _ in range(4):
        desk.carry()
    assert desk.message(job_id).last_error == "airflow-rejected, 1 in a row"
    assert desk.message(job_id).state == "pending"


def test_a_quarantined_job_that_an_operator_retries_is_dispatched(desk: Desk) -> None:
    from gateway.jobs import states

    fault = desk.airflow.fail(401)
    job_id = desk.seal()
    for _ in range(3):
        desk.carry()
    assert desk.message(job_id).state == "quarantined"
    fault.times = 0
    with desk.services.sessions.begin() as session:
        states.retry(session, job_id, actor="platform-admin")
    desk.carry()
    assert desk.job(job_id).state == "dispatched"


def test_an_unknown_dag_blocks_the_job_until_it_is_there(desk: Desk) -> None:
    del desk.airflow.dags["acme__flights"]
    job_id = desk.seal()
    desk.carry()
    assert (desk.job(job_id).state, desk.job(job_id).waiting_reason) == ("blocked", "dag-missing")
    desk.airflow.dags["acme__flights"] = Dag()
    desk.parts.holds.clear()
    desk.carry()
    assert desk.job(job_id).state == "dispatched"
    assert desk.actions(job_id) == ["job.queued", "job.blocked", "job.dispatched"]


def test_a_broken_dag_blocks_the_job_however_long_and_says_so_once(desk: Desk) -> None:
    desk.airflow.dags["acme__flights"].has_import_errors = True
    job_id = desk.seal()
    for _ in range(5):
        desk.carry()
        desk.parts.holds.clear()
    assert (desk.job(job_id).state, desk.job(job_id).waiting_reason) == ("blocked", "dag-broken")
    assert desk.actions(job_id) == ["job.queued", "job.blocked"]


def test_a_thousand_jobs_of_a_missing_dag_do_not_besiege_airflow(desk: Desk) -> None:
    del desk.airflow.dags["acme__flights"]
    jobs = [desk.seal() for _ in range(5)]
    parts = replace(desk.parts, hold_seconds=60)
    for claim in [desk.claim() for _ in jobs]:
        trigger.carry(parts, claim)
    assert {desk.job(job_id).waiting_reason for job_id in jobs} == {"dag-missing"}
    assert desk.airflow.count("POST", "dagRuns") == 1


def test_a_blocked_job_is_not_called_queued_again_when_airflow_goes_away(desk: Desk) -> None:
    del desk.airflow.dags["acme__flights"]
    job_id = desk.seal()
    desk.carry()
    desk.parts.holds.clear()
    desk.airflow.fail(503)
    desk.carry()
    assert (desk.job(job_id).state, desk.job(job_id).waiting_reason) == ("blocked", "dag-missing")


def test_a_job_canceled_before_its_turn_gets_no_run(desk: Desk) -> None:
    job_id = desk.seal()
    desk.cancel(job_id)
    desk.carry()
    assert not desk.airflow.requests
    assert desk.job(job_id).state == "canceled"
    assert desk.message(job_id).state == "done"


def test_a_job_canceled_while_its_run_is_being_started_has_the_run_ended(desk: Desk) -> None:
    job_id = desk.seal()
    desk.airflow.fail("hang", method="POST", after=True, times=1)
    claim = desk.claim()
    thread = threading.Thread(target=trigger.carry, args=(desk.parts, claim))
    thread.start()
    while not desk.airflow.created:
        thread.join(0.01)
    desk.cancel(job_id)
    thread.join()
    assert desk.airflow.runs["acme__flights", f"gw.{job_id}"]["state"] == "failed"
    assert desk.job(job_id).state == "canceled"
    assert desk.message(job_id).state == "done"


def test_a_full_disk_is_waited_for(desk: Desk) -> None:
    job_id = desk.seal()
    folder = desk.services.settings.landing.root / "acme" / "flights"
    batch_id = desk.job(job_id).batch_id
    # No directory entry can be made where a file stands.
    (folder / batch_id).rename(folder / "aside")
    (folder / batch_id).write_text("")
    desk.carry()
    assert not desk.airflow.requests
    assert desk.message(job_id).state == "pending"
    (folder / batch_id).unlink()
    (folder / "aside").rename(folder / batch_id)
    desk.carry()
    assert desk.job(job_id).state == "dispatched"


def test_a_message_that_makes_no_sense_is_set_aside(desk: Desk) -> None:
    job_id = desk.seal()
    with desk.services.sessions.begin() as session:
        batch_id = session.get_one(Job, job_id).batch_id
        session.delete(session.get_one(Manifest, batch_id))
    for _ in range(3):
        desk.carry()
    message: Message = desk.message(job_id)
    assert (message.state, message.last_error) == ("quarantined", "internal-error, 3 in a row")
    assert desk.job(job_id).state == "blocked"


def _start_by_hand(desk: Desk, job_id: str, job_in_conf: str | None = None) -> None:
    job = desk.job(job_id)
    told = trigger.conf(job) | {"job_id": job_in_conf or job_id}
    token = desk.parts.trigger_token(job.client, "acme__flights")
    run_id = messenger.run_id(job_id)
    desk.services.airflow_api.trigger(token, "acme__flights", run_id, told)
