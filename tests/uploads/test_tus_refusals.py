"""What the doors of tus 1.0.0 do not take, and that it changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from tests.uploads.resuming import CONTENT, STREAM, TUS, begun, create, encoded, offset, patch
from tests.uploads.sending import Books, Sender, sha256, slug


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
