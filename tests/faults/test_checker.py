"""The checker finds nothing where all is well, and each kind of harm where it was done."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy import select, text

from deploy.local.postgres import Postgres
from gateway.batches import manifest
from gateway.batches.model import Batch, Manifest
from gateway.bootstrap import Services
from tests.batches import making
from tests.fakes.airflow_server import Dag
from tests.fakes.airflow_server import running as airflow_running
from tests.faults.checker import Case
from tests.faults.conftest import Check, checked, watching_token
from tests.faults.evidence import Disk, Ledger, Promises
from tests.faults.history import Client, History, facts_of
from tests.nursery import Nursery

CONTENT = b"id,note\n1,one\n"
OTHER = b"id,note\n2,two\n"


@dataclass
class Copy:
    """A world of its own to do harm to: a copy of a delivery that went well."""

    root: Path
    history: Path
    connection: Any
    sealed: str
    open: str
    upload: str

    @property
    def file(self) -> Path:
        return self.root / f"acme/flights/{self.sealed}/files/a.csv"

    def execute(self, sql: str, *values: str) -> None:
        self.connection.cursor().execute(sql, values)

    def say(self, what: str, **facts: Any) -> None:
        told = History(self.history)
        told.note(what, **facts)
        told.close()


def flip(copy: Copy) -> None:
    content = bytearray(copy.file.read_bytes())
    content[3] ^= 1
    copy.file.write_bytes(content)


def link(copy: Copy) -> None:
    elsewhere = copy.root.parent / "elsewhere"
    copy.file.rename(elsewhere)
    copy.file.symlink_to(elsewhere)


def set_aside(copy: Copy) -> None:
    aside = f"{copy.sealed}.{time.time_ns()}.a.csv"
    copy.file.rename(copy.root / ".quarantine" / aside)


def publish_in(copy: Copy, batch: str, name: str) -> None:
    copy.root.joinpath(f"acme/flights/{batch}/files/{name}").write_bytes(CONTENT)


def to_another(copy: Copy) -> None:
    (copy.root / "globex").mkdir()
    shutil.move(copy.root / "acme/flights", copy.root / "globex/flights")


def claim_more(copy: Copy) -> None:
    facts = facts_of(copy.open, "never.csv", CONTENT)
    copy.say("file", status=201, acknowledged=True, **facts)


def claim_other_bytes(copy: Copy) -> None:
    facts = facts_of(copy.open, "b.csv", b"what was really sent")
    copy.say("file", status=201, acknowledged=True, **facts)


def claim_seal(copy: Copy) -> None:
    copy.say("seal", status=202, acknowledged=True, batch=copy.open, job="job_unknown")


PENDING = (
    "INSERT INTO file (batch_id, name, collision_key, state, upload, reserved_bytes, created_by)"
    " VALUES (%s, 'p.csv', 'p.csv', 'pending', 'upl_gone', 0, 'x')"
)

# What is done, and the kinds of findings among those that it must lead to.
HARMS: dict[str, tuple[Callable[[Copy], object], set[str]]] = {
    "a byte is flipped": (flip, {"acknowledged-damaged", "published-other-bytes"}),
    "a file is cut": (lambda c: os.truncate(c.file, 3), {"acknowledged-damaged"}),
    "a file is lost": (lambda c: c.file.unlink(), {"acknowledged-lost", "row-without-file"}),
    "a file is a link": (link, {"published-no-file", "acknowledged-lost"}),
    "a file is set aside": (set_aside, {"acknowledged-set-aside", "acknowledged-lost"}),
    "bytes without a row": (lambda c: publish_in(c, c.open, "x.csv"), {"published-unknown"}),
    "bytes never sent": (lambda c: publish_in(c, c.open, "x.csv"), {"published-never-sent"}),
    "a stranger": (lambda c: (c.root / "notes.txt").write_text("?"), {"stranger"}),
    "a document too soon": (
        lambda c: (c.root / f"acme/flights/{c.open}/manifest.json").write_text("{}"),
        {"document-unsealed"},
    ),
    "a document changed": (
        lambda c: (c.root / f"acme/flights/{c.sealed}/manifest.json").write_text("{}"),
        {"document-changed"},
    ),
    "a document unfinished": (
        lambda c: (c.root / f"acme/flights/{c.sealed}/.manifest.json.1").write_text("{"),
        {"temporary-left"},
    ),
    "a part of nobody": (lambda c: (c.root / ".parts/upl_x").write_text("?"), {"part-of-nobody"}),
    "files given to another": (to_another, {"published-for-another"}),
    "a 201 for nothing": (claim_more, {"acknowledged-lost", "acknowledged-without-row"}),
    "a 201 for other bytes": (
        claim_other_bytes,
        {"acknowledged-damaged", "acknowledged-other-row"},
    ),
    "a 202 for nothing": (claim_seal, {"acknowledged-seal-lost", "acknowledged-job-lost"}),
    "a row changed": (
        lambda c: c.execute("UPDATE file SET sha256 = 'f00' WHERE batch_id = %s", c.sealed),
        {"acknowledged-other-row", "row-without-file", "file-without-record"},
    ),
    "a row lost": (
        lambda c: c.execute("DELETE FROM file WHERE batch_id = %s", c.open),
        {"acknowledged-without-row", "published-unknown", "record-without-file", "counter-wrong"},
    ),
    "a row pending for ever": (lambda c: c.execute(PENDING, c.open), {"pending-for-ever"}),
    "a counter off": (
        lambda c: c.execute("UPDATE batch SET reserved_bytes = reserved_bytes + 1"),
        {"counter-wrong"},
    ),
    "a batch given to another": (
        lambda c: c.execute("UPDATE batch SET client = 'globex', project = 'weather'"),
        {"batch-not-the-clients", "published-for-another"},
    ),
    "a batch canceled in silence": (
        lambda c: c.execute("UPDATE batch SET state = 'canceled' WHERE id = %s", c.open),
        {"published-in-ended-batch", "record-not-once"},
    ),
    "a seal unasked": (
        lambda c: c.execute("UPDATE batch SET state = 'sealed' WHERE id = %s", c.open),
        {"seal-not-once", "sealed-unasked", "record-not-once"},
    ),
    "a job lost": (
        lambda c: c.execute("DELETE FROM job"),
        {"seal-not-once", "job-not-one-message", "acknowledged-job-lost"},
    ),
    "a message lost": (
        lambda c: c.execute("DELETE FROM outbox_message"),
        {"job-not-one-message"},
    ),
    "a record changed": (
        lambda c: c.execute("UPDATE audit_event SET actor = 'nobody' WHERE number = 2"),
        {"record-changed"},
    ),
    "a record lost": (
        lambda c: c.execute("DELETE FROM audit_event WHERE action = 'file.received'"),
        {"record-missing", "file-without-record", "feed-unlike-records"},
    ),
    "records relinked": (
        lambda c: c.execute("UPDATE audit_event SET previous_hash = 'f00' WHERE number = 2"),
        {"record-not-linked"},
    ),
    "the chain cut short": (
        lambda c: c.execute(
            "DELETE FROM audit_event WHERE number = (SELECT max(number) FROM audit_event)"
        ),
        {"head-elsewhere"},
    ),
    "an offset taken back": (
        lambda c: c.execute("UPDATE upload SET offset_bytes = 1 WHERE state = 'receiving'"),
        {"acknowledged-offset-lost"},
    ),
    "a part cut": (lambda c: os.truncate(c.root / ".parts" / c.upload, 1), {"part-too-short"}),
    "a part lost": (lambda c: (c.root / ".parts" / c.upload).unlink(), {"pending-for-ever"}),
    "an upload without its row": (
        lambda c: c.execute("DELETE FROM file WHERE state = 'pending'"),
        {"upload-without-file", "part-of-nobody"},
    ),
    "a whole upload without its file": (
        lambda c: c.execute("UPDATE upload SET state = 'complete'"),
        {"upload-without-its-file"},
    ),
    "an event lost": (
        lambda c: c.execute("DELETE FROM event WHERE number = 2"),
        {"feed-with-gaps"},
    ),
}


@pytest.fixture
def delivery(acme: Client, services: Services) -> tuple[str, str, str]:
    """A sealed batch with its documents, and an open one with a file and half another."""
    sealed, still_open = acme.batch("sealed"), acme.batch("open")
    acme.deliver(sealed, "a.csv", CONTENT)
    acme.put(still_open, "b.csv", OTHER)
    acme.put(still_open, "gone.csv", OTHER)
    acme.delete(still_open, "gone.csv")
    with services.sessions.begin() as session:
        batch = session.get_one(Batch, sealed)
        found = session.scalars(select(Manifest)).one()
    services.zone.write_documents(making.path(batch), manifest.documents(found))
    place = acme.create_upload(still_open, "half.csv", CONTENT)
    acme.patch(place, 0, CONTENT[:5])
    return sealed, still_open, place.rsplit("/", 1)[1]


def test_a_delivery_that_went_well_has_no_findings(
    delivery: tuple[str, str, str], check: Check
) -> None:
    assert check() == []


@pytest.fixture
def copies(
    delivery: tuple[str, str, str],
    environment: dict[str, str],
    history: History,
    postgres_server: Postgres,
    tmp_path: Path,
) -> Iterator[Callable[[], Any]]:
    """Return a function that makes a copy, for as long as a block lasts."""
    name = environment["GATEWAY_DATABASE_URL"].rsplit("/", 1)[1]
    superuser = postgres_server.superuser_url.replace("+psycopg2", "")
    connection = psycopg2.connect(superuser.removesuffix("postgres") + name)

    @contextmanager
    def made() -> Iterator[Copy]:
        root = Path(shutil.copytree(environment["GATEWAY_LANDING_ROOT"], tmp_path / "copy/landing"))
        told = Path(shutil.copy(history.path, tmp_path / "copy/history"))
        # The audit trail's triggers refuse what is done here.
        connection.cursor().execute("SET LOCAL session_replication_role = replica")
        yield Copy(root, told, connection, *delivery)
        connection.rollback()
        shutil.rmtree(tmp_path / "copy")

    yield made
    connection.close()


def test_each_kind_of_harm_is_found_for_what_it_is(
    copies: Callable[[], Any], subtests: pytest.Subtests
) -> None:
    for name, (harm, kinds) in HARMS.items():
        with subtests.test(name), copies() as copy:
            harm(copy)
            case = Case(
                Promises.read(copy.history), Disk.read(copy.root), Ledger.read(copy.connection)
            )
            assert kinds <= {each.kind for each in case.findings()}


def test_the_program_prints_what_it_finds(
    nursery: Nursery,
    delivery: tuple[str, str, str],
    environment: dict[str, str],
    history: History,
) -> None:
    root, url = Path(environment["GATEWAY_LANDING_ROOT"]), environment["GATEWAY_DATABASE_URL"]
    (root / "notes.txt").write_text("?")
    finding = {"invariant": "I2", "kind": "stranger", "subject": "notes.txt", "detail": ""}
    assert checked(nursery, history.path, root, url) == [finding]


def test_an_export_of_the_audit_trail_is_compared_with_the_records(
    nursery: Nursery,
    delivery: tuple[str, str, str],
    environment: dict[str, str],
    history: History,
    tmp_path: Path,
) -> None:
    root, url = Path(environment["GATEWAY_LANDING_ROOT"]), environment["GATEWAY_DATABASE_URL"]
    exported = tmp_path / "audit.ndjson"
    export = nursery.run(["audit", "export"], environment)
    assert export.returncode == 0, export.stderr
    lines = export.stdout.splitlines(keepends=True)
    cut = {"export-broken", "export-unlike-record", "export-cut-short"}
    for given, kinds in ((lines, set()), (lines[:1] + lines[2:], cut)):
        exported.write_text("".join(given))
        found = checked(nursery, history.path, root, url, "--audit-export", str(exported))
        assert {each["kind"] for each in found} == kinds


def test_runs_in_airflow_are_compared_with_jobs(
    nursery: Nursery,
    delivery: tuple[str, str, str],
    environment: dict[str, str],
    history: History,
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_TOKEN", watching_token())
    root, url = Path(environment["GATEWAY_LANDING_ROOT"]), environment["GATEWAY_DATABASE_URL"]
    with airflow_running() as airflow:
        airflow.dags["acme__flights"] = Dag()

        def kinds() -> set[str]:
            found = checked(nursery, history.path, root, url, "--airflow", airflow.url)
            return {each["kind"] for each in found}

        assert kinds() == set()
        with services.engine.begin() as connection:
            connection.execute(text("UPDATE job SET dispatched_at = now()"))
        assert kinds() == {"run-missing"}
        airflow.runs["acme__flights", "gw.job_unknown"] = {"id": 1, "dag_run_id": "gw.job_unknown"}
        assert kinds() == {"run-missing", "run-not-once"}
