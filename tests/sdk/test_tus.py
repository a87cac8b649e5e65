"""One large file in pieces: where it goes on, what is begun anew, what ends it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.sdk import files, tus
from gateway.sdk.client import GatewayClient
from gateway.sdk.files import CHUNK_BYTES, LocalFile
from gateway.sdk.problems import AbortedError, FileChangedError, GatewayProblem
from gateway.sdk.transport import RetryPolicy
from tests.fakes.gateway_api import PASSWORD, USER, Fault, State

Write = Callable[[str, bytes], Path]
SIZE = 5 * CHUNK_BYTES + 17
PIECE = 2 * CHUNK_BYTES
PATCHES = "/v1/uploads/.*"


@pytest.fixture
def batch(gateway: GatewayClient) -> str:
    return gateway.create_batch("flights", "2013-01").id


@pytest.fixture
def file(write: Write) -> LocalFile:
    return files.inspect(write("flights été.csv", os.urandom(SIZE)))


def is_whole(api: State, batch: str, file: LocalFile) -> bool:
    return api.contents.get((batch, file.name)) == file.path.read_bytes()


def test_file_is_sent_in_pieces_under_its_name_and_digest(
    api: State, gateway: GatewayClient, batch: str, file: LocalFile
) -> None:
    told: list[int] = []
    uploads: list[str] = []
    stored = tus.send(
        gateway,
        batch,
        file,
        on_upload=uploads.append,
        on_sent=told.append,
        piece_bytes=PIECE,
    )
    assert (stored.state, stored.sha256) == ("complete", file.sha256)
    assert is_whole(api, batch, file)
    assert api.uploads.created == [{"filename": file.name, "sha256": file.sha256}]
    assert api.uploads.received == [(0, PIECE), (PIECE, PIECE), (2 * PIECE, CHUNK_BYTES + 17)]
    assert told == sorted(told)
    assert told[-1] == SIZE
    assert uploads == [*api.uploads.known, ""]


@pytest.mark.parametrize("kind", ["cut", "lose"])
@pytest.mark.parametrize("after_bytes", [0, 1, CHUNK_BYTES + 5, PIECE])
def test_piece_that_broke_off_goes_on_where_the_gateway_has_it(
    api: State, gateway: GatewayClient, batch: str, file: LocalFile, kind: str, after_bytes: int
) -> None:
    api.faults.append(Fault("PATCH", PATCHES, kind, times=2, after_bytes=after_bytes))
    tus.send(gateway, batch, file, piece_bytes=PIECE)
    assert is_whole(api, batch, file)
    assert len(api.uploads.created) == 1
    taken = [size for _, size in api.uploads.received]
    assert sum(taken) == SIZE, "no byte arrived twice"


def test_progress_renews_the_patience_with_a_bad_line(
    api: State, batch: str, file: LocalFile
) -> None:
    api.faults.append(Fault("PATCH", PATCHES, "cut", times=20, after_bytes=SIZE // 21))
    policy = RetryPolicy(deadline_seconds=0.4, base_seconds=0.1, cap_seconds=0.1)
    with GatewayClient(api.url, USER, PASSWORD, policy=policy) as gateway:
        started = time.monotonic()
        tus.send(gateway, batch, file)
        assert time.monotonic() - started > policy.deadline_seconds
    assert is_whole(api, batch, file)


def test_line_that_lets_nothing_through_ends_at_the_deadline(
    api: State, batch: str, file: LocalFile
) -> None:
    api.faults.append(Fault("PATCH", PATCHES, "cut", times=10_000))
    policy = RetryPolicy(deadline_seconds=0.5, base_seconds=0.01, cap_seconds=0.05)
    with GatewayClient(api.url, USER, PASSWORD, policy=policy) as gateway:
        started = time.monotonic()
        with pytest.raises(GatewayProblem, match="did not answer"):
            tus.send(gateway, batch, file)
        assert 0.3 < time.monotonic() - started < 3.0


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PATCH", PATCHES, "refuse"),
        Fault("PATCH", PATCHES, "refuse", status=429, slug="rate-limited"),
        Fault("PATCH", PATCHES, "refuse", status=409, slug="upload-conflict"),
        Fault("PATCH", PATCHES, "refuse", status=401, slug="invalid-token"),
        Fault("HEAD", PATCHES, "refuse"),
        Fault("HEAD", PATCHES, "lose"),
        Fault("POST", ".*/uploads", "refuse"),
        Fault("POST", ".*/uploads", "lose"),
        Fault("POST", ".*/uploads", "refuse", status=409, slug="upload-conflict"),
        Fault("GET", ".*/files/.*", "refuse"),
        Fault("GET", ".*/files/.*", "lose"),
    ],
    ids=lambda fault: f"{fault.method}-{fault.kind}-{fault.status}",
)
def test_what_may_pass_is_tried_again(
    api: State, gateway: GatewayClient, batch: str, file: LocalFile, fault: Fault
) -> None:
    api.faults += [Fault("PATCH", PATCHES, "cut", after_bytes=CHUNK_BYTES), fault]
    fault.times = 1
    tus.send(gateway, batch, file, piece_bytes=PIECE)
    assert is_whole(api, batch, file)
    assert fault.times == 0


@pytest.mark.parametrize("slug", ["unavailable", "upload-conflict"])
def test_creation_is_tried_for_as_long_as_anything_else(
    api: State, gateway: GatewayClient, batch: str, file: LocalFile, slug: str
) -> None:
    status = 503 if slug == "unavailable" else 409
    times = 2 * tus.BEGINNINGS
    api.faults.append(Fault("POST", ".*/uploads", "refuse", times, status=status, slug=slug))
    tus.send(gateway, batch, file)
    assert is_whole(api, batch, file)


def test_token_that_lapses_between_pieces_is_renewed(
    api: State, gateway: GatewayClient, batch: str, file: LocalFile
) -> None:
    lapses = iter([api.tokens.clear])

    def lapse(sent_bytes: int) -> None:
        if sent_bytes == PIECE:
            next(lapses, lambda: None)()

    tus.send(gateway, batch, file, on_sent=lapse, piece_bytes=PIECE)
    assert is_whole(api, batch, file)


@pytest.mark.parametrize("loss", ["gone", "unknown"])
def test_upload_that_the_gateway_lost_is_begun_anew(
    api: State, gateway: GatewayClient, batch: str, file: LocalFile, loss: str
) -> None:
    def lose(sent_bytes: int) -> None:
        if sent_bytes == PIECE and len(api.uploads.created) == 1:
            for upload in list(api.uploads.known.values()):
                upload.is_gone = True
                if loss == "unknown":
                    del api.uploads.known[upload.id]

    noted: list[str] = []
    tus.send(gateway, batch, file, on_sent=lose, on_upload=noted.append, piece_bytes=PIECE)
    assert is_whole(api, batch, file)
    assert len(api.uploads.created) == 2
    first, lost, second, done = noted
    assert (bool(first), lost, bool(second), done) == (True, "", True, "")


def test_upload_that_is_lost_every_time_is_given_up(
    api: State, gateway: GatewayClient, batch: str, file: LocalFile
) -> None:
    api.faults.append(Fault("PATCH", PATCHES, "refuse", times=99, status=410, slug="upload-gone"))
    with pytest.raises(GatewayProblem, match="again and again"):
        tus.send(gateway, batch, file)
    assert len(api.uploads.created) == tus.BEGINNINGS


def test_known_upload_is_resumed_and_begins_its_progress_there(
    api: State, gateway: GatewayClient, batch: str, file: LocalFile
) -> None:
    api.faults.append(Fault("PATCH", PATCHES, "cut", after_bytes=PIECE + 3))
    api.faults.append(Fault("HEAD", PATCHES, "refuse", status=403, slug="forbidden"))
    noted: list[str] = []
    with pytest.raises(GatewayProblem, match="403"):
        tus.send(gateway, batch, file, on_upload=noted.append)
    told: list[int] = []
    tus.send(gateway, batch, file, upload=noted[-1], on_sent=told.append)
    assert is_whole(api, batch, file)
    assert min(told) == PIECE + 3
    assert api.uploads.received[1:] == [(PIECE + 3, SIZE - PIECE - 3)]


@pytest.mark.parametrize("upload", ["upl_unknown", "../batches", "upl_/../x", "http://elsewhere/"])
def test_unknown_or_strange_upload_is_begun_anew(
    api: State, gateway: GatewayClient, batch: str, file: LocalFile, upload: str
) -> None:
    tus.send(gateway, batch, file, upload=upload)
    assert is_whole(api, batch, file)
    assert all(path.count("/") <= 5 for path in api.requests)


def test_answer_lost_after_the_last_byte_is_waited_for(
    api: State, gateway: GatewayClient, batch: str, file: LocalFile
) -> None:
    api.uploads.unverified_looks = 3
    api.faults.append(Fault("PATCH", PATCHES, "lose"))
    stored = tus.send(gateway, batch, file)
    assert stored.sha256 == file.sha256
    assert api.count("GET .*/files/.*") == 3
    assert api.count("PATCH .*") == 1


def test_upload_that_completed_unseen_is_not_sent_again(
    api: State, gateway: GatewayClient, batch: str, file: LocalFile
) -> None:
    tus.send(gateway, batch, file)
    sent = list(api.uploads.received)
    for upload in api.uploads.known.values():
        upload.is_gone = True
    tus.send(gateway, batch, file, upload=next(iter(api.uploads.known)))
    tus.send(gateway, batch, file)
    assert api.uploads.received == sent


def test_file_never_verified_is_given_up(api: State, batch: str, file: LocalFile) -> None:
    api.uploads.unverified_looks = 10_000
    policy = RetryPolicy(deadline_seconds=0.5)
    with (
        GatewayClient(api.url, USER, PASSWORD, policy=policy) as gateway,
        pytest.raises(GatewayProblem, match="unverified"),
    ):
        tus.send(gateway, batch, file)


def test_bytes_that_were_altered_on_the_way_are_refused_for_good(
    api: State, gateway: GatewayClient, batch: str, file: LocalFile
) -> None:
    def alter(sent_bytes: int) -> None:
        if sent_bytes == PIECE + CHUNK_BYTES:  # the first piece has been answered by now
            (upload,) = api.uploads.known.values()
            upload.content[0] = file.path.read_bytes()[0] ^ 1

    noted: list[str] = []
    with pytest.raises(GatewayProblem) as caught:
        tus.send(gateway, batch, file, on_sent=alter, on_upload=noted.append, piece_bytes=PIECE)
    assert (caught.value.slug, caught.value.status) == ("digest-mismatch", 460)
    assert noted[-1] == ""
    assert not api.contents


def test_name_that_somebody_else_gave_to_other_bytes_is_refused(
    api: State, gateway: GatewayClient, batch: str, file: LocalFile, write: Write
) -> None:
    gateway.put_file(batch, files.inspect(write(f"other/{file.name}", b"other")))
    with pytest.raises(GatewayProblem, match="file-exists"):
        tus.send(gateway, batch, file)


def test_file_that_was_discarded_after_its_arrival_is_a_mismatch(
    api: State, gateway: GatewayClient, batch: str, file: LocalFile
) -> None:
    api.faults.append(Fault("GET", ".*/files/.*", "refuse", status=404, slug="not-found"))
    with pytest.raises(GatewayProblem, match="digest-mismatch"):
        tus.send(gateway, batch, file)


@pytest.mark.parametrize("status", [403, 413, 422])
def test_refusal_for_good_is_not_repeated(
    api: State, gateway: GatewayClient, batch: str, file: LocalFile, status: int
) -> None:
    api.faults.append(Fault("POST", ".*/uploads", "refuse", times=9, status=status, slug="no"))
    with pytest.raises(GatewayProblem):
        tus.send(gateway, batch, file)
    assert api.count("POST .*/uploads") == 1


def test_file_written_to_between_pieces_is_not_stored(
    api: State, gateway: GatewayClient, batch: str, file: LocalFile
) -> None:
    def append(sent_bytes: int) -> None:
        if sent_bytes == PIECE:
            with file.path.open("ab") as target:
                target.write(b"late")

    with pytest.raises(FileChangedError):
        tus.send(gateway, batch, file, on_sent=append, piece_bytes=PIECE)
    assert not api.contents


def test_abort_ends_a_stalled_piece_at_once(
    api: State, gateway: GatewayClient, batch: str, file: LocalFile
) -> None:
    api.faults.append(Fault("PATCH", PATCHES, "stall", after_bytes=PIECE))
    noted: list[str] = []

    def interrupt() -> None:
        while not api.uploads.received:
            time.sleep(0.01)
        gateway.transport.abort()

    thread = threading.Thread(target=interrupt)
    thread.start()
    started = time.monotonic()
    with pytest.raises(AbortedError):
        tus.send(gateway, batch, file, on_upload=noted.append)
    thread.join()
    assert time.monotonic() - started < 5.0
    gateway.transport.resume()
    tus.send(gateway, batch, file, upload=noted[-1])
    assert is_whole(api, batch, file)
    assert [size for _, size in api.uploads.received] == [PIECE, SIZE - PIECE]
