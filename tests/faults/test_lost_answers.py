"""A store that did what it was asked, and whose answer was lost on the way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from gateway.landing.s3 import index as s3_index
from gateway.landing.s3.settings import S3Settings
from gateway.landing.s3.zone import S3Zone
from gateway.landing.zone import BatchPath, NameTakenError
from tests.faults import relay
from tests.faults.relay import Relay

pytestmark = pytest.mark.s3
PLACE = BatchPath("acme", "flights", "bat_1")
SHORT, LONG = b"id,note\n1,one\n", os.urandom(s3_index.SEGMENT_BYTES + 7)


@pytest.fixture
def line(s3: S3Settings) -> Iterator[Relay]:
    with relay.before(int(s3.endpoint.rpartition(":")[2])) as between:
        yield between


@pytest.fixture
def zone(s3: S3Settings, line: Relay) -> Iterator[S3Zone]:
    built = S3Zone(replace(s3, endpoint=f"http://127.0.0.1:{line.port}"))
    yield built
    built.close()


def path(s3: S3Settings, key: str) -> bytes:
    return f"/{s3.bucket}/{s3.prefix}/{key}".encode()


@pytest.mark.parametrize(
    ("content", "request_line"),
    [
        (SHORT, b"PUT %s/acme/flights/bat_1/files/a.bin HTTP"),
        (LONG, b"PUT %s/acme/flights/bat_1/files/a.bin HTTP"),
        (LONG, b"POST %s/acme/flights/bat_1/files/a.bin?uploadId"),
        (LONG, b"PUT %s/.parts/upl_1/index"),
    ],
    ids=["short file", "claim", "completion", "index"],
)
def test_what_was_done_is_not_taken_for_refused(
    zone: S3Zone, line: Relay, s3: S3Settings, content: bytes, request_line: bytes
) -> None:
    line.lose(request_line % path(s3, "").rstrip(b"/"))
    part = zone.open_part("upl_1")
    part.write([content])
    part.finish()
    zone.publish(part, PLACE, "a.bin")
    part.abort()
    assert line.lost == 1
    file, _ = zone.open_file(PLACE, "a.bin")
    with file:
        assert file.read() == content


def test_what_another_has_published_is_not_taken_for_ones_own(
    zone: S3Zone, line: Relay, s3: S3Settings
) -> None:
    for upload, answer_is_lost in (("upl_1", False), ("upl_2", True)):
        if answer_is_lost:
            line.lose(b"PUT %s HTTP" % path(s3, "acme/flights/bat_1/files/a.bin"))
        part = zone.open_part(upload)
        part.write([SHORT])
        part.finish()
        if answer_is_lost:
            with pytest.raises(NameTakenError):
                zone.publish(part, PLACE, "a.bin")
            zone.retract(part, PLACE, "a.bin")
        else:
            zone.publish(part, PLACE, "a.bin")
        part.abort()
    assert line.lost == 1
    assert [each.name for each in zone.walk()] == ["a.bin"]
