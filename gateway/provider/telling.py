"""What a task's log and its XComs say of a delivery: readable, and bounded whatever was sent."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gateway.sdk.display import human_size, printable
from gateway.sdk.files import LocalFile
from gateway.sdk.receipt import Receipt
from gateway.sdk.records import Batch, Job, Reject

# Of many small files not each has a line; of a large one there is word now and then.
LINES, EVERY = 20, 500
WORD_SECONDS = 10.0
VALUE_LENGTH = 200
# A receipt of some hundred files; a larger one stays at the gateway.
RECEIPT_BYTES = 64 * 1024

_HEADS = ("file", "line", "column", "rule", "value")


class LogWatcher:
    """Says in a task's log how a delivery goes; safe to call from many threads.

    Attributes
    ----------
    was_sealed
        Whether the batch was sealed before this attempt.
    """

    def __init__(self, log: logging.Logger) -> None:
        self.was_sealed = False
        self._log = log
        self._lock = threading.Lock()
        self._stored = 0
        self._said_at = time.monotonic()

    def found(self, batch: Batch, *, is_new: bool) -> None:
        """Tell which batch it is, and whether it was there before."""
        self.was_sealed = batch.state == "sealed"
        known = "new" if is_new else f"known before, {batch.state}"
        words = (printable(batch.project), printable(batch.reference), batch.id, known)
        self._log.info("%s %s is %s (%s)", *words)

    def sent(self, path: Path, sent_bytes: int) -> None:
        """Tell how far a file has come, now and then."""
        with self._lock:
            if time.monotonic() - self._said_at < WORD_SECONDS:
                return
            self._said_at = time.monotonic()
        self._log.info("sending: %s, %s so far", printable(path.name), human_size(sent_bytes))

    def stored(self, file: LocalFile, *, skipped: bool) -> None:
        """Tell that the gateway has a file: of each of some, of each five-hundredth of many."""
        with self._lock:
            self._stored += 1
            count = self._stored
        verb = "already there" if skipped else "sent"
        if count <= LINES:
            self._log.info("%s: %s (%s)", verb, printable(file.name), human_size(file.size_bytes))
        elif count % EVERY == 0:
            self._log.info("%d files are there", count)


def reject_lines(shown: Sequence[Reject], total: int) -> Iterator[str]:
    """Yield the rejected rows as a table, below a line that says how many there are."""
    what = "1 row was rejected" if total == 1 else f"{total} rows were rejected"
    if not shown:
        yield what
        return
    yield f"{what}:" if total == len(shown) else f"{what}; the first {len(shown)}:"
    rows = [_HEADS, *(_cells(each) for each in shown)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(_HEADS))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  " + "  ".join(cells).rstrip()


def rejects_value(shown: Sequence[Reject], total: int) -> dict[str, Any]:
    """Return the rejected rows for an XCom: all counted, the first named."""
    return {"total": total, "shown": [asdict(_short(each)) for each in shown]}


def receipt_value(proof: Receipt, compact: str) -> dict[str, Any]:
    """Return what proves the delivery; the signed text itself only where it is not too long."""
    return {
        "batch": proof.batch,
        "sealed_at": proof.sealed_at,
        "kid": proof.kid,
        "files": len(proof.files),
        "manifest_sha256": hashlib.sha256(proof.payload).hexdigest(),
        "jws": compact if len(compact) <= RECEIPT_BYTES else None,
    }


def outcome_value(job: Job) -> dict[str, Any]:
    """Return what became of a delivery, or how it stands."""
    return {
        "batch_id": job.batch,
        "job_id": job.id,
        "state": job.state,
        "rows": asdict(job.rows),
    }


def _short(reject: Reject) -> Reject:
    value = reject.value
    return (
        reject if len(value) <= VALUE_LENGTH else replace(reject, value=value[:VALUE_LENGTH] + "…")
    )


def _cells(reject: Reject) -> tuple[str, ...]:
    short = _short(reject)
    line = "" if short.line is None else str(short.line)
    words = (short.file, line, short.column, short.rule)
    # A name may hold a line's end; a table's row must not.
    return (*(printable(word).replace("\n", "?") for word in words), repr(short.value))
