"""The doors of tus 1.0.0, one rule after the other."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import httpx
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from gateway.batches.model import File
from gateway.onboarding import apply, spec
from gateway.settings import Settings
from gateway.uploads.model import Upload
from tests import factories
from tests.uploads.resuming import CONTENT, STREAM, TUS, begun, create, offset, patch
from tests.uploads.sending import Books, Sender, address, sha256, slug


def test_an_upload_in_pieces_becomes_a_file_like_any_other(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    place = begun(acme, batch, digest=sha256(CONTENT))
    assert offset(acme, place) == 0
    shown = acme.ask("GET", address(batch, "a.csv")).json()
    assert (shown["state"], shown["received_bytes"]) == ("pending", 0)
    for start in range(0, len(CONTENT), 5000):
        piece = CONTENT[start : start + 5000]
        answer = patch(acme, place, start, piece)
        assert answer.status_code == 204, answer.text
        assert int(answer.headers["upload-offset"]) == start + len(piece)
        assert offset(acme, place) == start + len(piece)
    shown = acme.ask("GET", address(batch, "a.csv")).json()
    assert shown["state"] == "complete"
    assert (shown["size_bytes"], shown["sha256"]) == (len(CONTENT), sha256(CONTENT))
    assert acme.get(batch).content == CONTENT
    assert acme.seal(batch).status_code == 202
    books.check()
    assert books.actions().count("file.received") == 1


def test_what_is_spoken_is_said_without_a_token(client: TestClient) -> None:
    for path in ("/v1/batches/bat_1/uploads", "/v1/uploads/upl_1"):
        answer = client.options(path)
        assert answer.status_code == 204
        assert answer.headers["tus-version"] == "1.0.0"
        assert answer.headers["tus-extension"].split(",") == [
            "creation",
            "creation-with-upload",
            "checksum",
            "expiration",
            "termination",
        ]
        assert answer.headers["tus-checksum-algorithm"] == "sha1,sha256"
    assert "tus" in client.get("/v1").json()["uploads"]


def test_the_first_bytes_may_come_with_the_creation(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    stream = {"Content-Type": STREAM["Content-Type"]}
    first = create(acme, batch, "a.csv", headers=stream, content=CONTENT[:100])
    assert (first.status_code, first.headers["upload-offset"]) == (201, "100")
    assert patch(acme, first.headers["location"], 100, CONTENT[100:]).status_code == 204
    whole = create(acme, batch, "b.csv", headers=stream, content=CONTENT)
    assert whole.headers["upload-offset"] == str(len(CONTENT))
    empty = create(acme, batch, "empty.csv", 0)
    assert (empty.status_code, empty.headers["upload-offset"]) == (201, "0")
    assert books.rows(batch) == dict.fromkeys(("a.csv", "b.csv", "empty.csv"), "complete")
    books.check()


def test_the_same_bytes_again_are_compared_and_other_bytes_refused(
    acme: Sender, books: Books
) -> None:
    batch = acme.batch()
    assert acme.put(batch, content=CONTENT).status_code == 201
    for named in (None, sha256(CONTENT)):
        place = begun(acme, batch, digest=named)
        assert patch(acme, place, 0, CONTENT[:50]).status_code == 204
        assert patch(acme, place, 50, CONTENT[50:]).status_code == 204
        assert offset(acme, place) == len(CONTENT)
    assert slug(create(acme, batch, length=3)) == "file-exists"
    assert slug(create(acme, batch, digest=sha256(b"x"))) == "file-exists"
    place = begun(acme, batch)
    changed = patch(acme, place, 0, b"X" + CONTENT[1:])
    assert (changed.status_code, slug(changed)) == (409, "file-exists")
    assert acme.ask("HEAD", place, headers=TUS).status_code == 410
    assert slug(create(acme, batch, name="A.CSV")) == "duplicate-name"
    assert acme.get(batch).content == CONTENT
    books.check()


def test_terminating_gives_name_and_room_back(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    place = begun(acme, batch)
    patch(acme, place, 0, CONTENT[:10])
    assert acme.ask("DELETE", place, headers=TUS).status_code == 204
    for method in ("HEAD", "DELETE"):
        assert acme.ask(method, place, headers=TUS).status_code == 410
    assert patch(acme, place, 10, CONTENT[10:]).status_code == 410
    books.check_nothing(batch)
    place = begun(acme, batch)
    patch(acme, place, 0, CONTENT)
    assert acme.ask("DELETE", place, headers=TUS).status_code == 204
    books.check_nothing(batch)


def test_methods_may_be_named_in_a_header(acme: Sender) -> None:
    batch = acme.batch()
    place = begun(acme, batch)

    def post(method: str, **more: Any) -> httpx.Response:
        headers = {**STREAM, "X-HTTP-Method-Override": method, **more.pop("headers", {})}
        return acme.ask("POST", place, headers=headers, **more)

    assert post("PATCH", headers={"Upload-Offset": "0"}, content=CONTENT[:5]).status_code == 204
    assert post("HEAD").headers["upload-offset"] == "5"
    assert slug(post("PUT")) == "invalid-request"
    assert post("DELETE").status_code == 204
    assert acme.ask("HEAD", place, headers=TUS).status_code == 410


def test_an_upload_that_rests_too_long_expires_and_is_swept(
    acme: Sender, books: Books, services: Any, sessions: sessionmaker[Session]
) -> None:
    from gateway import worker

    batch = acme.batch()
    first = create(acme, batch)
    assert first.headers["upload-expires"].endswith("GMT")
    place = first.headers["location"]
    patch(acme, place, 0, CONTENT[:10])
    age_part(books)
    worker.sweep(services)
    assert offset(acme, place) == 10
    with sessions.begin() as session:
        session.execute(update(Upload).values(expires_at=text("now() - interval '1 second'")))
    assert acme.ask("HEAD", place, headers=TUS).status_code == 410
    assert patch(acme, place, 10, CONTENT[10:]).status_code == 410
    worker.sweep(services)
    books.check_nothing(batch)
    assert "file.expired" in books.actions()


def age_part(books: Books) -> None:
    for part in (books.root / ".parts").iterdir():
        os.utime(part, (time.time() - 7200,) * 2)


def test_a_newer_upload_of_a_name_takes_its_place(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    old = begun(acme, batch)
    patch(acme, old, 0, CONTENT[:10])
    new = begun(acme, batch)
    assert patch(acme, old, 10, CONTENT[10:]).status_code == 410
    assert patch(acme, new, 0, CONTENT).status_code == 204
    other = begun(acme, batch, "b.csv")
    assert acme.put(batch, "b.csv", CONTENT).status_code == 201
    assert patch(acme, other, 0, CONTENT).status_code == 410
    assert books.rows(batch) == {"a.csv": "complete", "b.csv": "complete"}


def test_an_upload_whose_bytes_are_lost_is_gone_and_can_be_begun_again(
    acme: Sender, books: Books
) -> None:
    batch = acme.batch()
    place = begun(acme, batch)
    assert patch(acme, place, 0, CONTENT[:10]).status_code == 204
    for part in (books.root / ".parts").iterdir():
        part.unlink()
    assert slug(patch(acme, place, 10, CONTENT[10:])) == "upload-gone"
    assert acme.ask("HEAD", place, headers=TUS).status_code == 410
    books.check_nothing(batch)
    assert patch(acme, begun(acme, batch), 0, CONTENT).status_code == 204


def test_pages_of_configured_origins_may_upload(config: Settings) -> None:
    from gateway.app import create_app

    server = config.server.model_copy(update={"cors_origins": "https://portal.example"})
    app = create_app(config.model_copy(update={"server": server}))
    with TestClient(app) as speaker:
        asked = {
            "Origin": "https://portal.example",
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": "tus-resumable,upload-offset,authorization",
        }
        allowed = speaker.options("/v1/uploads/upl_1", headers=asked)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://portal.example"
        read = speaker.get("/v1", headers={"Origin": "https://portal.example"})
        assert "Upload-Offset" in read.headers["access-control-expose-headers"]
        foreign = speaker.get("/v1", headers={"Origin": "https://other.example"})
        assert "access-control-allow-origin" not in foreign.headers


def test_each_slot_is_held_by_an_upload_until_it_ends(
    client: TestClient, bearer: Callable[[str], dict[str, str]], sessions: sessionmaker[Session]
) -> None:
    factories.onboard(sessions, "acme", ("flights",), uploads_in_flight=2)
    sender = Sender(client, bearer("acme-uploader"))
    batch = sender.batch()
    places = [begun(sender, batch, f"{number}.csv") for number in range(2)]
    assert slug(create(sender, batch, "more.csv")) == "quota-exceeded"
    assert slug(sender.put(batch, "more.csv")) == "quota-exceeded"
    assert sender.ask("DELETE", places[0], headers=TUS).status_code == 204
    assert patch(sender, places[1], 0, CONTENT).status_code == 204
    assert sender.put(batch, "more.csv").status_code == 201
    with sessions.begin() as session:
        assert session.scalars(select(File.state)).all() == ["complete"] * 2


def test_what_is_compared_holds_a_slot_of_its_project_like_what_is_stored(
    client: TestClient, bearer: Callable[[str], dict[str, str]], sessions: sessionmaker[Session]
) -> None:
    narrow = {"contract": factories.CONTRACT, "limits": {"uploads_in_flight": 2}}
    projects = {"flights": narrow, "crews": {"contract": factories.CONTRACT}}
    document = {"client": "acme", "name": "Acme", "projects": projects}
    with sessions.begin() as session:
        apply.apply(session, spec.parse(document), actor="operator:test")
    sender = Sender(client, bearer("acme-uploader"))
    batch = sender.batch()
    for name in ("0.csv", "1.csv", "2.csv"):
        assert sender.put(batch, name, content=CONTENT).status_code == 201
    places = [begun(sender, batch, f"{number}.csv") for number in range(2)]
    assert slug(create(sender, batch, "2.csv")) == "quota-exceeded"
    assert slug(create(sender, batch, "new.csv")) == "quota-exceeded"
    for length in (len(CONTENT), 100_000):
        content = b"x" * length
        assert slug(sender.put(batch, f"{length}", content=content)) == "quota-exceeded"
    sender.project = "crews"
    assert create(sender, sender.batch("crews")).status_code == 201
    assert patch(sender, places[0], 0, CONTENT).status_code == 204
    assert sender.put(batch, "new.csv").status_code == 201
