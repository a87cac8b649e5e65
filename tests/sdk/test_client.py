"""One call at a time: what is repeated, what is not, and what reaches the gateway."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import ssl
import time
from collections.abc import Callable
from email.utils import format_datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.sdk import files, problems
from gateway.sdk.client import GatewayClient
from gateway.sdk.problems import FileChangedError, GatewayProblem
from gateway.sdk.transport import RetryPolicy
from tests.fakes import gateway_api
from tests.fakes.gateway_api import PASSWORD, USER, Fault, State

Write = Callable[[str, bytes], Path]


def test_busy_gateway_is_asked_again_after_the_time_it_asked_for(
    api: State, gateway: GatewayClient
) -> None:
    api.faults.append(Fault("POST", "/v1/batches", "refuse", headers={"Retry-After": "1"}))
    started = time.monotonic()
    assert gateway.create_batch("flights", "2013-01").state == "open"
    assert time.monotonic() - started >= 1.0
    assert api.count("POST /v1/batches") == 2


def test_refusal_for_good_is_not_repeated(api: State, gateway: GatewayClient) -> None:
    fault = Fault("POST", "/v1/batches", "refuse", times=9, status=422, slug="invalid-request")
    api.faults.append(fault)
    with pytest.raises(GatewayProblem) as caught:
        gateway.create_batch("flights", "2013-01")
    assert (caught.value.slug, caught.value.status, caught.value.retryable) == (
        "invalid-request",
        422,
        False,
    )
    assert api.count("POST /v1/batches") == 1


def test_repeating_ends_at_the_deadline(api: State) -> None:
    api.faults.append(Fault("GET", "/v1/jobs/.*", "refuse", times=10_000))
    policy = RetryPolicy(deadline_seconds=0.5, base_seconds=0.01, cap_seconds=0.05)
    with GatewayClient(api.url, USER, PASSWORD, policy=policy) as gateway:
        started = time.monotonic()
        with pytest.raises(GatewayProblem, match="unavailable"):
            gateway.get_job("job_1")
    assert 0.3 < time.monotonic() - started < 3.0
    assert api.count("GET /v1/jobs/job_1") > 3


def test_a_wait_longer_than_the_deadline_is_not_begun(api: State, gateway: GatewayClient) -> None:
    api.faults.append(Fault("GET", "/v1/jobs/.*", "refuse", headers={"Retry-After": "3600"}))
    with pytest.raises(GatewayProblem) as caught:
        gateway.get_job("job_1")
    assert caught.value.retry_after_seconds == 3600


def test_lapsed_token_is_renewed_once(api: State, gateway: GatewayClient) -> None:
    gateway.create_batch("flights", "2013-01")
    api.tokens.clear()
    gateway.create_batch("flights", "2013-02")
    assert api.count("POST /v1/token") == 2


def test_second_refused_token_is_an_error(api: State, gateway: GatewayClient) -> None:
    fault = Fault("GET", "/v1/jobs/.*", "refuse", times=9, status=401, slug="invalid-token")
    api.faults.append(fault)
    with pytest.raises(GatewayProblem, match="invalid-token"):
        gateway.get_job("job_1")
    assert api.count("GET /v1/jobs/job_1") == 2


def test_wrong_password_is_tried_once_and_told_to_nobody(api: State) -> None:
    with GatewayClient(api.url, USER, "wrong-canary") as gateway:
        with pytest.raises(GatewayProblem) as caught:
            gateway.get_job("job_1")
        assert "wrong-canary" not in f"{caught.value!r} {gateway._login._account!r}"
    assert caught.value.slug == "invalid_client"
    assert len(api.forms) == 1


def test_person_logs_in_with_the_password_grant_for_the_named_client(api: State) -> None:
    with (
        GatewayClient(api.url, "alice", "secret", kind="person", client="acme") as gateway,
        pytest.raises(GatewayProblem),
    ):
        gateway.get_job("job_1")
    assert api.forms == [
        {
            "grant_type": "password",
            "username": "alice",
            "password": "secret",
            "client": "acme",
        }
    ]


def test_lost_answer_to_a_creation_makes_no_second_batch(
    api: State, gateway: GatewayClient
) -> None:
    api.faults.append(Fault("POST", "/v1/batches", "lose"))
    batch = gateway.create_batch("flights", "2013-01")
    assert list(api.batches) == [batch.id]
    assert api.count("POST /v1/batches") == 2


@pytest.mark.parametrize("kind", ["cut", "lose"])
def test_upload_that_was_cut_is_sent_again_whole(
    api: State, gateway: GatewayClient, write: Write, kind: str
) -> None:
    content = os.urandom(5 * files.CHUNK_BYTES + 17)
    file = files.inspect(write("flights.csv", content))
    batch = gateway.create_batch("flights", "2013-01")
    api.faults.append(Fault("PUT", ".*", kind, after_bytes=2 * files.CHUNK_BYTES))
    told: list[int] = []
    stored = gateway.put_file(batch.id, file, told.append)
    assert api.contents[batch.id, "flights.csv"] == content
    assert stored.sha256 == file.sha256
    assert stored.is_new == (kind == "cut")
    assert told.count(0) == 2
    assert told[-1] == len(content)


@pytest.mark.parametrize("name", ["100%25 & more?#.csv", "données été.csv", "a+b.csv", "x;y=1.csv"])
def test_any_name_reaches_the_gateway_as_it_is(
    api: State, gateway: GatewayClient, write: Write, name: str
) -> None:
    batch = gateway.create_batch("flights", "2013-01")
    gateway.put_file(batch.id, files.inspect(write(name, b"1")))
    assert (batch.id, name) in api.contents


def test_empty_file_is_delivered(api: State, gateway: GatewayClient, write: Write) -> None:
    batch = gateway.create_batch("flights", "2013-01")
    gateway.put_file(batch.id, files.inspect(write("empty.csv", b"")))
    assert api.contents[batch.id, "empty.csv"] == b""


@pytest.mark.parametrize("before", [b"", b"one\n"])
def test_file_written_to_after_hashing_is_not_sent(
    api: State, gateway: GatewayClient, write: Write, before: bytes
) -> None:
    path = write("flights.csv", before)
    file = files.inspect(path)
    path.write_bytes(b"another")
    batch = gateway.create_batch("flights", "2013-01")
    with pytest.raises(FileChangedError, match=r"flights\.csv"):
        gateway.put_file(batch.id, file)
    assert not api.contents


def test_file_appended_to_while_it_is_sent_is_not_stored(
    api: State, gateway: GatewayClient, write: Write
) -> None:
    path = write("flights.csv", bytes(3 * files.CHUNK_BYTES))
    file = files.inspect(path)
    batch = gateway.create_batch("flights", "2013-01")

    def append(sent_bytes: int) -> None:
        if sent_bytes == files.CHUNK_BYTES:
            with path.open("ab") as target:
                target.write(b"late")

    with pytest.raises(FileChangedError):
        gateway.put_file(batch.id, file, append)
    assert not api.contents


def test_every_page_of_batches_is_read(gateway: GatewayClient) -> None:
    made = [gateway.create_batch("flights", f"2013-{n:02d}").id for n in range(5)]
    gateway.create_batch("weather", "2013-01")
    assert [batch.id for batch in gateway.iter_batches("flights")] == made


@pytest.mark.parametrize(
    "url", ["http://gateway.example", "ftp://gateway.example", "gateway", "https://a:b@host", ""]
)
def test_unsafe_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        GatewayClient(url, USER, PASSWORD)


def test_unencrypted_address_is_taken_when_asked_for() -> None:
    GatewayClient("http://gateway.example", USER, PASSWORD, allow_http=True).transport.close()


def test_certificate_of_an_unknown_authority_is_refused_without_repeating(tmp_path: Path) -> None:
    with gateway_api.running(_tls(tmp_path)) as api:
        with GatewayClient(api.url, USER, PASSWORD) as stranger:
            started = time.monotonic()
            with pytest.raises(GatewayProblem) as caught:
                stranger.create_batch("flights", "2013-01")
        assert (caught.value.slug, caught.value.retryable) == (problems.UNREACHABLE, False)
        assert time.monotonic() - started < 5.0
        with GatewayClient(api.url, USER, PASSWORD, tmp_path / "cert.pem") as gateway:
            assert gateway.create_batch("flights", "2013-01").state == "open"


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30)
    told = problems.retry_after_seconds({"Retry-After": format_datetime(soon, usegmt=True)})
    assert told is not None
    assert 27 < told <= 30
    assert problems.retry_after_seconds({"Retry-After": "7"}) == 7
    assert problems.retry_after_seconds({"Retry-After": "soon"}) is None
    assert problems.retry_after_seconds({}) is None


def test_waits_grow_to_the_cap_and_never_undercut_what_was_asked() -> None:
    policy = RetryPolicy(base_seconds=1.0, cap_seconds=4.0)
    drawn = [policy.wait_seconds(9, 10.0) for _ in range(200)]
    assert 10.0 <= min(drawn) < max(drawn) <= 14.0


def _tls(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
