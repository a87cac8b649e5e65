"""What a replay starts from, what its run is told, and how its outcome differs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import KeySet
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from gateway.batches import layers, orders, seal
from gateway.batches.model import Batch
from gateway.batches.seal import NothingStagedError
from gateway.bootstrap import Services
from gateway.jobs import changes
from gateway.jobs.model import Job
from gateway.onboarding import apply, spec
from tests import factories
from tests.batches import making
from tests.batches.making import ACME, Sealer, landed, opened
from tests.jobs.making import rejects, report

STRICTER = {**factories.CONTRACT, "version": "2.0.0"}


@pytest.fixture(autouse=True)
def two_clients(services: Services) -> None:
    factories.onboard_two(services.sessions)


@pytest.fixture
def batch(services: Services) -> Batch:
    return making.sealed(services)


def last(services: Services, batch: Batch) -> Job:
    with services.sessions.begin() as session:
        return max(jobs_of(session, batch), key=lambda each: each.attempt)


def jobs_of(session: Session, batch: Batch) -> list[Job]:
    return session.query(Job).filter_by(batch_id=batch.id).all()


def ends(services: Services, job: Job, state: str = "succeeded") -> None:
    with services.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == job.id).values(state=state))


def correct(sessions: sessionmaker[Session], contract: dict[str, Any] = STRICTER) -> None:
    document = {
        "client": "acme",
        "name": "Acme",
        "projects": {"flights": {"contract": contract}},
    }
    with sessions.begin() as session:
        apply.apply(session, spec.parse(document), actor="operator:test")


def replayed(services: Services, batch: Batch, *choice: Any) -> Job:
    with services.sessions.begin() as session:
        return seal.replay(session, ACME, batch.id, "again", *choice)


def order_of(services: Services, job: Job) -> dict[str, Any]:
    with services.sessions.begin() as session:
        batch = session.get_one(Batch, job.batch_id)
        found: dict[str, Any] = json.loads(orders.document_of(session, job, batch))
        return found


def test_a_job_keeps_the_contract_that_was_in_force_when_it_was_queued(
    services: Services, batch: Batch
) -> None:
    first = last(services, batch)
    correct(services.sessions)
    assert order_of(services, first)["contract"] == factories.CONTRACT
    assert order_of(services, first)["on_reject"]["policy"]


@pytest.mark.parametrize(("choice", "version"), [("latest", "2.0.0"), ("pinned", "1.0.0")], ids=str)
def test_a_replay_is_under_the_latest_contract_or_the_pinned_one(
    services: Services, batch: Batch, choice: str, version: str
) -> None:
    ends(services, last(services, batch))
    correct(services.sessions)
    job = replayed(services, batch, "landing", choice)
    assert order_of(services, job)["contract"]["version"] == version


def test_pinned_is_the_contract_of_the_last_attempt_that_loaded(
    services: Services, batch: Batch
) -> None:
    ends(services, last(services, batch))
    correct(services.sessions)
    ends(services, replayed(services, batch), "failed")
    job = replayed(services, batch, "landing", "pinned")
    assert order_of(services, job)["contract"]["version"] == "1.0.0"


def test_a_replay_starts_from_what_the_last_whole_attempt_staged(
    services: Services, batch: Batch
) -> None:
    first = last(services, batch)
    report(services.sessions, first, total=1, map_index=0)
    ends(services, first)
    job = replayed(services, batch, "staged", "latest")
    told = order_of(services, job)
    assert (told["from"], told["staged_job"]) == ("staged", first.id)


def test_without_staged_rows_of_its_contract_a_replay_is_refused(
    services: Services, batch: Batch
) -> None:
    first = last(services, batch)
    report(services.sessions, first, total=2, map_index=0)
    ends(services, first)
    with pytest.raises(NothingStagedError):
        replayed(services, batch, "staged", "latest")  # half of it was staged
    with services.sessions.begin() as session:
        session.get_one(Job, first.id).state = "running"
    report(services.sessions, first, total=2, map_index=1)
    ends(services, first)
    correct(services.sessions)
    with pytest.raises(NothingStagedError):
        replayed(services, batch, "staged", "latest")
    with services.sessions.begin() as session:
        layers.decide(session, batch.id, "staged")
        layers.cleared(session, batch.id, "staged")
    with pytest.raises(NothingStagedError):
        replayed(services, batch, "staged", "pinned")


def test_an_order_names_every_batch_that_it_retires_and_is_signed(
    services: Services, batch: Batch
) -> None:
    middle = opened(services.sessions, "2013b", supersedes=batch.id)
    newest = opened(services.sessions, "2013c", supersedes=middle.id)
    landed(services, newest)
    _, job = Sealer(services)(newest)
    told = order_of(services, job)
    assert told["retires"] == [middle.id, batch.id]
    documents = orders.documents(services.keys, job, json.dumps(told).encode())
    services.zone.write_documents(making.path(newest), documents)
    place = services.settings.landing.root / "acme" / "flights" / newest.id / f"{job.id}.jws"
    keys = KeySet.import_key_set(services.keys.jwks())
    found = jws.deserialize_compact(place.read_bytes(), keys)
    assert found.headers()["typ"] == "order+jws"
    assert json.loads(found.payload) == told


def rows(file: str, read: int, loaded: int, rejected: int) -> dict[str, Any]:
    return {"file": file, "read": read, "loaded": loaded, "rejected": rejected}


def test_an_attempt_says_how_it_differs_from_the_one_before(
    services: Services, batch: Batch
) -> None:
    first = last(services, batch)
    files = [rows("a.csv", 5, 0, 2), rows("b.csv", 3, 0, 0)]
    report(services.sessions, first, files=files, rejects=rejects(2))
    ends(services, first)
    correct(services.sessions)
    second = replayed(services, batch)
    files = [rows("a.csv", 5, 0, 1), rows("b.csv", 3, 0, 0)]
    found = [*rejects(1), *rejects(2, rule="unique")]
    for _ in range(2):
        report(services.sessions, second, files=files, rejects=found)
    with services.sessions.begin() as session:
        assert changes.against_earlier(session, session.get_one(Job, first.id)) is None
        going = changes.against_earlier(session, session.get_one(Job, second.id))
        assert going is None, "what has not come out yet is not compared with every poll"
    ends(services, second)
    with services.sessions.begin() as session:
        told = changes.against_earlier(session, session.get_one(Job, second.id))
    assert told is not None
    assert (told.earlier_job, told.contract_changed, told.files_changed) == (first.id, True, 1)
    (changed,) = told.files
    assert changed.before is not None
    assert changed.after is not None
    assert (changed.file, changed.before.rejected, changed.after.rejected) == ("a.csv", 2, 1)
    assert told.rejects.model_dump() == {"new": 2, "gone": 1, "is_complete": True}
