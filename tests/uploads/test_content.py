"""Giving files back, whole and in ranges; taking them out again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from gateway.batches.model import File
from tests.uploads.sending import CONTENT, OTHER, Books, Sender, address, digest, sha256, slug

Bearer = Callable[[str], dict[str, str]]
LARGE = bytes(number % 253 for number in range(3_000_007))


def test_a_file_comes_back_as_it_was_sent(acme: Sender) -> None:
    batch = acme.batch()
    for name, content in {"large": LARGE, "small": CONTENT, "empty": b""}.items():
        acme.put(batch, name, content=content)
        answer = acme.get(batch, name)
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["content-length"] == str(len(content))
        assert answer.headers["repr-digest"] == digest(content)
        assert answer.headers["etag"] == f'"{sha256(content)}"'
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.fixture
def large(acme: Sender) -> str:
    batch = acme.batch()
    assert acme.put(batch, content=LARGE).status_code == 201
    return batch


def test_ranges_come_back_as_they_were_asked_for(acme: Sender, large: str) -> None:
    last = len(LARGE) - 1
    table = {
        "bytes=0-0": (0, 0),
        "bytes=5-9": (5, 9),
        "bytes=1048570-1048590": (1048570, 1048590),
        "bytes=10-": (10, last),
        "bytes=-7": (last - 6, last),
        f"bytes={last}-": (last, last),
        f"bytes=0-{10**17}": (0, last),
        f"bytes=-{10**17}": (0, last),
    }
    for header, (first, end) in table.items():
        answer = acme.get(large, range=header)
        assert (answer.status_code, answer.content) == (206, LARGE[first : end + 1]), header
        assert answer.headers["content-range"] == f"bytes {first}-{end}/{len(LARGE)}"
        assert answer.headers["content-length"] == str(end - first + 1)
        # Of the whole file, not of the range (RFC 9530 §3).
        assert answer.headers["repr-digest"] == digest(LARGE)


def test_ranges_beyond_the_end_are_said_to_be(acme: Sender, large: str) -> None:
    for header in (f"bytes={len(LARGE)}-", "bytes=-0", f"bytes={10**17}-{10**17}"):
        answer = acme.get(large, range=header)
        assert (answer.status_code, slug(answer)) == (416, "range-not-satisfiable")
        assert answer.headers["content-range"] == f"bytes */{len(LARGE)}"
    acme.put(large, "empty", content=b"")
    assert acme.get(large, "empty", range="bytes=0-").status_code == 416


def test_ranges_that_make_no_sense_are_passed_over(acme: Sender, large: str) -> None:
    for header in ("bytes=9-5", "bytes=-", "rows=1-2", "bytes=0-1,5-6", "x", "bytes=" + "9" * 40):
        answer = acme.get(large, range=header)
        assert (answer.status_code, len(answer.content)) == (200, len(LARGE)), header


def test_a_range_is_given_only_of_the_file_that_is_meant(acme: Sender, large: str) -> None:
    tag = f'"{sha256(LARGE)}"'
    same = acme.get(large, range="bytes=0-9", if_range=tag)
    assert (same.status_code, same.content) == (206, LARGE[:10])
    for other in (f'"{sha256(OTHER)}"', f"W/{tag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert acme.get(large, range="bytes=0-9", if_range=other).status_code == 200


def test_a_file_that_the_caller_has_is_not_sent(acme: Sender, large: str) -> None:
    tag = f'"{sha256(LARGE)}"'
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = acme.get(large, if_none_match=known)
        assert (answer.status_code, answer.content) == (304, b""), known
        assert answer.headers["etag"] == tag
    assert acme.get(large, if_none_match='"x"').status_code == 200


def test_content_is_for_those_who_may_read_it(
    client: TestClient, acme: Sender, globex: Sender, bearer: Bearer
) -> None:
    batch = acme.batch()
    acme.put(batch)
    path = address(batch, "a.csv")
    for each in (path, f"{path}/content"):
        answer = client.get(each)
        assert (answer.status_code, slug(answer)) == (401, "not-authenticated")
        answer = globex.ask("GET", each)
        assert (answer.status_code, slug(answer)) == (404, "not-found")
        for user in ("auditor", "admin", "svc-airflow"):
            answer = Sender(client, bearer(user)).ask("GET", each)
            assert (answer.status_code, slug(answer)) == (403, "forbidden"), user
        assert Sender(client, bearer("acme-viewer")).ask("GET", each).status_code == 200


def test_what_is_absent_or_unfinished_has_no_content(
    acme: Sender, sessions: sessionmaker[Session]
) -> None:
    batch = acme.batch()
    acme.put(batch)
    assert acme.get(batch, "none").status_code == 404
    assert acme.get("bat_" + "0" * 26).status_code == 404
    with sessions.begin() as session:
        session.get_one(File, (batch, "a.csv")).state = "error"
    assert acme.get(batch).status_code == 404


def test_damaged_bytes_are_not_given_for_those_that_were_sent(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    acme.put(batch)
    place = books.root / "acme" / "flights" / batch / "files" / "a.csv"
    place.write_bytes(CONTENT[:-1])
    answer = acme.get(batch)
    assert (answer.status_code, slug(answer)) == (503, "unavailable")
    assert not answer.json()["retryable"]
    place.unlink()
    assert acme.get(batch).status_code == 404


# --- DELETE -------------------------------------------------------------------------------------


def test_a_deleted_file_is_gone_and_its_name_is_free(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    acme.put(batch)
    path = address(batch, "a.csv")
    assert acme.ask("DELETE", path).status_code == 204
    books.check_nothing(batch)
    answer = acme.ask("DELETE", path)
    assert (answer.status_code, slug(answer)) == (404, "not-found")
    assert acme.put(batch, content=OTHER).status_code == 201
    assert books.on_disk(batch) == {"a.csv": OTHER}
    assert books.actions().count("file.deleted") == 1
    books.check()


def test_a_file_is_deleted_by_its_writers_only(
    client: TestClient, acme: Sender, globex: Sender, bearer: Bearer, books: Books
) -> None:
    batch = acme.batch()
    acme.put(batch)
    path = address(batch, "a.csv")
    assert client.delete(path).status_code == 401
    assert Sender(client, bearer("acme-viewer")).ask("DELETE", path).status_code == 403
    answer = globex.ask("DELETE", path)
    assert (answer.status_code, slug(answer)) == (404, "not-found")
    assert books.on_disk(batch) == {"a.csv": CONTENT}
    books.check()


def test_files_of_a_batch_that_is_not_open_are_not_deleted(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    acme.put(batch)
    acme.seal(batch)
    answer = acme.ask("DELETE", address(batch, "a.csv"))
    assert (answer.status_code, slug(answer)) == (409, "batch-sealed")
    assert books.on_disk(batch) == {"a.csv": CONTENT}
    canceled = acme.batch("canceled")
    acme.ask("DELETE", f"/v1/batches/{canceled}")
    answer = acme.ask("DELETE", address(canceled, "a.csv"))
    assert (answer.status_code, slug(answer)) == (409, "batch-closed")
    books.check()


def test_a_file_is_given_only_as_its_caller_knows_it_if_that_is_asked_for(acme: Sender) -> None:
    batch = acme.batch()
    acme.put(batch)
    tag = f'"{sha256(CONTENT)}"'
    for named in (tag, f'"other", {tag}', "*"):
        answer = acme.get(batch, if_match=named)
        assert (answer.status_code, answer.content) == (200, CONTENT)
    for named in ('"other"', f"W/{tag}", ""):
        answer = acme.get(batch, if_match=named, range="bytes=0-1")
        assert (answer.status_code, slug(answer)) == (412, "precondition-failed")
        assert answer.headers["etag"] == tag
