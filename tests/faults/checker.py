"""Compares what a client was told with the disk, the database, the audit trail and Airflow.

An independent program: it imports nothing of the gateway.

    python -m tests.faults.checker --history FILE --landing DIR --database URL
        [--audit-export FILE] [--airflow URL]

Prints a line of JSON for each promise that is broken; exit code 1 when there is any. Run it when
things are at rest: the client has tried again what failed, and abandoned uploads were swept. With
``--airflow``, the variable ``AIRFLOW_TOKEN`` is sent as the bearer.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.faults import chain
from tests.faults.evidence import Content, Disk, Ledger, Promises, Row

LIVE = {"open", "sealed"}
ACTIVE = {"receiving", "verifying"}
STOOD = {"complete", "error"}
DOCUMENTS = {"manifest.json", "receipt.jws"}


@dataclass(frozen=True)
class Finding:
    """A broken promise: which of I1 to I12, in which way, of what."""

    invariant: str
    kind: str
    subject: str
    detail: str = ""


def told(compact: bytes) -> dict[str, Any]:
    """Return what a signed document says."""
    payload = compact.split(b".")[1]
    found: dict[str, Any] = json.loads(
        base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4))
    )
    return found


@dataclass
class Case:
    """All the evidence."""

    promises: Promises
    disk: Disk
    ledger: Ledger

    def __post_init__(self) -> None:
        self.batches: dict[str, Row] = {row["id"]: row for row in self.ledger.of("batch")}
        self.files = {(row["batch_id"], row["name"]): row for row in self.ledger.of("file")}
        self.published = {(batch, name): found for (*_, batch, name), found in self._published()}

    def _published(self) -> Iterable[tuple[tuple[str, str, str, str], Content | None]]:
        return self.disk.published.items()

    def findings(self) -> Iterator[Finding]:
        """Go through all promises."""
        yield from self.acknowledged()
        yield from self.names()
        yield from self.rows()
        yield from self.counters()
        yield from self.leftovers()
        yield from self.offsets()
        yield from self.seals()
        yield from self.records()
        yield from self.feed()
        for kind, detail in chain.broken(
            self.ledger.of("audit_event"), self.ledger.of("audit_head")
        ):
            yield Finding("I5", kind, "audit", detail)

    def acknowledged(self) -> Iterator[Finding]:
        """I1: every acknowledged byte is there, and has the digest of what was sent."""
        for (batch, name), told in self.promises.stored.items():
            subject, row = f"{batch}/{name}", self.files.get((batch, name))
            if row is None or row["state"] != "complete":
                yield Finding("I1", "acknowledged-without-row", subject, str(row and row["state"]))
            elif (row["size_bytes"], row["sha256"]) != (told["size_bytes"], told["sha256"]):
                yield Finding("I1", "acknowledged-other-row", subject, row["sha256"])
            found = self.published.get((batch, name))
            if found is None:
                yield Finding("I1", "acknowledged-lost", subject)
            elif found != Content(told["size_bytes"], told["sha256"]):
                yield Finding("I1", "acknowledged-damaged", subject, found.sha256)
        for batch, told in self.promises.batches.items():
            row = self.batches.get(batch)
            if row is None or row["client"] != told["client"] or row["project"] != told["project"]:
                yield Finding("I4", "batch-not-the-clients", batch)

    def names(self) -> Iterator[Finding]:
        """I2: what has a published name is whole, regular, known, and in its owner's place."""
        for (client, project, batch, name), found in self.disk.published.items():
            subject = f"{client}/{project}/{batch}/{name}"
            row, owner = self.files.get((batch, name)), self.batches.get(batch)
            if found is None:
                yield Finding("I2", "published-no-file", subject)
            if owner is None or (owner["client"], owner["project"]) != (client, project):
                yield Finding("I4", "published-for-another", subject)
            elif owner["state"] not in LIVE:
                yield Finding("I2", "published-in-ended-batch", subject, owner["state"])
            if row is None or row["state"] != "complete":
                yield Finding("I2", "published-unknown", subject, str(row and row["state"]))
            elif found is not None and found.sha256 != row["sha256"]:
                yield Finding("I2", "published-other-bytes", subject, found.sha256)
            if found is not None and found.sha256 not in self._sent(batch, name, found):
                yield Finding("I2", "published-never-sent", subject, found.sha256)
        for (batch, name), content in self.disk.documents.items():
            yield from self._document(batch, name, content)
        for stranger in self.disk.strangers:
            yield Finding("I2", "stranger", stranger)

    def _sent(self, batch: str, name: str, found: Content) -> set[str]:
        # Of a batch that is not in the history nothing is known.
        is_known = batch in self.promises.batches
        return self.promises.tried.get((batch, name), set()) if is_known else {found.sha256}

    def _document(self, batch: str, name: str, content: bytes) -> Iterator[Finding]:
        manifests = {row["batch_id"]: row for row in self.ledger.of("manifest")}
        row = manifests.get(batch)
        if name.startswith("."):
            yield Finding("I9", "temporary-left", f"{batch}/{name}")
        elif row is not None and name.removesuffix(".jws") in self._jobs_of(batch):
            if told(content)["job"] != name.removesuffix(".jws"):
                yield Finding("I2", "order-of-another-job", f"{batch}/{name}")
        elif row is None or name not in DOCUMENTS:
            yield Finding("I2", "document-unsealed", f"{batch}/{name}")
        elif content not in {bytes(row["document"]), row["receipt"].encode()}:
            yield Finding("I2", "document-changed", f"{batch}/{name}")

    def _jobs_of(self, batch: str) -> set[str]:
        return {row["id"] for row in self.ledger.of("job") if row["batch_id"] == batch}

    def rows(self) -> Iterator[Finding]:
        """Every complete row has its file, whoever sent it."""
        for (batch, name), row in self.files.items():
            if row["state"] == "complete" and self.batches[batch]["state"] in LIVE:
                found = self.published.get((batch, name))
                if found != Content(row["size_bytes"], row["sha256"]):
                    yield Finding("I1", "row-without-file", f"{batch}/{name}", str(found))

    def counters(self) -> Iterator[Finding]:
        """I6: counters are the sums of rows, and rows are the sizes of files."""
        for batch, row in self.batches.items():
            mine = [each for each in self.files.values() if each["batch_id"] == batch]
            sums = (sum(each["reserved_bytes"] for each in mine), len(mine))
            if (row["reserved_bytes"], row["file_count"]) != sums:
                held = f"{row['reserved_bytes']} bytes, {row['file_count']} files; in fact {sums}"
                yield Finding("I6", "counter-wrong", batch, held)
            for each in mine:
                if each["state"] == "complete" and each["reserved_bytes"] != each["size_bytes"]:
                    yield Finding("I6", "reserved-not-size", f"{batch}/{each['name']}")

    def leftovers(self) -> Iterator[Finding]:
        """I9, I10: no part without its upload, no upload without an end, nothing set aside wrongly."""
        pending = {
            row["upload"]: key for key, row in self.files.items() if row["state"] == "pending"
        }
        resumable = {row["id"]: row for row in self.ledger.of("upload") if row["state"] in ACTIVE}
        parts = {resumable[each]["part"] if each in resumable else each for each in pending}
        compared = {row["part"] for row in resumable.values() if row["is_comparison"]}
        for part in self.disk.parts.keys() - parts - compared:
            yield Finding("I9", "part-of-nobody", part)
        for part in parts - self.disk.parts.keys():
            yield Finding("I10", "pending-for-ever", part)
        for upload, row in resumable.items():
            if upload not in pending and not row["is_comparison"]:
                yield Finding("I10", "upload-without-file", upload)
        for aside, content in self.disk.quarantine.items():
            batch, nanoseconds, name = aside.split(".", 2)
            told = self.promises.stored.get((batch, name))
            if told is None or content is None or content.sha256 != told["sha256"]:
                continue
            if int(nanoseconds) / 1e9 > told["at"]:
                yield Finding("I1", "acknowledged-set-aside", aside)

    def offsets(self) -> Iterator[Finding]:
        """I1: what a resumable upload was said to hold it holds; whole, it is a file."""
        for row in self.ledger.of("upload"):
            upload, told = row["id"], self.promises.offsets.get(row["id"], 0)
            if row["state"] in ACTIVE:
                if row["offset_bytes"] < told:
                    yield Finding("I1", "acknowledged-offset-lost", upload, str(told))
                if self.disk.parts.get(row["part"], 0) < row["offset_bytes"]:
                    yield Finding("I1", "part-too-short", upload, str(row["offset_bytes"]))
            file = self.files.get((row["batch_id"], row["name"]), {})
            if row["state"] == "complete" and file.get("state") != "complete":
                yield Finding("I1", "upload-without-its-file", upload)

    def seals(self) -> Iterator[Finding]:
        """I3: a sealed batch has one manifest, one job, one message; an unsealed one none."""
        jobs = {row["id"]: row for row in self.ledger.of("job")}
        firsts = Counter(row["batch_id"] for row in jobs.values() if row["cause"] == "seal")
        manifests = Counter(row["batch_id"] for row in self.ledger.of("manifest"))
        messages = Counter(
            row["key"] for row in self.ledger.of("outbox_message") if row["topic"] == "job.trigger"
        )
        for batch, row in self.batches.items():
            wanted = 1 if row["state"] in {"sealed", "purged"} else 0
            if (firsts[batch], manifests[batch]) != (wanted, wanted):
                detail = f"{row['state']}: {firsts[batch]} jobs, {manifests[batch]} manifests"
                yield Finding("I3", "seal-not-once", batch, detail)
        for job in jobs.keys() | messages.keys():
            if job not in jobs or messages[job] != 1:
                yield Finding("I3", "job-not-one-message", job, f"{messages[job]} messages")
        for batch, job in self.promises.sealed.items():
            if self.batches.get(batch, {}).get("state") not in {"sealed", "purged"}:
                yield Finding("I1", "acknowledged-seal-lost", batch)
            if jobs.get(job, {}).get("batch_id") != batch:
                yield Finding("I3", "acknowledged-job-lost", job)
        for row in self.batches.values():
            is_known = row["id"] in self.promises.batches
            if row["state"] == "sealed" and is_known and row["id"] not in self.promises.seals_tried:
                yield Finding("I3", "sealed-unasked", row["id"])

    def records(self) -> Iterator[Finding]:
        """I5: every change has its record, and the other way round."""
        received = [
            (row["details"]["batch"], row["details"]["name"], row["details"]["sha256"])
            for row in self.ledger.audited("file.received")
        ]
        complete = {
            (*key, row["sha256"]) for key, row in self.files.items() if row["state"] == "complete"
        }
        for each in complete - set(received):
            yield Finding("I5", "file-without-record", "/".join(each[:2]))
        taken_back = Counter(
            (row["details"]["batch"], row["details"]["name"])
            for row in self.ledger.audited("file.deleted")
            if row["details"]["was"] in STOOD
        )
        times = Counter((batch, name) for batch, name, _ in received)
        for key, count in times.items():
            is_live = self.batches.get(key[0], {}).get("state") in LIVE
            stands = 1 if self.files.get(key, {}).get("state") in STOOD else 0
            if is_live and count != taken_back[key] + stands:
                yield Finding("I5", "record-without-file", "/".join(key), f"{count} records")
        yield from self._once("batch.sealed", {"sealed", "purged"})
        yield from self._once("batch.canceled", {"canceled"})
        yield from self._once("batch.expired", {"expired"})
        yield from self._once("batch.created", {"open", "sealed", "canceled", "expired", "purged"})

    def _once(self, action: str, states: set[str]) -> Iterator[Finding]:
        times = Counter(row["subject"] for row in self.ledger.audited(action))
        for batch in self.batches.keys() | times.keys():
            row = self.batches.get(batch)
            if times[batch] != (1 if row is not None and row["state"] in states else 0):
                yield Finding("I5", "record-not-once", batch, f"{times[batch]} {action}")

    def feed(self) -> Iterator[Finding]:
        """I12: a client's feed has every number once, up to its head."""
        heads = {row["client"]: row["last_number"] for row in self.ledger.of("feed_head")}
        for client, last in heads.items():
            rows = [row for row in self.ledger.of("event") if row["client"] == client]
            numbers = sorted(row["number"] for row in rows)
            if numbers != list(range(1, last + 1)):
                yield Finding("I12", "feed-with-gaps", client, f"{len(numbers)} of {last}")
        told = Counter(row["type"] for row in self.ledger.of("event"))
        for action in ("file.received", "batch.sealed"):
            if told[action] != len(self.ledger.audited(action)):
                yield Finding("I5", "feed-unlike-records", action, f"{told[action]} events")

    def runs(self, airflow: str) -> Iterator[Finding]:
        """I3: every dispatched job has its one run; no run is of a job that is not there."""
        jobs = {f"gw.{row['id']}": row for row in self.ledger.of("job")}
        found = Counter(run["dag_run_id"] for run in _runs(airflow))
        for run, count in found.items():
            if count != 1 or run not in jobs:
                yield Finding("I3", "run-not-once", run, f"{count} runs")
        for run, job in jobs.items():
            if job["dispatched_at"] is not None and run not in found:
                yield Finding("I3", "run-missing", run)


def _runs(airflow: str) -> Iterator[dict[str, Any]]:
    cursor = ""
    while cursor is not None:
        address = f"{airflow}/api/v2/dags/~/dagRuns?limit=100&cursor={quote(cursor)}"
        request = urllib.request.Request(address)
        request.add_header("Authorization", f"Bearer {os.environ.get('AIRFLOW_TOKEN', '')}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            page = json.load(answer)
        yield from (run for run in page["dag_runs"] if run["dag_run_id"].startswith("gw."))
        cursor = page["next_cursor"]


def main(arguments: list[str] | None = None) -> int:
    """Run."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.checker")
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--landing", type=Path, required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--audit-export", type=Path)
    parser.add_argument("--airflow")
    given = parser.parse_args(arguments)
    case = Case(Promises.read(given.history), Disk.read(given.landing), Ledger.at(given.database))
    findings = list(case.findings())
    if given.audit_export is not None:
        lines = given.audit_export.read_text().splitlines()
        events = case.ledger.of("audit_event")
        findings += [
            Finding("I5", kind, "export", detail)
            for kind, detail in chain.unlike_export(lines, events)
        ]
    if given.airflow is not None:
        findings += case.runs(given.airflow)
    for each in findings:
        sys.stdout.write(json.dumps(vars(each)) + "\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
