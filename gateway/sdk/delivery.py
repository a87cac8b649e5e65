"""A whole delivery: create or resume a batch, send its files, seal it, verify the receipt.

Every step can be repeated, so a delivery that was interrupted anywhere is finished by doing
it again: files the gateway already has are not sent twice, a sealed batch of the same files
is only verified.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.sdk import files, receipt, records, sending
from gateway.sdk.client import GatewayClient
from gateway.sdk.files import LocalFile
from gateway.sdk.journal import Journal
from gateway.sdk.problems import DeliveryError, GatewayProblem, ReceiptError
from gateway.sdk.receipt import Receipt
from gateway.sdk.records import Batch
from gateway.sdk.sending import Sender, Watcher

PARALLEL = 4


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be delivered.

    Parameters
    ----------
    replace
        Whether files of an interrupted delivery that are not, or no longer, the ones to send
        may be removed from the open batch.
    """

    project: str
    reference: str
    paths: Sequence[Path]
    mode: str = "load"
    period: Mapping[str, str] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Delivered:
    """A sealed delivery whose receipt names exactly the local files.

    Parameters
    ----------
    skipped
        Names of the files the gateway already had.
    """

    batch: str
    job: str
    files: tuple[LocalFile, ...]
    skipped: frozenset[str]
    receipt: Receipt


def deliver(
    gateway: GatewayClient,
    order: Order,
    watcher: Watcher,
    parallel: int = PARALLEL,
    journal: Journal | None = None,
) -> Delivered:
    """Deliver files and verify the receipt for them.

    Parameters
    ----------
    journal
        Remembers how far the delivery has come, for another process to go on; it is removed
        once the receipt is verified. By default nothing is kept on this machine.

    Raises
    ------
    UnusableFilesError
        The local files cannot be a delivery; nothing was sent.
    FileChangedError
        A local file was written to while it was sent.
    DeliveryError
        The reference already names another delivery.
    ReceiptError
        The gateway's receipt does not name exactly these files.
    GatewayProblem
        The gateway refused something, or was away for too long.
    """
    journal = journal or Journal()
    files.check(order.paths)
    batch, is_new = _find_or_create(gateway, order)
    watcher.found(batch, is_new=is_new)
    _check_same_terms(batch, order)
    if batch.state not in records.LIVE_BATCHES:
        raise DeliveryError(f"{order.reference} was {batch.id}, which is {batch.state}")
    finish = _send if batch.state == "open" else _confirm
    delivered = finish(gateway, batch, order, watcher, parallel, journal)
    journal.remove()
    return delivered


def _find_or_create(gateway: GatewayClient, order: Order) -> tuple[Batch, bool]:
    invocation = f"{order.project}\0{order.reference}\0{uuid.uuid4()}"
    try:
        created = gateway.create_batch(
            order.project,
            order.reference,
            mode=order.mode,
            period=order.period,
            metadata=order.metadata,
            idempotency_key=hashlib.sha256(invocation.encode()).hexdigest(),
        )
    except GatewayProblem as problem:
        if problem.slug != "batch-exists":
            raise
        return _existing(gateway, order, problem), False
    return created, True


def _existing(gateway: GatewayClient, order: Order, problem: GatewayProblem) -> Batch:
    """Return the batch that has the reference; only the id is taken from ``Location``."""
    batch_id = problem.location.rstrip("/").rpartition("/")[2]
    if batch_id:
        return gateway.get_batch(batch_id)
    found = gateway.iter_batches(order.project, order.reference)
    live = [batch.id for batch in found if batch.state in records.LIVE_BATCHES]
    if not live:
        raise problem
    return gateway.get_batch(max(live))


def _check_same_terms(batch: Batch, order: Order) -> None:
    """Refuse to finish a delivery that was begun on other terms: the manifest would show those."""
    terms: list[tuple[str, object, object]] = [
        ("project", batch.project, order.project),
        ("reference", batch.reference, order.reference),
        ("mode", batch.mode or order.mode, order.mode),
    ]
    if order.period:
        terms.append(("period", dict(batch.period or {}), dict(order.period)))
    if order.metadata:
        terms.append(("metadata", dict(batch.metadata), dict(order.metadata)))
    for name, theirs, ours in terms:
        if theirs != ours:
            raise DeliveryError(
                f"{order.reference} is {batch.id}, begun with {name} {theirs}, not {ours}; "
                "use another reference"
            )


def _confirm(
    gateway: GatewayClient,
    batch: Batch,
    order: Order,
    watcher: Watcher,
    parallel: int,
    journal: Journal,
) -> Delivered:
    """Recognize a delivery that was sealed before as this one."""

    def look(path: Path) -> LocalFile:
        return journal.inspect(path, gateway.transport.check)

    local = sending.each(gateway, look, order.paths, parallel)
    proof = gateway.verified_receipt(batch.id)
    different = receipt.differences(proof, local)
    if different:
        raise DeliveryError(
            f"{order.reference} was delivered before as {batch.id}, with other files; "
            "use another reference:\n" + "\n".join(different)
        )
    for file in local:
        watcher.stored(file, skipped=True)
    job = max(batch.jobs, default="") or max(job.id for job in gateway.iter_jobs(batch.id))
    return Delivered(batch.id, job, tuple(local), frozenset(f.name for f in local), proof)


def _send(
    gateway: GatewayClient,
    batch: Batch,
    order: Order,
    watcher: Watcher,
    parallel: int,
    journal: Journal,
) -> Delivered:
    """Send what the open batch lacks, seal it and verify the receipt."""
    _clear_surplus(gateway, batch, order)
    sender = Sender(gateway, batch, watcher, journal, may_replace=order.replace)
    local = sender.send_all(order.paths, parallel)
    sealed = gateway.seal(batch.id, local)
    proof = gateway.verified_receipt(batch.id)
    different = receipt.differences(proof, local)
    if (proof.project, proof.reference) != (order.project, order.reference):
        different.insert(0, f"it is of {proof.project} {proof.reference}")
    if different:
        raise ReceiptError(f"The receipt of {batch.id} is wrong:\n" + "\n".join(different))
    return Delivered(batch.id, sealed.job, tuple(local), frozenset(sender.skipped), proof)


def _clear_surplus(gateway: GatewayClient, batch: Batch, order: Order) -> None:
    wanted = {files.name_of(path) for path in order.paths}
    surplus = sorted(file.name for file in batch.files if file.name not in wanted)
    if surplus and not order.replace:
        raise DeliveryError(
            f"{batch.id} is open and holds files you did not name: {', '.join(surplus)}; "
            "name them too, or remove them with --replace"
        )
    for name in surplus:
        gateway.delete_file(batch.id, name)
