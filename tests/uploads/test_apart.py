"""The landing zone may be far away: nobody speaks to it while a transaction is open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import get_ident
from typing import Any

import pytest
from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from gateway.batches import ledger
from gateway.batches.model import File
from gateway.bootstrap import Services
from gateway.database import new_id
from gateway.errors import GatewayError
from gateway.landing.names import FileName
from gateway.landing.zone import BatchPath, Zone
from gateway.uploads import completion, expiry, holding, publishing, sweep
from gateway.uploads.admission import UploadConflictError, admit
from gateway.uploads.rows import Admission
from tests import factories
from tests.batches.making import ACME, opened
from tests.uploads.sending import OTHER, Books, Sender, address, slug
from tests.uploads.test_tus import TUS, begun, create, patch

LARGE = b"x" * 100_000
PUBLISHED = {"publish", "adopt", "quarantine", "retract", "remove_file", "open_file"}
RECEIVED = {"open_part", "resume_part", "remove_part", "is_receiving", "stale_parts"}


class Apart:
    """A landing zone that writes down how many connections who speaks to it has in use."""

    def __init__(self, zone: Zone, sessions: sessionmaker[Session]) -> None:
        self.heard: list[tuple[str, int]] = []
        self._zone = zone
        # Which thread took a connection; another may give it back.
        self._taken_by: dict[int, int] = {}
        engine = sessions.kw["bind"]
        event.listen(engine, "checkout", self._take)
        event.listen(engine, "checkin", lambda _, record: self._taken_by.pop(id(record), None))

    def _take(self, _raw: Any, record: Any, _proxy: Any) -> None:
        self._taken_by[id(record)] = get_ident()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        found = getattr(self._zone, name)

        def heard(*given: Any) -> Any:
            self.heard.append((name, list(self._taken_by.values()).count(get_ident())))
            return found(*given)

        return heard


@pytest.fixture
def apart(client: TestClient) -> Apart:
    state: Any = client.app.state  # type: ignore[attr-defined]
    state.zone = Apart(state.zone, state.sessions)
    return state.zone  # type: ignore[no-any-return]


def lay(zone: Any, batch: str, name: str, content: bytes) -> None:
    """Publish a file of which no row knows."""
    part = zone.open_part(new_id("upl"))
    part.write([content])
    part.finish()
    zone.publish(part, BatchPath("acme", "flights", batch), name)
    part.abort()


def dead(sessions: sessionmaker[Session], batch: str, name: str) -> None:
    """Begin an upload as a process does that ends at once."""
    with sessions.begin() as session:
        new = {"upload": new_id("upl"), "expected_bytes": 10}
        admit(session, ACME, batch, FileName.parse(name), **new)


def test_no_transaction_is_open_while_the_landing_zone_is_spoken_to(
    acme: Sender, apart: Apart, sessions: sessionmaker[Session], books: Books
) -> None:
    factories.onboard(sessions, "acme", ("flights",), uploads_in_flight=3)
    batch, ended = acme.batch(), acme.batch("ended")
    assert [acme.put(batch, "a", content=LARGE).status_code for _ in range(2)] == [201, 200]
    for number in range(3):
        dead(sessions, batch, f"dead-{number}")
    assert acme.put(batch, "dead-0", content=LARGE).status_code == 201
    lay(apart, batch, "same", LARGE)
    lay(apart, batch, "other", OTHER)
    for name in ("same", "other"):
        assert acme.put(batch, name, content=LARGE).status_code == 201
    assert books.set_aside() == [OTHER]

    def canceled() -> Iterator[bytes]:
        yield LARGE
        with sessions.begin() as session:
            ledger.cancel(session, ACME, ended)

    assert slug(acme.put(ended, "late", content=canceled())) == "batch-closed"
    places = [begun(acme, batch, name) for name in ("whole", "given-up")]
    content = b"x" * int(acme.ask("HEAD", places[0], headers=TUS).headers["upload-length"])
    assert patch(acme, places[0], 0, content).status_code == 204
    for place in places:
        assert acme.ask("DELETE", place, headers=TUS).status_code == 204
    assert acme.ask("DELETE", address(batch, "a")).status_code == 204
    state: Any = acme.speaker.app.state  # type: ignore[union-attr]
    assert sweep.run(state.sessions, apart, -1) == 2  # type: ignore[arg-type]
    answer = acme.seal(batch)
    assert answer.status_code == 202, answer.text
    assert {name for name, _ in apart.heard} >= PUBLISHED | RECEIVED
    assert [each for each in apart.heard if each[1]] == []
    books.check()


def test_a_full_or_absent_store_is_no_answer_to_what_would_be_refused_anyway(
    acme: Sender, books: Books
) -> None:
    batch = acme.batch()
    assert acme.put(batch).status_code == 201
    huge = 10**17
    assert slug(create(acme, batch, "huge.csv", huge)) == "too-large"
    assert slug(create(acme, "bat_" + "0" * 26)) == "not-found"
    assert acme.put(batch).status_code == 200
    books.check()


@pytest.fixture
def batch(sessions: sessionmaker[Session], services: Services) -> str:
    factories.onboard_two(sessions)
    return opened(sessions).id


def admitted(sessions: sessionmaker[Session], batch: str, dead: str = "") -> Admission:
    with sessions.begin() as session:
        new = {"upload": new_id("upl"), "expected_bytes": 10, "dead": {dead}}
        found = admit(session, ACME, batch, FileName.parse("a.csv"), **new)
    assert isinstance(found, Admission)
    return found


def lapse(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        session.execute(update(File).values(held_until=File.created_at))


def refused(work: Callable[[], object]) -> str:
    with pytest.raises(GatewayError) as refusal:
        work()
    return refusal.value.slug


def test_a_name_that_is_held_is_neither_taken_nor_given_up_until_that_lapses(
    sessions: sessionmaker[Session], batch: str, books: Books
) -> None:
    upload = admitted(sessions, batch)
    with sessions.begin() as session:
        holding.take(session, upload)
    with sessions.begin() as session:
        # Another request of the same upload, which does not know what this one is about.
        with pytest.raises(UploadConflictError):
            holding.take(session, upload)
        assert not completion.abandon(session, upload)
        assert not expiry.expire(session, upload)
        with pytest.raises(UploadConflictError):
            holding.withdraw(session, ACME, batch, "a.csv")
    assert refused(lambda: admitted(sessions, batch, upload.upload)) == "upload-conflict"
    lapse(sessions)
    newer = admitted(sessions, batch, upload.upload)
    with sessions.begin() as session:
        assert not holding.may_retract(session, upload)
        assert completion.abandon(session, newer)
    books.check_nothing(batch)


def test_a_name_is_let_go_of_although_the_database_ends_the_session(
    sessions: sessionmaker[Session], batch: str, services: Services, books: Books
) -> None:
    upload = admitted(sessions, batch)
    part = services.zone.open_part(upload.upload)
    ended = []

    def end_session(connection: Any, _: Any, statement: str, *_more: Any) -> None:
        if len(ended) < 2 and "held_until" in statement and retracted:
            ended.append(connection.connection.dbapi_connection.info.backend_pid)
            with sessions.begin() as session:
                session.execute(select(func.pg_terminate_backend(ended[-1], 5000)))

    retracted = []
    event.listen(sessions.kw["bind"], "before_cursor_execute", end_session)
    watched = Watched(services.zone, lambda: retracted.append(True))
    publishing.retract(sessions, watched, upload, part)  # type: ignore[arg-type]
    part.abort()
    assert len(set(ended)) == 2
    with sessions.begin() as session:
        assert completion.abandon(session, upload)
    books.check_nothing(batch)


class Watched:
    """A landing zone that tells when something was taken back."""

    def __init__(self, zone: Zone, tell: Callable[[], None]) -> None:
        self._zone = zone
        self._tell = tell

    def retract(self, *given: Any) -> None:
        self._zone.retract(*given)
        self._tell()


def test_the_name_of_a_file_that_is_removed_is_free_once_its_bytes_are_gone(
    sessions: sessionmaker[Session], batch: str, books: Books
) -> None:
    upload = admitted(sessions, batch)
    with sessions.begin() as session:
        withdrawn = holding.withdraw(session, ACME, batch, "a.csv")
    assert withdrawn is not None
    assert books.rows(batch) == {"a.csv": "error"}
    assert books.of(batch).reserved_bytes == 10
    assert refused(lambda: admitted(sessions, batch)) == "upload-conflict"
    with sessions.begin() as session:
        assert not completion.abandon(session, upload)
        holding.forget(session, withdrawn)
    books.check_nothing(batch)
    again = admitted(sessions, batch)
    with sessions.begin() as session:
        # Late, after the name was given to another.
        holding.forget(session, withdrawn)
        assert completion.abandon(session, again)
    books.check_nothing(batch)
