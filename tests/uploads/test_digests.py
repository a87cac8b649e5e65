"""Digest headers (RFC 9530) of a PUT: enforced when given, refused when they make no sense."""

from __future__ import annotations

import base64
import hashlib

import pytest

from gateway.errors import InvalidRequestError
from gateway.uploads import digests
from tests.uploads.sending import CONTENT, OTHER, Books, Sender, digest, sha256, slug

SHA512 = f"sha-512=:{base64.b64encode(hashlib.sha512(CONTENT).digest()).decode()}:"


def test_a_right_digest_is_accepted(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    right = digest(CONTENT)
    given = [
        {"repr_digest": right},
        {"content_digest": right},
        {"repr_digest": right, "content_digest": right},
        {"repr_digest": f"{SHA512}, {right}"},
        {"repr_digest": f" {right} ,{SHA512}"},
        {"repr_digest": SHA512},
        {"content_digest": "md5=:AAAA:"},
    ]
    for number, headers in enumerate(given):
        answer = acme.put(batch, f"{number}.csv", **headers)
        assert answer.status_code == 201, (headers, answer.text)
    books.check()


def test_a_wrong_digest_leaves_nothing_and_the_name_is_free(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    wrong = digest(OTHER)
    for headers in ({"repr_digest": wrong}, {"content_digest": wrong}):
        for body in (CONTENT, iter([CONTENT])):
            answer = acme.put(batch, content=body, **headers)
            assert (answer.status_code, slug(answer)) == (422, "digest-mismatch")
            assert sha256(CONTENT) in answer.json()["detail"]
            books.check_nothing(batch)
    assert acme.put(batch, repr_digest=digest(CONTENT)).status_code == 201
    books.check()


def test_headers_that_make_no_sense_are_refused_before_the_body(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    right = digest(CONTENT)
    senseless = [
        {"repr_digest": "sha-256"},
        {"repr_digest": sha256(CONTENT)},
        {"repr_digest": f"sha-256={sha256(CONTENT)}"},
        {"repr_digest": "sha-256=:AAAA:"},
        {"repr_digest": "sha-256=:A:"},
        {"repr_digest": right.replace("sha-256", "SHA-256")},
        {"repr_digest": right + ","},
        {"repr_digest": right + ";"},
        {"content_digest": "=:AAAA:"},
        {"content_digest": "sha-256=:====:"},
        {"repr_digest": right, "content_digest": digest(OTHER)},
        {"repr_digest": "x" * 5000},
    ]
    for headers in senseless:
        answer = acme.put(batch, **headers)
        assert (answer.status_code, slug(answer)) == (422, "invalid-request"), headers
        assert answer.headers["connection"] == "close"
    books.check_nothing(batch)


def test_two_lines_of_one_header_count_as_one_list(acme: Sender, books: Books) -> None:
    batch = acme.batch()
    named = list(acme.headers.items())
    path = f"/v1/batches/{batch}/files/a.csv"
    lines = [*named, ("Repr-Digest", SHA512), ("Repr-Digest", digest(OTHER))]
    answer = acme.speaker.put(path, content=CONTENT, headers=lines)
    assert slug(answer) == "digest-mismatch"
    books.check_nothing(batch)


def test_the_header_of_an_answer_is_read_back() -> None:
    value = digests.header(sha256(CONTENT))
    assert value == digest(CONTENT)
    assert digests.expected({"repr-digest": value}) == sha256(CONTENT)
    assert digests.expected({}) is None
    with pytest.raises(InvalidRequestError):
        digests.expected({"repr-digest": value, "content-digest": digests.header("0" * 64)})
