"""The reaper: what is over ends, what is in use goes on, what cannot be ended is said aloud."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import psycopg2
import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from gateway import worker
from gateway.bootstrap import Services
from gateway.jobs.model import Job
from gateway.leases import ledger, reaper
from gateway.leases.lending import Lending
from gateway.leases.model import Lease
from gateway.leases.resources import Resources
from gateway.leases.resources.driver import Connection, Purpose, ResourceUnavailableError
from gateway.leases.resources.postgres import Postgres
from gateway.leases.views import LeaseRequest
from tests.dispatch.dispatching import until
from tests.jobs import making
from tests.leases.asking import ACTOR, Desk, asked, connected, wanted
from tests.parts import Databases, free_port


def works(found: Connection) -> bool:
    try:
        connected(found).close()
    except psycopg2.OperationalError:
        return False
    return True


def test_a_lease_ends_with_its_job_and_so_do_its_sessions(desk: Desk) -> None:
    job = desk.running()
    lease, found = desk.ask(job)
    task = connected(found)
    assert reaper.turn(desk.lending).revoked == 0
    assert asked(task, "SELECT 1") == [(1,)]
    desk.move(job, "failed")
    assert reaper.turn(desk.lending).revoked == 1
    with pytest.raises(psycopg2.Error):
        asked(task, "SELECT 1")
    row = desk.lease(lease.id)
    assert (row.state, row.reason) == ("revoked", "job-ended")
    assert not works(found)
    assert reaper.turn(desk.lending) == reaper.Turn(0, 0, 0)


def test_a_lease_ends_when_its_task_says_it_is_done(desk: Desk) -> None:
    job = desk.running()
    done, _ = desk.ask(job, "landing", map_index=0)
    other, _ = desk.ask(job, "landing", map_index=1)
    making.report(desk.sessions, job, map_index=0, state="running", total=2)
    assert reaper.turn(desk.lending).ended == 0
    making.report(desk.sessions, job, map_index=0, state="failed", total=2)
    assert reaper.turn(desk.lending).revoked == 1
    assert desk.lease(done.id).reason == "task-ended"
    assert desk.lease(other.id).state == "issued"
    again, _ = desk.ask(job, "landing", map_index=0, try_number=2)
    assert reaper.turn(desk.lending).ended == 0, "an earlier try's end is not this one's"
    assert desk.lease(again.id).state == "issued"


def test_a_lease_ends_at_its_time_with_its_sessions(desk: Desk) -> None:
    lease, found = desk.ask(desk.running())
    task = connected(found)
    desk.age(lease.id, expires_at=1000)
    assert reaper.turn(desk.lending).revoked == 1
    assert desk.lease(lease.id).reason == "expired"
    with pytest.raises(psycopg2.Error):
        asked(task, "SELECT 1")


def test_a_lease_in_use_is_renewed_at_half_its_time_and_no_longer_than_any_may_live(
    desk: Desk,
) -> None:
    lease, found = desk.ask(desk.running())
    assert reaper.turn(desk.lending).renewed == 0
    desk.age(lease.id, expires_at=500)
    assert reaper.turn(desk.lending).renewed == 1
    row = desk.lease(lease.id)
    assert row.renewed_at is not None
    assert 890 < (row.expires_at - row.renewed_at).total_seconds() <= 901
    assert "lease.renewed" in desk.actions(lease.id)
    assert works(found)

    most = desk.lending.config.max_seconds
    desk.age(lease.id, created_at=most - 100, expires_at=850)
    desk.due(lease.id)
    assert reaper.turn(desk.lending).renewed == 1
    row = desk.lease(lease.id)
    assert abs((row.expires_at - row.created_at).total_seconds() - most) < 5
    desk.due(lease.id)
    assert reaper.turn(desk.lending).renewed == 0, "it has had its time"


def test_a_crash_between_intent_and_issue_leaves_nothing_usable(desk: Desk) -> None:
    driver = desk.lending.resources.offered["postgres"]
    job = desk.running()
    intents = []
    for made in (False, True):
        request = LeaseRequest.model_validate(wanted(job, map_index=int(made)))
        with desk.sessions.begin() as session:
            lease, purpose = ledger.intend(
                session, desk.lending.config, request, driver, actor=ACTOR
            )
        intents.append((lease, driver.issue(purpose, 900) if made else None))
    assert reaper.turn(desk.lending).revoked == 0, "it may be about to be issued"
    for lease, _ in intents:
        desk.age(lease.id, created_at=ledger.INTENT_SECONDS + 1)
    assert reaper.turn(desk.lending).revoked == 2
    for lease, found in intents:
        row = desk.lease(lease.id)
        assert (row.state, row.reason) == ("revoked", "never-issued")
        assert found is None or not works(found)
    assert not {lease.id for lease, _ in intents} & set(held(desk))


def held(desk: Desk) -> list[str]:
    driver = desk.lending.resources.offered["postgres"]
    assert isinstance(driver, Postgres)
    return driver.held()


class Overtaken(Postgres):
    """A server that takes so long that the reaper believes whoever asks dead."""

    def __init__(self, url: str, meanwhile: Callable[[str], None]) -> None:
        super().__init__(url, "client_template")
        self.meanwhile = meanwhile

    def issue(self, purpose: Purpose, seconds: float) -> Connection:
        self.meanwhile(purpose.lease)
        return super().issue(purpose, seconds)


def test_whoever_comes_after_the_reaper_hands_nothing_out_and_leaves_nothing(
    desk: Desk, lessor_url: str
) -> None:
    def meanwhile(lease_id: str) -> None:
        desk.age(lease_id, created_at=ledger.INTENT_SECONDS + 1)
        assert reaper.turn(desk.lending).revoked == 1

    late = {"postgres": Overtaken(lessor_url, meanwhile)}
    lending = replace(desk.lending, resources=Resources(late, late))
    with pytest.raises(ResourceUnavailableError):
        lending.issue(LeaseRequest.model_validate(wanted(desk.running())), actor=ACTOR)
    with desk.sessions.begin() as session:
        (lease,) = session.scalars(select(Lease)).all()
    assert lease.state == "revoked"
    assert lease.id not in held(desk)


def test_what_a_stopped_process_made_after_all_is_found_and_ended(desk: Desk) -> None:
    driver = desk.lending.resources.offered["postgres"]
    request = LeaseRequest.model_validate(wanted(desk.running()))
    with desk.sessions.begin() as session:
        lease, purpose = ledger.intend(session, desk.lending.config, request, driver, actor=ACTOR)
    desk.age(lease.id, created_at=ledger.INTENT_SECONDS + 1)
    assert reaper.turn(desk.lending).revoked == 1
    found = driver.issue(purpose, 900)
    stranger = driver.issue(replace(purpose, lease="lea_" + "0" * 26), 900)
    assert reaper.find_strays(desk.lending) == 1
    assert reaper.turn(desk.lending).revoked == 1
    assert not works(found)
    assert works(stranger), "what no ledger of ours knows is another's"
    driver.revoke({"role": "lea_" + "0" * 26, "place": stranger.schema})


def away(desk: Desk) -> Lending:
    """Return a lending whose Postgres does not answer."""
    gone = {
        **desk.lending.resources.known,
        "postgres": Postgres(f"postgresql://l:x@127.0.0.1:{free_port()}/postgres", "t"),
    }
    return replace(desk.lending, resources=Resources(gone, gone))


def test_a_failed_issue_is_unavailable_and_is_cleared_up(desk: Desk) -> None:
    request = LeaseRequest.model_validate(wanted(desk.running()))
    with pytest.raises(ResourceUnavailableError):
        away(desk).issue(request, actor=ACTOR)
    assert reaper.turn(desk.lending).revoked == 1


def test_a_database_that_is_away_gives_no_lease_and_delays_only_the_end_of_others(
    desk: Desk, databases: Databases, database_url: str
) -> None:
    job, other = desk.running(), desk.running("globex", "weather")
    lease, found = desk.ask(job)
    desk.move(job, "succeeded")
    with databases.away(database_url):
        with pytest.raises(OperationalError):
            desk.ask(other)
        with pytest.raises(OperationalError):
            reaper.turn(desk.lending)
        assert works(found)
    assert held(desk) == [lease.id]
    assert reaper.turn(desk.lending).revoked == 1
    assert not works(found)
    assert held(desk) == []


def test_a_lease_that_cannot_be_revoked_is_listed_counted_and_ends_when_it_can(
    desk: Desk, client: TestClient, bearer: Callable[[str], dict[str, str]]
) -> None:
    job = desk.running()
    lease, found = desk.ask(job)
    other, _ = desk.ask(job, "landing")
    desk.move(job, "succeeded")
    lending = away(desk)
    assert reaper.turn(lending).revoked == 1, "one system's absence is not another's"
    assert desk.lease(other.id).state == "revoked"
    row = desk.lease(lease.id)
    assert (row.state, row.attempts) == ("revoking", 1)
    assert (row.last_error or "").startswith("OperationalError")
    assert reaper.turn(lending).revoked == 0
    assert desk.lease(lease.id).attempts == 1, "not before its pause is over"
    desk.due(lease.id)
    reaper.turn(lending)
    assert desk.lease(lease.id).state == "irrevocable"
    assert desk.actions(lease.id)[-1] == "lease.irrevocable"

    admin = bearer("admin")
    listed = client.get("/v1/admin/leases?state=irrevocable", headers=admin).json()["items"]
    assert [each["id"] for each in listed] == [lease.id]
    gauge = 'gateway_leases{resource="postgres",state="irrevocable"} 1.0'
    assert gauge in client.get("/metrics").text
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["leases"]) == (200, "irrevocable")

    assert works(found)
    desk.due(lease.id)
    assert reaper.turn(desk.lending).revoked == 1, "it is tried again now and then"
    assert not works(found)
    assert client.get("/readyz").json()["checks"]["leases"] == "ok"


def test_an_administrator_can_have_an_irrevocable_lease_tried_again(
    desk: Desk, client: TestClient, bearer: Callable[[str], dict[str, str]]
) -> None:
    job = desk.running()
    lease, found = desk.ask(job)
    desk.move(job, "succeeded")
    for _ in range(2):
        desk.due(lease.id)
        reaper.turn(away(desk))
    assert desk.lease(lease.id).state == "irrevocable"
    path = f"/v1/admin/leases/{lease.id}/revoke"
    answer = client.post(path, headers=bearer("admin"))
    assert answer.json()["state"] == "revoked"
    assert not works(found)


def test_a_lease_of_a_system_that_is_configured_no_more_is_said_to_be_stuck(desk: Desk) -> None:
    job = desk.running()
    lease, _ = desk.ask(job)
    desk.move(job, "succeeded")
    known = {
        name: each for name, each in desk.lending.resources.known.items() if name != "postgres"
    }
    reaper.turn(replace(desk.lending, resources=Resources({}, known)))
    row = desk.lease(lease.id)
    assert (row.state, row.last_error) == ("revoking", "not-configured")


def test_the_worker_ends_leases_by_itself(services: Services, desk: Desk) -> None:
    job = desk.running()
    lease, _ = desk.ask(job, "landing")
    desk.move(job, "succeeded")
    stop = threading.Event()
    loop = worker.Leases(services, stop)
    turning = threading.Thread(target=loop.turn)
    turning.start()
    until(lambda: desk.lease(lease.id).state == "revoked")
    stop.set()
    turning.join(5)
    with desk.sessions.begin() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1
