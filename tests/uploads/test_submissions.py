"""A whole delivery in one request: all of it, or nothing."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from gateway.batches.model import Batch, File
from gateway.clients.registry import Client
from gateway.jobs.model import Job
from gateway.outbox.model import Message
from tests.uploads.sending import CONTENT, OTHER, Books, Line, Sender, digest, sha256, slug

Bearer = Callable[[str], dict[str, str]]
DOOR = "/v1/submissions"
BOUNDARY = "outer--limit"
FIELDS = {"project": "flights", "reference": "r"}


def field(name: str, value: str | bytes) -> bytes:
    text = value if isinstance(value, bytes) else value.encode()
    return b'Content-Disposition: form-data; name="%s"\r\n\r\n%s' % (name.encode(), text)


def file(name: str, content: bytes = CONTENT, *headers: str) -> bytes:
    head = f'Content-Disposition: form-data; name="files"; filename="{name}"'
    return "\r\n".join([head, *headers]).encode() + b"\r\n\r\n" + content


def fields(**others: str) -> list[bytes]:
    return [field(name, value) for name, value in {**FIELDS, **others}.items()]


def form(parts: list[bytes], end: bytes = b"--\r\n") -> bytes:
    mark = b"--" + BOUNDARY.encode()
    return b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + end


def post(sender: Sender, body: Any, boundary: str = BOUNDARY, **headers: str) -> httpx.Response:
    media = {"content-type": f"multipart/form-data; boundary={boundary}"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return sender.ask("POST", DOOR, content=body, headers={**media, **named})


def count(books: Books, table: type[Any]) -> int:
    with books.sessions.begin() as session:
        return session.scalars(select(func.count()).select_from(table)).one()


def triggers(books: Books) -> int:
    with books.sessions.begin() as session:
        query = select(func.count()).select_from(Message).where(Message.topic == "job.trigger")
        return session.scalars(query).one()


def check_nothing(books: Books) -> None:
    """See to it that no delivery, job, message or byte remains."""
    books.check()
    assert count(books, Job) == triggers(books) == 0
    with books.sessions.begin() as session:
        batches = session.scalars(select(Batch)).all()
    assert {batch.state for batch in batches} <= {"canceled"}
    for batch in batches:
        books.check_nothing(batch.id)
    assert books.lying() == []


def test_a_delivery_in_one_request_is_stored_and_sealed(acme: Sender, books: Books) -> None:
    large = os.urandom(3 * 1024**2 + 5)
    given = fields(
        mode="validate",
        period_start="2013-01-01",
        period_end="2013-12-31",
        metadata='{"kind":"daily","n":1}',
    )
    answer = post(acme, form([*given, file("flights 1.csv"), file("b.bin", large), file("c", b"")]))
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{body['job']['id']}"
    batch = body["batch"]
    assert (batch["state"], batch["mode"], batch["file_count"]) == ("sealed", "validate", 3)
    assert batch["period"] == {"start": "2013-01-01", "end": "2013-12-31"}
    assert batch["metadata"] == {"kind": "daily", "n": 1}
    assert (body["job"]["state"], body["job"]["cause"]) == ("queued", "seal")
    stored = {"flights 1.csv": CONTENT, "b.bin": large, "c": b""}
    assert books.on_disk(batch["id"]) == stored
    manifest = acme.ask("GET", f"/v1/batches/{batch['id']}/manifest").json()
    assert {each["name"]: each["sha256"] for each in manifest["files"]} == {
        name: sha256(content) for name, content in stored.items()
    }
    assert triggers(books) == 1
    books.check()
    again = acme.seal(batch["id"]).json()
    assert again["job"]["id"] == body["job"]["id"]


def test_what_ordinary_clients_send_is_taken(acme: Sender, books: Books) -> None:
    files = [("files", ("a.csv", CONTENT, "text/csv")), ("files", ("été.csv", OTHER))]
    answer = acme.ask("POST", DOOR, data=FIELDS, files=files)
    assert answer.status_code == 202, answer.text
    assert books.on_disk(answer.json()["batch"]["id"]) == {"a.csv": CONTENT, "été.csv": OTHER}


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 1000])
def test_a_body_cut_anywhere_into_chunks_means_the_same(
    acme: Sender, books: Books, step: int
) -> None:
    tricky = b"\r\n--outer\r\n--outer--limi\r\n\r\r\n-" * 9 + b"\r\n--outer--limi"
    body = form([*fields(), file("a.bin", tricky), file("b.bin", b"\r\n")])
    answer = post(acme, (body[n : n + step] for n in range(0, len(body), step)))
    assert answer.status_code == 202, answer.text
    stored = {"a.bin": tricky, "b.bin": b"\r\n"}
    assert books.on_disk(answer.json()["batch"]["id"]) == stored


def test_a_digest_of_a_part_is_enforced(acme: Sender, books: Books) -> None:
    wrong = file("a.csv", CONTENT, f"Content-Digest: {digest(OTHER)}")
    answer = post(acme, form([*fields(), file("b.csv"), wrong]))
    assert (answer.status_code, slug(answer)) == (422, "digest-mismatch")
    check_nothing(books)
    right = file("a.csv", CONTENT, f"Content-Digest: {digest(CONTENT)}")
    assert post(acme, form([*fields(), right])).status_code == 202


def test_a_reference_may_be_used_again_after_a_submission_that_failed(
    acme: Sender, books: Books
) -> None:
    assert post(acme, form([*fields(), file("a.csv")], end=b"")).status_code == 422
    check_nothing(books)
    assert post(acme, form([*fields(), file("a.csv")])).status_code == 202
    answer = post(acme, form([*fields(), file("a.csv")]))
    assert (answer.status_code, slug(answer)) == (409, "batch-exists")
    assert answer.headers["location"].startswith("/v1/batches/bat_")


# --- the four of every door ---------------------------------------------------------------------


def test_nobody_submits_without_a_token(client: TestClient, onboarded: None, books: Books) -> None:
    answer = client.post(DOOR, data=FIELDS, files={"files": ("a.csv", CONTENT)})
    assert (answer.status_code, slug(answer)) == (401, "not-authenticated")
    check_nothing(books)


@pytest.mark.parametrize("user", ["acme-viewer", "auditor", "admin", "svc-airflow"])
def test_an_account_that_may_not_write_submits_nothing(
    client: TestClient, onboarded: None, books: Books, bearer: Bearer, user: str
) -> None:
    answer = post(Sender(client, bearer(user)), form([*fields(), file("a.csv")]))
    assert (answer.status_code, slug(answer)) == (403, "forbidden")
    check_nothing(books)


def test_another_clients_project_and_batch_are_unknown(
    acme: Sender, globex: Sender, books: Books
) -> None:
    theirs = acme.batch("theirs")
    answer = post(globex, form([*fields(), file("a.csv")]))
    assert (answer.status_code, slug(answer)) == (422, "invalid-request")
    assert answer.json()["errors"][0]["pointer"] == "project"
    given = fields(project="weather", supersedes=theirs)
    answer = post(globex, form([*given, file("a.csv")]))
    assert (answer.status_code, slug(answer)) == (422, "invalid-request")
    assert count(books, Batch) == 1


def test_a_suspended_client_submits_nothing(
    acme: Sender, books: Books, sessions: sessionmaker[Session]
) -> None:
    with sessions.begin() as session:
        session.get_one(Client, "acme").state = "suspended"
    answer = post(acme, form([*fields(), file("a.csv")]))
    assert (answer.status_code, slug(answer)) == (403, "forbidden")
    check_nothing(books)


# --- bodies that are not what they should be ------------------------------------------------------

GOOD = file("a.csv")
MALFORMED = {
    "no closing boundary": form([*fields(), GOOD], end=b""),
    "half a closing boundary": form([*fields(), GOOD], end=b"-"),
    "cut in a file": form([*fields(), file("a.csv", b"x" * 500)])[:-200],
    "cut in a head": form(fields())[:-4] + b"\r\nContent-Dis",
    "nothing at all": b"",
    "only an end": b"--outer--limit--\r\n",
    "no multipart": b"project=flights&reference=r",
    "another boundary": form([*fields(), GOOD]).replace(b"outer--limit", b"other"),
    "file before the fields": form([GOOD, *fields()]),
    "field after a file": form([*fields(), GOOD, field("mode", "load")]),
    "fields alone": form(fields()),
    "a field twice": form([*fields(), field("project", "flights"), GOOD]),
    "an unknown field": form([*fields(colour="red"), GOOD]),
    "no reference": form([field("project", "flights"), GOOD]),
    "mode unheard of": form([*fields(mode="maybe"), GOOD]),
    "metadata no JSON": form([*fields(metadata="{"), GOOD]),
    "metadata twice the key": form([*fields(metadata='{"a":1,"a":2}'), GOOD]),
    "metadata not a number": form([*fields(metadata='{"a":NaN}'), GOOD]),
    "metadata deep": form([*fields(metadata='{"a":' + "[" * 5000 + "]" * 5000 + "}"), GOOD]),
    "metadata a list": form([*fields(metadata="[]"), GOOD]),
    "half a period": form([*fields(period_start="2013-01-01"), GOOD]),
    "NUL in a field": form([*fields(reference="a\0b"), GOOD]),
    "no UTF-8 in a field": form([field("project", "flights"), field("reference", b"\xff"), GOOD]),
    "no name": form([*fields(), b'Content-Disposition: form-data; filename="a"\r\n\r\nx']),
    "no disposition": form([*fields(), b"Content-Type: text/csv\r\n\r\nx"]),
    "two dispositions": form([*fields(), b"Content-Disposition: form-data; name=a\r\n" + GOOD]),
    "attachment": form([*fields(), GOOD.replace(b"form-data", b"attachment")]),
    "base64": form([*fields(), file("a.csv", b"eHh4", "Content-Transfer-Encoding: base64")]),
    "digest nonsense": form([*fields(), file("a.csv", CONTENT, "Content-Digest: sha-256=abc")]),
    "many headers": form([*fields(), file("a.csv", CONTENT, *[f"X-{n}: y" for n in range(500)])]),
    "a long header": form([*fields(), file("a.csv", CONTENT, "X: " + "y" * 100_000)]),
    "header of bad bytes": form([*fields(), GOOD.replace(b"a.csv", b"\xff\xfe.csv")]),
    "many fields": form([*fields(**{f"f{n}": "" for n in range(30)}), GOOD]),
    "preamble": b"\r\n" + b"x" * 100_000 + b"\r\n" + form([*fields(), GOOD]),
    "epilogue": form([*fields(), GOOD]) + b"x" * 200_000,
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_body_leaves_nothing(acme: Sender, books: Books, kind: str) -> None:
    answer = post(acme, MALFORMED[kind])
    assert (answer.status_code, slug(answer)) == (422, "invalid-request"), answer.text
    check_nothing(books)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd", "invalid-filename"),
        ("a\x00.csv", "invalid-filename"),
        ("a\u202egpj.exe", "invalid-filename"),
        ("a/b.csv", "invalid-filename"),
        ("", "invalid-filename"),
        ("CON.csv", "reserved-name"),
        ("x" * 256, "invalid-filename"),
    ],
)
def test_a_hostile_name_of_the_second_file_undoes_the_first(
    acme: Sender, books: Books, name: str, expected: str
) -> None:
    answer = post(acme, form([*fields(), GOOD, file(name)]))
    assert (answer.status_code, slug(answer)) == (422, expected)
    check_nothing(books)


@pytest.mark.parametrize("name", ["a.csv", "A.csv", "a.CSV"])
@pytest.mark.parametrize("content", [CONTENT, OTHER])
def test_two_files_of_one_name_are_refused(
    acme: Sender, books: Books, name: str, content: bytes
) -> None:
    answer = post(acme, form([*fields(), GOOD, file(name, content)]))
    assert (answer.status_code, slug(answer)) == (409, "duplicate-name")
    check_nothing(books)


def test_fields_have_a_bound_in_all(acme: Sender, books: Books) -> None:
    given = fields(metadata=json.dumps({"a": "x" * 40_000}), supersedes="y" * 40_000)
    answer = post(acme, form([*given, GOOD]))
    assert (answer.status_code, slug(answer)) == (413, "too-large")
    check_nothing(books)


@pytest.mark.parametrize(
    ("media", "expected"),
    [
        ("application/json", (415, "unsupported-media")),
        ("multipart/mixed; boundary=x", (415, "unsupported-media")),
        ("multipart/form-data", (422, "invalid-request")),
        ("multipart/form-data; boundary=", (422, "invalid-request")),
        ("multipart/form-data; boundary=" + "x" * 71, (422, "invalid-request")),
    ],
)
def test_only_a_form_with_a_boundary_is_taken(
    acme: Sender, books: Books, media: str, expected: tuple[int, str]
) -> None:
    headers = {"content-type": media}
    answer = acme.ask("POST", DOOR, content=form([*fields(), GOOD]), headers=headers)
    assert (answer.status_code, slug(answer)) == expected
    assert answer.headers["connection"] == "close"
    check_nothing(books)


# --- limits -------------------------------------------------------------------------------------


def limit(sessions: sessionmaker[Session], **limits: int) -> None:
    with sessions.begin() as session:
        client = session.get_one(Client, "acme")
        client.limits = {**client.limits, **limits}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"file_bytes": 10}, (413, "too-large")),
        ({"batch_bytes": 20}, (413, "too-large")),
        ({"files_per_batch": 1}, (429, "quota-exceeded")),
    ],
)
def test_a_delivery_over_a_limit_leaves_nothing(
    acme: Sender,
    books: Books,
    sessions: sessionmaker[Session],
    limits: dict[str, int],
    expected: tuple[int, str],
) -> None:
    limit(sessions, **limits)
    answer = post(acme, form([*fields(), GOOD, file("b.csv")]))
    assert (answer.status_code, slug(answer)) == expected
    check_nothing(books)


def test_a_body_that_can_never_fit_is_refused_unread(
    acme: Sender, books: Books, sessions: sessionmaker[Session]
) -> None:
    limit(sessions, batch_bytes=1000, files_per_batch=1)
    answer = post(acme, form([*fields(), file("a.csv", bytes(300_000))]))
    assert (answer.status_code, slug(answer)) == (413, "too-large")
    assert answer.headers["connection"] == "close"
    assert count(books, Batch) == 0


def test_one_delivery_too_many_leaves_those_before(
    acme: Sender, books: Books, sessions: sessionmaker[Session]
) -> None:
    limit(sessions, open_batches=1)
    acme.batch("open")
    answer = post(acme, form([*fields(), GOOD]))
    assert (answer.status_code, slug(answer)) == (429, "quota-exceeded")
    assert count(books, Batch) == 1
    books.check()


def test_many_files_are_one_delivery(acme: Sender, books: Books) -> None:
    names = [f"{number}.csv" for number in range(60)]
    answer = post(acme, form([*fields(), *(file(name, name.encode()) for name in names)]))
    assert answer.status_code == 202
    stored = books.on_disk(answer.json()["batch"]["id"])
    assert stored == {name: name.encode() for name in names}


# --- over a real connection -----------------------------------------------------------------------


def memory_bytes(process: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def begun(line: Callable[[], Line], **headers: str) -> Line:
    media = f"multipart/form-data; boundary={BOUNDARY}"
    return line().begin("POST", DOOR, Content_Type=media, **headers)


def test_a_preamble_without_end_is_refused_early(line: Callable[[], Line], books: Books) -> None:
    speaker = begun(line, Content_Length=str(20 * 1024**2))
    speaker.send(b"\r\n" + b"x" * 400_000)
    status, headers, body = speaker.answer()
    assert (status, body["type"]) == (422, "/problems/invalid-request")
    assert headers["connection"] == "close"
    check_nothing(books)


def test_a_delivery_cut_under_way_leaves_nothing(
    line: Callable[[], Line], books: Books, wired: Sender
) -> None:
    body = form([*fields(), file("a.csv"), file("b.bin", bytes(2 * 1024**2))])
    speaker = begun(line, Content_Length=str(len(body)))
    speaker.send(body[:-500_000])
    until(lambda: count(books, Batch) == 1)
    speaker.cut()
    until(lambda: states(books) == ["canceled"])
    until(lambda: not books.lying() and count(books, File) == 0)
    check_nothing(books)
    assert post(wired, body).status_code == 202


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def states(books: Books) -> list[str]:
    with books.sessions.begin() as session:
        return list(session.scalars(select(Batch.state)))


def test_memory_stays_flat_whatever_the_content(server: Any, wired: Sender, books: Books) -> None:
    def body() -> Iterator[bytes]:
        yield form([*fields(), file("a.bin", b"")], end=b"")[: -len(f"\r\n--{BOUNDARY}")]
        # Every pair of these bytes might begin a boundary.
        for _ in range(64):
            yield b"\r\n" * (512 * 1024)
        yield f"\r\n--{BOUNDARY}--\r\n".encode()

    assert post(wired, form([*fields(reference="warm"), GOOD])).status_code == 202
    before = memory_bytes(server.process.pid)
    answer = post(wired, body())
    assert answer.status_code == 202, answer.text
    stored = books.on_disk(answer.json()["batch"]["id"])["a.bin"]
    assert stored == b"\r\n" * (64 * 512 * 1024)
    assert memory_bytes(server.process.pid) - before < 32 * 1024**2
