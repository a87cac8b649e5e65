from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from gateway import database
from gateway.audit.model import AuditEvent
from gateway.batches import ledger, states
from gateway.batches.ledger import (
    BatchClosedError,
    BatchExistsError,
    BatchSealedError,
    QuotaExceededError,
)
from gateway.batches.model import Batch, File
from gateway.clients import usage
from gateway.clients.registry import Client, ClientSuspendedError
from gateway.errors import InvalidRequestError, NotFoundError
from gateway.events import feed
from tests import factories
from tests.batches import making
from tests.batches.making import ACME, GLOBEX, opened


@pytest.fixture(autouse=True)
def two_clients(sessions: sessionmaker[Session]) -> None:
    factories.onboard_two(sessions)


def state(sessions: sessionmaker[Session], batch: Batch) -> str:
    with sessions.begin() as session:
        return session.get_one(Batch, batch.id).state


def put_into(sessions: sessionmaker[Session], batch: Batch, state: str) -> None:
    with sessions.begin() as session:
        session.execute(update(Batch).where(Batch.id == batch.id).values(state=state))


def told(sessions: sessionmaker[Session], batch: Batch) -> tuple[list[str], list[str]]:
    with sessions.begin() as session:
        found = feed.after(session, batch.client, 0, 100)
        query = select(AuditEvent.action).where(AuditEvent.subject == batch.id)
        records = list(session.scalars(query.order_by(AuditEvent.number)))
        return [each.type for each in found if each.subject == batch.id], records


def test_an_opened_batch_is_told_and_recorded(sessions: sessionmaker[Session]) -> None:
    batch = opened(sessions)
    assert batch.state == "open"
    assert told(sessions, batch) == (["batch.created"], ["batch.created"])


def test_a_second_live_batch_of_a_reference_names_the_first(
    sessions: sessionmaker[Session],
) -> None:
    first = opened(sessions)
    with pytest.raises(BatchExistsError) as refused:
        opened(sessions)
    assert refused.value.headers == {"Location": f"/v1/batches/{first.id}"}
    with sessions.begin() as session:
        assert session.scalar(select(func.count()).select_from(Batch)) == 1


def test_a_reference_is_free_again_after_a_cancel(sessions: sessionmaker[Session]) -> None:
    first = opened(sessions)
    with sessions.begin() as session:
        ledger.cancel(session, ACME, first.id)
    assert opened(sessions).id != first.id


def test_two_clients_may_use_one_reference(sessions: sessionmaker[Session]) -> None:
    opened(sessions, "same")
    assert opened(sessions, "same", GLOBEX).client == "globex"


def test_a_project_of_another_client_is_unknown(sessions: sessionmaker[Session]) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        opened(sessions, project="weather")
    assert [each.code for each in refused.value.errors] == ["unknown-project"]


def test_a_suspended_client_opens_nothing(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        session.get_one(Client, "acme").state = "suspended"
    with pytest.raises(ClientSuspendedError):
        opened(sessions)


def test_only_an_own_batch_of_the_project_can_be_superseded(
    sessions: sessionmaker[Session],
) -> None:
    own, foreign = opened(sessions, "1"), opened(sessions, "1", GLOBEX)
    assert opened(sessions, "2", supersedes=own.id).supersedes == own.id
    with pytest.raises(InvalidRequestError) as refused:
        opened(sessions, "3", supersedes=foreign.id)
    assert [each.code for each in refused.value.errors] == ["unknown-batch"]


def test_of_many_opened_at_once_exactly_the_limit_is_taken(
    sessions: sessionmaker[Session],
) -> None:
    factories.onboard(sessions, "acme", ("flights",), open_batches=3)
    barrier = threading.Barrier(8)
    outcomes: list[str] = []

    def one(number: int) -> None:
        barrier.wait()
        try:
            outcomes.append(opened(sessions, str(number)).state)
        except QuotaExceededError as error:
            outcomes.append(error.slug)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["open"] * 3 + ["quota-exceeded"] * 5


def test_of_many_of_one_reference_at_once_one_is_taken(sessions: sessionmaker[Session]) -> None:
    barrier = threading.Barrier(6)
    outcomes: list[str] = []

    def one() -> None:
        barrier.wait()
        try:
            outcomes.append(opened(sessions).id)
        except BatchExistsError as error:
            outcomes.append(error.headers["Location"].removeprefix("/v1/batches/"))

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 6
    assert len(set(outcomes)) == 1


@pytest.mark.parametrize("wanted", ["bat_" + "0" * 26, "bat_1", "", "bat_\x00", "job_1"])
def test_what_is_not_a_batch_is_not_found(sessions: sessionmaker[Session], wanted: str) -> None:
    with sessions.begin() as session, pytest.raises(NotFoundError):
        ledger.find(session, "acme", wanted)


def test_another_clients_batch_is_not_found(sessions: sessionmaker[Session]) -> None:
    batch = opened(sessions)
    with sessions.begin() as session, pytest.raises(NotFoundError):
        ledger.find(session, "globex", batch.id)
    with sessions.begin() as session, pytest.raises(NotFoundError):
        ledger.cancel(session, GLOBEX, batch.id)
    assert state(sessions, batch) == "open"


def test_canceling_twice_is_told_once(sessions: sessionmaker[Session]) -> None:
    batch = opened(sessions)
    for _ in range(2):
        with sessions.begin() as session:
            assert ledger.cancel(session, ACME, batch.id).state == "canceled"
    assert told(sessions, batch)[0] == ["batch.created", "batch.canceled"]
    assert told(sessions, batch)[1] == ["batch.created", "batch.canceled"]


@pytest.mark.parametrize("sealed", ["sealed", "purged"])
def test_what_was_sealed_cannot_be_canceled(sessions: sessionmaker[Session], sealed: str) -> None:
    batch = opened(sessions)
    put_into(sessions, batch, sealed)
    with sessions.begin() as session, pytest.raises(BatchSealedError):
        ledger.cancel(session, ACME, batch.id)
    assert state(sessions, batch) == sealed


@pytest.mark.parametrize(
    ("before", "error"),
    [
        ("sealed", BatchSealedError),
        ("canceled", BatchClosedError),
        ("expired", BatchClosedError),
        ("purged", BatchClosedError),
    ],
)
def test_only_an_open_batch_takes_files(
    sessions: sessionmaker[Session], before: str, error: type[Exception]
) -> None:
    batch = opened(sessions)
    ledger.require_open(batch)
    batch.state = before
    with pytest.raises(error):
        ledger.require_open(batch)


def test_no_state_but_the_right_one_leads_to_another(sessions: sessionmaker[Session]) -> None:
    batch = opened(sessions)
    allowed = {("open", "sealed"), ("open", "canceled"), ("open", "expired"), ("sealed", "purged")}
    for before in ("open", "sealed", "canceled", "expired", "purged"):
        for after in ("sealed", "canceled", "expired", "purged"):
            put_into(sessions, batch, before)
            with sessions.begin() as session:
                found = ledger.find(session, "acme", batch.id, lock=True)
                moved = states.move(session, found, after, actor="ann")
            assert moved == ((before, after) in allowed), (before, after)


def test_an_abandoned_batch_expires_and_its_files_are_cleared(
    sessions: sessionmaker[Session],
) -> None:
    old, young = opened(sessions, "old"), opened(sessions, "young")
    making.row(sessions, old, "a.csv", size_bytes=1, sha256="0" * 64)
    with sessions.begin() as session:
        past = database.now(session) - timedelta(seconds=1)
        session.execute(update(Batch).where(Batch.id == old.id).values(expires_at=past))
    with sessions.begin() as session:
        assert [each.id for each in ledger.expire_open(session, 10)] == [old.id]
    assert (state(sessions, old), state(sessions, young)) == ("expired", "open")
    assert told(sessions, old)[0][-1] == "batch.expired"
    with sessions.begin() as session:
        [found] = ledger.uncleared(session, 10)
        ledger.clear(session, found)
    with sessions.begin() as session:
        assert ledger.expire_open(session, 10) == []
        assert ledger.uncleared(session, 10) == []
        assert session.get_one(Batch, old.id).file_count == 0


def test_what_unfinished_files_held_of_their_day_comes_back_and_no_more(
    sessions: sessionmaker[Session],
) -> None:
    batch = opened(sessions)
    with sessions.begin() as session:
        now = database.now(session)
    today, before = usage.day_of(now), usage.day_of(now - timedelta(days=1))
    making.row(sessions, batch, "done.csv", size_bytes=3, sha256="0" * 64, reserved_bytes=3)
    making.row(sessions, batch, "a.csv", reserved_bytes=10, state="pending")
    making.row(sessions, batch, "b.csv", reserved_bytes=20, state="pending")
    late = {"reserved_bytes": 40, "created_at": now - timedelta(days=1)}
    making.row(sessions, batch, "late.csv", **late, state="pending")
    with sessions.begin() as session:
        usage.add(session, "acme", "flights", today, 33)
        usage.add(session, "acme", "flights", before, 41)
        ledger.cancel(session, ACME, batch.id)
    for _ in range(2):
        with sessions.begin() as session:
            ledger.clear(session, batch)
    with sessions.begin() as session:
        assert usage.of_day(session, "acme", today) == {"flights": 3}
        assert usage.of_day(session, "acme", before) == {"flights": 1}


def test_the_files_of_a_live_batch_are_never_cleared(sessions: sessionmaker[Session]) -> None:
    batch = opened(sessions)
    making.row(sessions, batch, "a.csv")
    with sessions.begin() as session:
        ledger.clear(session, batch)
    with sessions.begin() as session:
        assert session.scalar(select(func.count()).select_from(File)) == 1


def test_pages_of_batches_are_newest_first_filtered_and_without_gaps(
    sessions: sessionmaker[Session],
) -> None:
    made = [opened(sessions, f"r{number}").id for number in range(5)]
    opened(sessions, "r1", GLOBEX)
    seen: list[str] = []
    before = None
    while True:
        with sessions.begin() as session:
            found, before = ledger.page(session, "acme", before=before, limit=2)
        seen += [each.id for each in found]
        if before is None:
            break
    assert seen == sorted(made, reverse=True)
    with sessions.begin() as session:
        assert [each.id for each in ledger.page(session, "acme", reference="r1")[0]] == [made[1]]
        assert ledger.page(session, "acme", state="sealed")[0] == []
        assert ledger.page(session, "acme", project="weather")[0] == []
