"""The doors of tus 1.0.0, one rule after the other."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from gateway.batches.model import File
from gateway.landing.zone import BatchPath
from gateway.onboarding import apply, spec
from gateway.settings import Settings
from gateway.uploads.model import Upload
from tests import factories
from tests.parts import GatewayServer, start_server
from tests.uploads.sending import Books, Line, Sender, address, eventually, sha256, slug

TUS = {"Tus-Resumable": "1.0.0"}
STREAM = {**TUS, "Content-Type": "application/offset+octet-stream"}
CONTENT = b"id,note\n" + b"".join(b"%d,row\n" % number for number in range(2000))


@pytest.fixture
def second(wired: Sender, environment: dict[str, str], tmp_path: Path) -> Iterator[Sender]:
    """The same sender at another process of the same gateway."""
    other = start_server(environment, tmp_path)
    with httpx.Client(base_url=other.url, timeout=30) as speaker:
        yield Sender(speaker, wired.headers)
    other.stop()


def encoded(value: str | bytes) -> str:
    raw = value.encode() if isinstance(value, str) else value
    return base64.b64encode(raw).decode()


def metadata(name: str, digest: str | None = None) -> str:
    pairs = [f"filename {encoded(name)}"]
    return ",".join([*pairs, *([f"sha256 {encoded(digest)}"] if digest else [])])


def create(
    sender: Sender, batch: str, name: str = "a.csv", length: int = len(CONTENT), **more: Any
) -> httpx.Response:
    headers = {
        **TUS,
        "Upload-Length": str(length),
        "Upload-Metadata": metadata(name, more.pop("digest", None)),
        **more.pop("headers", {}),
    }
    return sender.ask("POST", f"/v1/batches/{batch}/uploads", headers=headers, **more)


def begun(sender: Sender, batch: str, *arguments: Any, **more: Any) -> str:
    answer = create(sender, batch, *arguments, **more)
    assert answer.status_code == 201, answer.text
    place: str = answer.headers["location"]
    assert place.startswith("/v1/uploads/upl_")
    return place


def patch(
    sender: Sender, place: str, offset: int, content: bytes, **headers: str
) -> httpx.Response:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return sender.ask(
        "PATCH",
        place,
        headers={**STREAM, "Upload-Offset": str(offset), **named},
        content=content,
    )


def offset(sender: Sender, place: str) -> int:
    answer = sender.ask("HEAD", place, headers=TUS)
    assert answer.status_code == 200, answer.headers
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["tus-resumable"] == "1.0.0"
    return int(answer.headers["upload-offset"])


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


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_stretch_with_a_wrong_checksum_is_discarded(
    acme: Sender, books: Books, algorithm: str
) -> None:
    batch = acme.batch()
    place = begun(acme, batch)
    assert patch(acme, place, 0, CONTENT[:10]).status_code == 204
    wrong = encoded(hashlib.new(algorithm, b"other").digest())
    refused = patch(acme, place, 10, CONTENT[10:], Upload_Checksum=f"{algorithm} {wrong}")
    assert (refused.status_code, slug(refused)) == (460, "digest-mismatch")
    assert offset(acme, place) == 10
    right = encoded(hashlib.new(algorithm, CONTENT[10:]).digest())
    assert patch(acme, place, 10, CONTENT[10:], Upload_Checksum=f"{algorithm} {right}")
    assert acme.get(batch).content == CONTENT
    books.check()


def test_a_whole_upload_of_other_bytes_than_announced_is_gone(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    place = begun(acme, batch, digest=sha256(b"other"))
    refused = patch(acme, place, 0, CONTENT)
    assert (refused.status_code, slug(refused)) == (460, "digest-mismatch")
    assert acme.ask("HEAD", place, headers=TUS).status_code == 410
    books.check_nothing(batch)
    again = begun(acme, batch, digest=sha256(CONTENT))
    assert patch(acme, again, 0, CONTENT).status_code == 204


@pytest.mark.parametrize(
    ("given", "status", "problem"),
    [
        ({"Tus-Resumable": "0.2.2"}, 412, "unsupported-version"),
        ({"Tus-Resumable": None}, 412, "unsupported-version"),
        ({"Content-Type": "application/octet-stream"}, 415, "unsupported-media"),
        ({"Content-Encoding": "gzip"}, 415, "unsupported-media"),
        ({"Upload-Offset": "1"}, 409, "upload-conflict"),
        ({"Upload-Offset": "-1"}, 422, "invalid-request"),
        ({"Upload-Offset": "0x1"}, 422, "invalid-request"),
        ({"Upload-Offset": "9" * 30}, 422, "invalid-request"),
        ({"Upload-Offset": None}, 422, "invalid-request"),
        ({"Upload-Checksum": "md5 AAAA"}, 422, "invalid-request"),
        ({"Upload-Checksum": "sha1 AAAA"}, 422, "invalid-request"),
        ({"Upload-Checksum": "sha1"}, 422, "invalid-request"),
        ({"Content-Length": str(len(CONTENT) + 1)}, 413, "too-large"),
    ],
)
def test_a_stretch_that_is_none_changes_nothing(
    acme: Sender, books: Books, given: dict[str, str | None], status: int, problem: str
) -> None:
    batch = acme.batch()
    place = begun(acme, batch)
    headers = {**STREAM, "Upload-Offset": "0", **given}
    sent = {name: value for name, value in headers.items() if value is not None}
    content = CONTENT + b"!" if "Content-Length" in given else CONTENT
    answer = acme.ask("PATCH", place, headers=sent, content=content)
    assert (answer.status_code, slug(answer)) == (status, problem)
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert offset(acme, place) == 0
    assert patch(acme, place, 0, CONTENT).status_code == 204
    books.check()


@pytest.mark.parametrize(
    ("headers", "status", "problem"),
    [
        ({"Tus-Resumable": "2.0.0"}, 412, "unsupported-version"),
        ({"Upload-Length": "-5"}, 422, "invalid-request"),
        ({"Upload-Length": "1e3"}, 422, "invalid-request"),
        ({"Upload-Length": "9" * 18}, 413, "too-large"),
        ({"Upload-Length": "9" * 19}, 422, "invalid-request"),
        ({"Upload-Metadata": ""}, 422, "invalid-request"),
        ({"Upload-Metadata": "filename !!"}, 422, "invalid-request"),
        ({"Upload-Metadata": "filename YQ==,filename YQ=="}, 422, "invalid-request"),
        ({"Upload-Metadata": f"filename YQ==,sha256 {encoded('AB' * 32)}"}, 422, "invalid-request"),
        ({"Upload-Metadata": f"filename {encoded(bytes([255]))}"}, 422, "invalid-request"),
        ({"Upload-Metadata": f"filename {encoded('../a')}"}, 422, "invalid-filename"),
        ({"Upload-Metadata": f"filename {encoded('con')}"}, 422, "reserved-name"),
        ({"Upload-Metadata": "filename " + "A" * 4096}, 422, "invalid-request"),
        ({"Content-Type": STREAM["Content-Type"], "Upload-Checksum": "x"}, 422, "invalid-request"),
    ],
)
def test_an_upload_that_cannot_be_opened_leaves_nothing(
    acme: Sender, books: Books, headers: dict[str, str], status: int, problem: str
) -> None:
    batch = acme.batch()
    answer = create(acme, batch, headers=headers)
    assert (answer.status_code, slug(answer)) == (status, problem)
    books.check_nothing(batch)


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


def test_a_sealed_or_ended_batch_takes_no_stretch(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    place = begun(acme, batch)
    unfinished = acme.seal(batch)
    assert slug(unfinished) == "batch-incomplete"
    assert unfinished.json()["errors"][0]["code"] == "unfinished"
    patch(acme, place, 0, CONTENT)
    comparison = begun(acme, batch)
    assert acme.seal(batch).status_code == 202
    assert slug(create(acme, batch, "b.csv")) == "batch-sealed"
    assert slug(patch(acme, comparison, 0, CONTENT)) == "batch-sealed"
    assert slug(acme.ask("DELETE", place, headers=TUS)) == "batch-sealed"
    canceled = acme.batch("canceled")
    place = begun(acme, canceled)
    assert acme.ask("DELETE", f"/v1/batches/{canceled}").status_code == 204
    assert patch(acme, place, 0, CONTENT).status_code in {409, 410}


def test_another_clients_upload_is_not_there(acme: Sender, globex: Sender) -> None:
    batch = acme.batch()
    place = begun(acme, batch)
    absent = "/v1/uploads/upl_" + "0" * 26
    for path in (place, absent):
        assert globex.ask("HEAD", path, headers=TUS).status_code == 404
        assert slug(patch(globex, path, 0, CONTENT)) == "not-found"
        assert slug(globex.ask("DELETE", path, headers=TUS)) == "not-found"
    assert slug(create(globex, batch)) == "not-found"
    assert offset(acme, place) == 0


def test_without_the_right_to_write_there_is_no_way_in(
    acme: Sender, bearer: Callable[[str], dict[str, str]]
) -> None:
    batch = acme.batch()
    place = begun(acme, batch)
    viewer = Sender(acme.speaker, bearer("acme-viewer"))
    nobody = Sender(acme.speaker, {})
    for sender, status in ((viewer, 403), (nobody, 401)):
        assert create(sender, batch).status_code == status
        assert sender.ask("HEAD", place, headers=TUS).status_code == status
        assert patch(sender, place, 0, CONTENT).status_code == status
        assert sender.ask("DELETE", place, headers=TUS).status_code == status


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


def test_what_arrived_of_a_cut_stretch_is_kept(
    wired: Sender, line: Callable[[], Line], books: Books
) -> None:
    batch = wired.batch()
    place = begun(wired, batch)
    cut = line().begin(
        "PATCH", place, **STREAM, Upload_Offset="0", Content_Length=str(len(CONTENT))
    )
    cut.send(CONTENT[:6000])
    eventually(lambda: offset(wired, place) == 6000)
    cut.send(CONTENT[6000:7000])
    time.sleep(0.2)
    cut.cut()
    eventually(lambda: offset(wired, place) == 7000)
    assert patch(wired, place, 7000, CONTENT[7000:]).status_code == 204
    assert wired.get(batch).content == CONTENT
    books.check()


def test_a_stalled_stretch_is_durable_so_far_and_gives_way_to_a_newer_one(
    wired: Sender, line: Callable[[], Line], books: Books
) -> None:
    batch = wired.batch()
    place = begun(wired, batch)
    stalled = line().begin(
        "PATCH", place, **STREAM, Upload_Offset="0", Content_Length=str(len(CONTENT))
    )
    stalled.send(CONTENT[:7000])
    eventually(lambda: offset(wired, place) == 7000, 3)
    began = time.monotonic()
    assert patch(wired, place, 7000, CONTENT[7000:]).status_code == 204
    assert time.monotonic() - began < 2
    stalled.send(b"x" * 100)
    assert stalled.answer()[0] == 409
    assert wired.get(batch).content == CONTENT
    books.check()


def test_of_the_same_stretch_sent_twice_at_once_the_bytes_count_once(
    wired: Sender, books: Books
) -> None:
    batch = wired.batch()
    place = begun(wired, batch, digest=sha256(CONTENT))
    answers: list[int] = []

    def send() -> None:
        with httpx.Client(base_url=wired.speaker.base_url, timeout=30) as speaker:
            answers.append(patch(Sender(speaker, wired.headers), place, 0, CONTENT).status_code)

    senders = [threading.Thread(target=send) for _ in range(8)]
    for each in senders:
        each.start()
    for each in senders:
        each.join()
    assert set(answers) <= {204, 409}
    if 204 not in answers:
        stands = offset(wired, place)
        assert patch(wired, place, stands, CONTENT[stands:]).status_code == 204
    assert wired.get(batch).content == CONTENT
    books.check()


def test_another_process_goes_on_and_reads_again_what_it_did_not_hash(
    wired: Sender, second: Sender, books: Books
) -> None:
    content = CONTENT * 50
    batch = wired.batch()
    place = begun(wired, batch, length=len(content), digest=sha256(content))
    assert patch(wired, place, 0, content[:500_000]).status_code == 204
    assert offset(second, place) == 500_000
    assert patch(second, place, 500_000, content[500_000:]).status_code == 204
    shown = wired.ask("GET", address(batch, "a.csv")).json()
    assert (shown["state"], shown["sha256"]) == ("complete", sha256(content))
    assert shown["verified_bytes"] is not None
    books.check()


def test_what_a_stopped_process_holds_goes_on_without_it(
    wired: Sender,
    second: Sender,
    server: GatewayServer,
    line: Callable[[], Line],
    books: Books,
) -> None:
    batch = wired.batch()
    place = begun(wired, batch, digest=sha256(CONTENT))
    held = line().begin(
        "PATCH", place, **STREAM, Upload_Offset="0", Content_Length=str(len(CONTENT))
    )
    held.send(CONTENT[:7000])
    eventually(lambda: offset(wired, place) == 7000, 5)
    server.process.send_signal(signal.SIGSTOP)
    try:
        held.send(b"x" * 1000)
        assert offset(second, place) == 7000
        assert patch(second, place, 7000, CONTENT[7000:]).status_code == 204
    finally:
        server.process.send_signal(signal.SIGCONT)
    held.send(b"x" * 1000)
    assert held.answer()[0] == 409
    assert wired.get(batch).content == CONTENT
    books.check()


def test_a_whole_upload_that_a_crash_left_before_its_row_is_finished_by_looking(
    wired: Sender, services: Any, sessions: sessionmaker[Session], books: Books
) -> None:
    batch = wired.batch()
    places = {name: begun(wired, batch, name) for name in ("a.csv", "b.csv")}
    for name, place in places.items():
        upload = place.rpartition("/")[2]
        part = services.zone.resume_part(upload, 0)
        part.write([CONTENT])
        stored = part.finish()
        values = {"offset_bytes": len(CONTENT)}
        if name == "b.csv":  # it got its name, too
            values["sha256"] = stored.sha256
            services.zone.publish(part, BatchPath("acme", "flights", batch), name)
        part.release()
        with sessions.begin() as session:
            session.execute(update(Upload).where(Upload.id == upload).values(values))
        assert offset(wired, place) == len(CONTENT)
    assert set(books.rows(batch).values()) == {"complete"}
    books.check()


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
