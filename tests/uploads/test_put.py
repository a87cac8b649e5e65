"""PUT of one file: what is answered, what is kept, and what never is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from gateway.clients.registry import Client
from tests.uploads.sending import CONTENT, OTHER, Books, Sender, address, digest, sha256, slug

Bearer = Callable[[str], dict[str, str]]


def test_acknowledged_bytes_are_on_disk_with_their_digest(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    answer = acme.put(batch, "flights 1.csv", content_type="text/csv")
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert body["sha256"] == sha256(CONTENT)
    assert (body["size_bytes"], body["state"]) == (len(CONTENT), "complete")
    assert (body["name"], body["media_type"]) == ("flights 1.csv", "text/csv")
    assert answer.headers["repr-digest"] == digest(CONTENT)
    assert answer.headers["location"] == address(batch, "flights 1.csv")
    assert books.on_disk(batch) == {"flights 1.csv": CONTENT}
    books.check()
    shown = acme.ask("GET", answer.headers["location"])
    assert shown.json() == body
    assert acme.ask("GET", f"/v1/batches/{batch}").json()["files"] == [body]
    assert books.actions().count("file.received") == 1


def pieces(content: bytes, size: int = 70_001) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def test_files_of_any_size_arrive_whole_announced_or_not(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    for size in (0, 1, 1024**2 - 1, 1024**2, 1024**2 + 1, 5 * 1024**2 + 3):
        content = (bytes(number % 251 for number in range(1024)) * (size // 1024 + 1))[:size]
        for body in (content, pieces(content)):
            name = f"{size}-{type(body).__name__}"
            answer = acme.put(batch, name, content=body)
            assert answer.status_code == 201, answer.text
            assert answer.json()["sha256"] == sha256(content)
            assert books.on_disk(batch)[name] == content
    books.check()


def test_a_body_in_a_thousand_crumbs_arrives_whole(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    content = bytes(range(256)) * 20
    answer = acme.put(batch, content=pieces(content, 1))
    assert answer.status_code == 201
    assert books.on_disk(batch) == {"a.csv": content}


def test_the_same_bytes_again_answer_200_and_change_nothing(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    first = acme.put(batch)
    for again in (acme.put(batch), acme.put(batch, content=iter([CONTENT[:3], CONTENT[3:]]))):
        assert again.status_code == 200, again.text
        assert again.json() == first.json()
        assert again.headers["repr-digest"] == digest(CONTENT)
    assert books.actions().count("file.received") == 1
    books.check()


def test_other_bytes_under_a_taken_name_answer_409_and_the_first_stay(
    acme: Sender, books: Books
) -> None:
    batch = acme.batch()
    acme.put(batch)
    for content in (OTHER, CONTENT + b"x", CONTENT[:-1], b"", b"x" * 5_000_000):
        for body in (content, pieces(content)):
            answer = acme.put(batch, content=body)
            assert (answer.status_code, slug(answer)) == (409, "file-exists")
    assert books.on_disk(batch) == {"a.csv": CONTENT}
    books.check()


def test_an_announced_digest_that_differs_is_refused_before_the_body(acme: Sender) -> None:
    batch = acme.batch()
    acme.put(batch)
    answer = acme.put(batch, content=CONTENT * 10_000, repr_digest=digest(OTHER))
    assert answer.status_code in {409, 422}
    assert answer.headers["connection"] == "close"


# --- the four of every door ---------------------------------------------------------------------


def test_nobody_stores_without_a_token(client: TestClient, acme: Sender, books: Books) -> None:
    batch = acme.batch()
    answer = client.put(address(batch, "a.csv"), content=CONTENT)
    assert (answer.status_code, slug(answer)) == (401, "not-authenticated")
    books.check_nothing(batch)


def test_an_account_that_may_not_write_stores_nothing(
    client: TestClient, acme: Sender, books: Books, bearer: Bearer
) -> None:
    batch = acme.batch()
    for user in ("acme-viewer", "auditor", "admin", "svc-airflow"):
        answer = Sender(client, bearer(user)).put(batch)
        assert (answer.status_code, slug(answer)) == (403, "forbidden"), user
    books.check_nothing(batch)


def test_another_clients_batch_is_absent(acme: Sender, globex: Sender, books: Books) -> None:
    batch = acme.batch()
    nowhere = "bat_" + "0" * 26
    for target in (batch, nowhere, "nonsense", "bat_%00", "..."):
        answer = globex.put(target)
        assert (answer.status_code, slug(answer)) == (404, "not-found")
    books.check_nothing(batch)


def test_a_suspended_clients_file_is_refused(
    acme: Sender, books: Books, sessions: sessionmaker[Session]
) -> None:
    batch = acme.batch()
    with sessions.begin() as session:
        session.get_one(Client, "acme").state = "suspended"
    answer = acme.put(batch)
    assert (answer.status_code, slug(answer)) == (403, "forbidden")
    books.check_nothing(batch)


# --- names --------------------------------------------------------------------------------------

REFUSED = [
    "%2e%2e%2fetc%2fpasswd",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e%5cetc",
    "..%5c..%5cetc",
    "%252e%252e%252fetc",
    "%2e%2e",
    "a%00.csv",
    "a%0a.csv",
    "a%0d%0aX-Evil:1",
    "a%7f",
    "%e2%80%aegpj.exe",
    "%ef%bc%8fetc",
    "%c0%ae%c0%ae",
    "%ff%fe",
    "a.csv.",
    "a.csv%20",
    ".hidden",
    "-rf",
    "CON",
    "nul.csv",
    "e%cc%81.csv",
    "x" * 256,
    "x" * 2000,
    "%f0%9f%99%82",
]


UNKNOWN = {"not-found", "method-not-allowed", "invalid-request"}


def test_hostile_names_store_nothing(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    for raw in REFUSED:
        path = f"/v1/batches/{batch}/files/{raw}"
        answer = acme.ask("PUT", path, content=CONTENT)
        assert answer.status_code in {404, 405, 422}, answer.text
        assert slug(answer) in {"invalid-filename", "reserved-name", *UNKNOWN}
        for method, tail in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
            answer = acme.ask(method, path + tail)
            assert 400 <= answer.status_code < 500, (method, raw, answer.text)
    books.check_nothing(batch)


def test_a_refused_name_is_said_by_its_slug(acme: Sender) -> None:
    batch = acme.batch()
    table = {"a/b": "not-found", "CON.txt": "reserved-name", "-rf": "invalid-filename"}
    assert {name: slug(acme.put(batch, name)) for name in table} == table


def test_names_of_the_world_are_kept_as_they_are(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    names = {"été.csv", "データ.csv", "a+b=c&d.csv", "x" * 255, "50 done", "\ufdfa" * 85}
    for name in names:
        assert acme.put(batch, name).status_code == 201
        assert acme.get(batch, name).content == CONTENT
    assert books.on_disk(batch).keys() == names
    books.check()


def test_names_alike_are_refused(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    alike = {"a.csv": "A.CSV", "\ufb01le": "file", "ÉTÉ": "été"}
    for one, other in alike.items():
        assert acme.put(batch, one).status_code == 201
        answer = acme.put(batch, other, content=OTHER)
        assert (answer.status_code, slug(answer)) == (409, "duplicate-name")
    assert books.on_disk(batch) == dict.fromkeys(alike, CONTENT)
    books.check()


# --- headers ------------------------------------------------------------------------------------


def test_coded_content_is_refused(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    for coding in ("gzip", "br", "identity, gzip", "GZIP"):
        answer = acme.put(batch, content_encoding=coding)
        assert (answer.status_code, slug(answer)) == (415, "unsupported-media")
    books.check_nothing(batch)


def test_identity_is_no_coding(acme: Sender) -> None:
    assert acme.put(acme.batch(), content_encoding="identity").status_code == 201


def test_a_piece_of_a_file_is_not_taken_for_the_whole(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    answer = acme.put(batch, content_range="bytes 0-3/100")
    assert answer.status_code == 422
    books.check_nothing(batch)


def test_fewer_bytes_than_announced_are_no_file(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    answer = acme.put(batch, content_length=str(len(CONTENT) + 1))
    assert answer.status_code == 422
    books.check_nothing(batch)
    assert acme.put(batch).status_code == 201


def test_a_strange_media_type_does_no_harm(acme: Sender) -> None:
    batch = acme.batch()
    for number, media in enumerate(["", "x" * 101, "text/csv\u00ff\u0085"]):
        path = address(batch, f"{number}.csv")
        headers: Any = {"content-type": media.encode("latin-1")}
        answer = acme.ask("PUT", path, content=CONTENT, headers=headers)
        assert (answer.status_code, answer.json()["media_type"]) == (201, None)


def test_nonsense_in_content_length_is_the_senders_fault(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    for length in ("-1", "abc", "1e3", "9" * 25, "9" * 5000, "+5", ""):
        answer = acme.put(batch, content_length=length)
        assert 400 <= answer.status_code < 500, answer.text
    books.check_nothing(batch)


# --- the batch's state --------------------------------------------------------------------------


def test_a_sealed_batch_takes_no_file_but_acknowledges_what_it_has(
    acme: Sender, books: Books
) -> None:
    batch = acme.batch()
    first = acme.put(batch)
    assert acme.seal(batch).status_code == 202
    answer = acme.put(batch, "b.csv")
    assert (answer.status_code, slug(answer)) == (409, "batch-sealed")
    again = acme.put(batch)
    assert (again.status_code, again.json()) == (200, first.json())
    assert acme.put(batch, content=OTHER).status_code == 409
    assert books.on_disk(batch) == {"a.csv": CONTENT}
    books.check()


def test_a_canceled_batch_takes_nothing_and_keeps_nothing(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    acme.put(batch)
    assert acme.ask("DELETE", f"/v1/batches/{batch}").status_code == 204
    for name in ("a.csv", "b.csv"):
        answer = acme.put(batch, name)
        assert (answer.status_code, slug(answer)) == (409, "batch-closed")
    books.check_nothing(batch)


def test_a_canceled_batch_that_is_not_cleared_yet_acknowledges_nothing(
    acme: Sender, sessions: sessionmaker[Session], books: Books
) -> None:
    batch = acme.batch()
    acme.put(batch)
    with sessions.begin() as session:
        session.merge(books.of(batch)).state = "expired"
    answer = acme.put(batch)
    assert (answer.status_code, slug(answer)) == (409, "batch-closed")


def test_a_file_that_was_lost_is_not_acknowledged_again(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    acme.put(batch)
    place: Path = books.root / "acme" / "flights" / batch / "files" / "a.csv"
    place.unlink()
    answer = acme.put(batch)
    assert (answer.status_code, slug(answer)) == (409, "file-exists")
    assert acme.ask("DELETE", address(batch, "a.csv")).status_code == 204
    assert acme.put(batch).status_code == 201
    books.check()


def test_a_file_marked_damaged_is_taken_again(
    acme: Sender, books: Books, sessions: sessionmaker[Session]
) -> None:
    batch = acme.batch()
    acme.put(batch)
    place: Path = books.root / "acme" / "flights" / batch / "files" / "a.csv"
    place.write_bytes(b"cut")
    from gateway.batches.model import File

    with sessions.begin() as session:
        session.get_one(File, (batch, "a.csv")).state = "error"
    answer = acme.put(batch)
    assert answer.status_code == 201, answer.text
    assert books.on_disk(batch) == {"a.csv": CONTENT}
    assert books.set_aside() == [b"cut"]
    books.check()


def test_every_answer_is_described(client: TestClient) -> None:
    paths: dict[str, Any] = client.get("/openapi.json").json()["paths"]
    described = paths["/v1/batches/{batch_id}/files/{name}"]["put"]["responses"]
    expected = {"200", "201", "401", "403", "404", "409", "413", "415", "422", "429", "503", "507"}
    assert expected <= described.keys()
    assert json.dumps(described)
