from __future__ import annotations

import base64
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from joserfc import jws
from joserfc.jwk import KeySet
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from gateway.audit import trail
from gateway.batches import ledger, manifest, seal
from gateway.batches.ledger import BatchClosedError
from gateway.batches.model import Batch, File, Manifest
from gateway.batches.seal import BatchIncompleteError
from gateway.bootstrap import Services
from gateway.clients.registry import Client, ClientSuspendedError
from gateway.errors import NotFoundError
from gateway.jobs.model import Job
from gateway.jobs.states import JobActiveError
from gateway.landing.names import FileName
from gateway.outbox.model import Message
from tests import factories
from tests.batches import making
from tests.batches.making import ACME, GLOBEX, Sealer, landed, opened

GOLDEN = Path(__file__).parents[2] / "airflow" / "contract" / "manifest.json"


@pytest.fixture(autouse=True)
def two_clients(services: Services) -> None:
    factories.onboard_two(services.sessions)


@pytest.fixture
def sealed(services: Services) -> Sealer:
    return Sealer(services)


@pytest.fixture
def batch(services: Services) -> Batch:
    return opened(services.sessions)


def count(session: Session, table: type[Any]) -> int:
    return session.scalar(select(func.count()).select_from(table)) or 0


def made(session: Session) -> list[int]:
    """Count manifests, jobs and the messages that start them."""
    triggers = select(func.count()).where(Message.topic == "job.trigger")
    return [count(session, Manifest), count(session, Job), session.scalar(triggers) or 0]


def faults(refused: BatchIncompleteError) -> dict[str, str]:
    return {each.pointer: each.code for each in refused.errors}


def kept(services: Services, batch: Batch) -> Manifest:
    with services.sessions.begin() as session:
        return manifest.of(session, "acme", batch.id)


def test_a_seal_makes_manifest_receipt_job_and_message_at_once(
    services: Services, batch: Batch, sealed: Sealer
) -> None:
    landed(services, batch)
    closed, job = sealed(batch)
    assert (closed.state, job.state, job.cause, job.attempt) == ("sealed", "queued", "seal", 1)
    with services.sessions.begin() as session:
        assert made(session) == [1, 1, 1]
    with services.sessions.begin() as session:
        actions = [each.action for each in trail.search(session, client="acme")]
    assert {"batch.sealed", "job.queued"} <= set(actions)


def test_sealing_again_changes_nothing_whatever_is_listed(
    services: Services, batch: Batch, sealed: Sealer
) -> None:
    landed(services, batch)
    _, first = sealed(batch)
    for listed in (None, [], [{"name": "another"}]):
        closed, job = sealed(batch, listed)
        assert (closed.id, job.id) == (batch.id, first.id)
    with services.sessions.begin() as session:
        assert made(session) == [1, 1, 1]


def test_many_seals_at_once_make_one_job(services: Services, batch: Batch, sealed: Sealer) -> None:
    landed(services, batch)
    barrier = threading.Barrier(6)
    jobs: list[str] = []

    def one() -> None:
        barrier.wait()
        jobs.append(sealed(batch)[1].id)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(jobs) == 6
    assert len(set(jobs)) == 1


def test_the_manifest_is_canonical_and_has_the_agreed_keys(
    services: Services, batch: Batch, sealed: Sealer
) -> None:
    names = ["b.csv", "a.csv", "Ä.csv", "B.csv"]
    digests = {name: landed(services, batch, name, name.encode()) for name in names}
    closed, _ = sealed(batch)
    document = kept(services, batch).document
    found = json.loads(document)
    assert document == rfc8785.dumps(found)
    assert found.keys() == json.loads(GOLDEN.read_text()).keys()
    assert [each["name"] for each in found["files"]] == sorted(names)
    assert {each["name"]: each["sha256"] for each in found["files"]} == digests
    assert closed.sealed_at is not None
    assert found["sealed_at"] == closed.sealed_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_the_manifest_says_what_the_batch_was_opened_with(
    services: Services, sealed: Sealer
) -> None:
    older = opened(services.sessions, "old")
    fields = {
        "mode": "validate",
        "period": {"start": "2013-01-01", "end": "2013-12-31"},
        "metadata": {"source": "crew", "rows": 3, "share": 0.5, "deep": {"x": [1, None, True]}},
        "supersedes": older.id,
    }
    batch = opened(services.sessions, "new", **fields)
    landed(services, batch)
    sealed(batch)
    found = json.loads(kept(services, batch).document)
    assert {key: found[key] for key in fields} == fields


def test_the_receipt_signs_exactly_the_manifest(
    services: Services, batch: Batch, sealed: Sealer
) -> None:
    landed(services, batch)
    sealed(batch)
    proof = kept(services, batch)
    keys = KeySet.import_key_set(services.keys.jwks())  # type: ignore[arg-type]
    registry = jws.JWSRegistry(algorithms=["ES256"])
    verified = jws.deserialize_compact(proof.receipt, keys, registry=registry)
    assert verified.payload == proof.document
    header = json.loads(base64.urlsafe_b64decode(proof.receipt.split(".")[0] + "=="))
    assert header.keys() == {"alg", "kid", "typ"}
    assert (header["alg"], header["typ"]) == ("ES256", "receipt+jws")


def test_the_documents_are_laid_beside_the_files_and_again_is_harmless(
    services: Services, batch: Batch, sealed: Sealer, config: Any
) -> None:
    landed(services, batch)
    sealed(batch)
    proof = kept(services, batch)
    for _ in range(2):
        services.zone.write_documents(making.path(batch), manifest.documents(proof))
    place = config.landing.root / "acme" / "flights" / batch.id
    assert (place / "manifest.json").read_bytes() == proof.document
    assert (place / "receipt.jws").read_text() == proof.receipt


def test_an_empty_batch_is_incomplete(batch: Batch, sealed: Sealer) -> None:
    for listed in (None, []):
        with pytest.raises(BatchIncompleteError) as refused:
            sealed(batch, listed)
        assert faults(refused.value) == {"files": "empty"}


def test_every_fault_of_every_file_is_named(
    services: Services, batch: Batch, sealed: Sealer
) -> None:
    digest = landed(services, batch, "good.csv")
    landed(services, batch, "size.csv")
    landed(services, batch, "digest.csv")
    landed(services, batch, "surplus.csv")
    making.row(services.sessions, batch, "pending.csv")
    listed = [
        {"name": "good.csv", "size_bytes": 5, "sha256": digest},
        {"name": "size.csv", "size_bytes": 4},
        {"name": "digest.csv", "sha256": "0" * 64},
        {"name": "missing.csv"},
        {"name": "pending.csv"},
    ]
    with pytest.raises(BatchIncompleteError) as refused:
        sealed(batch, listed)
    assert faults(refused.value) == {
        "files/size.csv": "different",
        "files/digest.csv": "different",
        "files/missing.csv": "missing",
        "files/pending.csv": "unfinished",
        "files/surplus.csv": "surplus",
    }
    with services.sessions.begin() as session:
        assert made(session) == [0, 0, 0]
        assert session.get_one(Batch, batch.id).state == "open"


def test_a_file_cut_or_lost_since_it_was_received_is_found(
    services: Services, batch: Batch, sealed: Sealer, config: Any
) -> None:
    for name in ("cut.csv", "lost.csv", "whole.csv"):
        landed(services, batch, name)
    files = config.landing.root / "acme" / "flights" / batch.id / "files"
    (files / "cut.csv").write_bytes(b"id")
    (files / "lost.csv").unlink()
    with pytest.raises(BatchIncompleteError) as refused:
        sealed(batch)
    assert faults(refused.value) == {"files/cut.csv": "damaged", "files/lost.csv": "damaged"}


@pytest.mark.parametrize("state", ["canceled", "expired", "purged"])
def test_a_batch_that_is_over_cannot_be_sealed(
    services: Services, batch: Batch, sealed: Sealer, state: str
) -> None:
    landed(services, batch)
    with services.sessions.begin() as session:
        session.execute(update(Batch).where(Batch.id == batch.id).values(state=state))
    with pytest.raises(BatchClosedError):
        sealed(batch)


def test_nobody_seals_or_replays_another_clients_batch(
    services: Services, batch: Batch, sealed: Sealer
) -> None:
    landed(services, batch)
    with pytest.raises(NotFoundError):
        sealed(batch, who=GLOBEX)
    sealed(batch)
    with services.sessions.begin() as session, pytest.raises(NotFoundError):
        seal.replay(session, GLOBEX, batch.id, "why not")
    with services.sessions.begin() as session, pytest.raises(NotFoundError):
        manifest.of(session, "globex", batch.id)


def test_a_suspended_client_seals_nothing(services: Services, batch: Batch, sealed: Sealer) -> None:
    landed(services, batch)
    with services.sessions.begin() as session:
        session.get_one(Client, "acme").state = "suspended"
    with pytest.raises(ClientSuspendedError):
        sealed(batch)


def test_a_replay_waits_for_the_end_of_the_job_before(
    services: Services, batch: Batch, sealed: Sealer
) -> None:
    landed(services, batch)
    _, first = sealed(batch)
    with services.sessions.begin() as session, pytest.raises(JobActiveError):
        seal.replay(session, ACME, batch.id, "again")
    with services.sessions.begin() as session:
        session.get_one(Job, first.id).state = "failed"
    with services.sessions.begin() as session:
        job = seal.replay(session, ACME, batch.id, "again")
        assert (job.attempt, job.cause, job.reason) == (2, "replay", "again")


def test_of_many_replays_at_once_one_is_queued(
    services: Services, batch: Batch, sealed: Sealer
) -> None:
    landed(services, batch)
    _, first = sealed(batch)
    with services.sessions.begin() as session:
        session.get_one(Job, first.id).state = "failed"
    barrier = threading.Barrier(5)
    outcomes: list[str] = []

    def one() -> None:
        barrier.wait()
        try:
            with services.sessions.begin() as session:
                outcomes.append(str(seal.replay(session, ACME, batch.id, "again").attempt))
        except JobActiveError as error:
            outcomes.append(error.slug)

    threads = [threading.Thread(target=one) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["2", *["job-active"] * 4]


def test_an_open_batch_has_no_replay_and_no_manifest(services: Services, batch: Batch) -> None:
    with services.sessions.begin() as session, pytest.raises(BatchIncompleteError):
        seal.replay(session, ACME, batch.id, "again")
    with services.sessions.begin() as session, pytest.raises(NotFoundError):
        manifest.of(session, "acme", batch.id)


def test_many_files_are_sealed_in_their_order(
    services: Services, batch: Batch, sealed: Sealer
) -> None:
    for number in range(50):
        landed(services, batch, FileName.parse(f"part-{number}.csv").text, b"%d" % number)
    sealed(batch)
    with services.sessions.begin() as session:
        rows = ledger.files_of(session, batch.id)
        assert len(rows) == count(session, File) == 50
    listed = json.loads(kept(services, batch).document)["files"]
    assert [each["name"] for each in listed] == sorted(each.name for each in rows)
