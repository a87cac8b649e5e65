"""The first step: prove that what landed is what was sealed, unpack it, and divide the work."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from pipeline import manifest as manifests
from pipeline.budget import Budget, Caps
from pipeline.contract import ContractError, read_contract
from pipeline.division import Divider
from pipeline.errors import DeliveryError
from pipeline.limits import Limits
from pipeline.rejects import Reject, printable, shorten
from pipeline.staging import Chunk, Plan, fresh_dir, unpacked_dir
from pipeline.survey import Survey
from pipeline.validate import Judge

if TYPE_CHECKING:
    from pipeline.contract import Contract
    from pipeline.delivery import Delivery
    from pipeline.manifest import Manifest

# Airflow keeps 250 characters of a mapped task's name.
MAX_LABEL_CHARS = 200


def make_plan(
    delivery: Delivery,
    contract_document: dict[str, Any],
    on_reject: dict[str, Any],
    jwks: dict[str, Any],
    caps: Caps | None = None,
    limits: Limits | None = None,
) -> Plan:
    """Plan a job anew; whatever an earlier try left behind is removed.

    Raises
    ------
    DeliveryError
        If the delivery is not what was sealed, cannot be unpacked safely, or holds files that fit
        no table and the project does not let whole files be rejected.
    """
    contract = read_project_contract(contract_document)
    for table in contract.tables:
        Judge(table)  # a rule that cannot be evaluated is told before anything is unpacked
    fresh_dir(delivery.staged_dir)
    manifest = manifests.read_manifest(delivery, jwks)
    limits, budget = limits or Limits(), Budget(caps or Caps())
    try:
        chunks = _divide(delivery, manifest, contract, limits, budget)
        _refuse_misfits(chunks, manifest, on_reject)
    except DeliveryError:
        shutil.rmtree(unpacked_dir(delivery), ignore_errors=True)
        raise
    groups = grouped(chunks, limits)
    plan = Plan(contract_document, on_reject, manifest.mode, manifest.supersedes, groups)
    plan.write(delivery)
    return plan


def _divide(
    delivery: Delivery, manifest: Manifest, contract: Contract, limits: Limits, budget: Budget
) -> list[Chunk]:
    if not manifest.files:
        raise DeliveryError("empty-batch", "the batch holds no files")
    survey = Survey(delivery, budget, limits)
    found = survey.take_all(manifest.files)
    if not found:
        raise DeliveryError("empty-batch", "the archives of the batch hold no files")
    divider = Divider(delivery, contract, limits, budget)
    return [chunk for each in found for chunk in divider.chunks_of(each)]


def read_project_contract(document: dict[str, Any]) -> Contract:
    """Read the project's contract.

    Raises
    ------
    DeliveryError
        ``invalid-contract``.
    """
    try:
        return read_contract(document)
    except ContractError as error:
        raise DeliveryError("invalid-contract", f"the project's contract: {error}") from error


def label_of(plan: Plan, index: int) -> str:
    """Name a task's work: its file, which part of it, and how much more there is."""
    group = plan.groups[index]
    first = group[0]
    last = [chunk for chunk in group if chunk.file == first.file][-1]
    which = ""
    if last.part > first.part:
        which = f", parts {first.part}-{last.part} of {first.parts}"
    elif first.parts > 1:
        which = f", part {first.part} of {first.parts}"
    others = len({chunk.file for chunk in group}) - 1
    more = f" +{others}" if others else ""
    return f"{shorten(first.file, MAX_LABEL_CHARS)}{which}{more}"


def _refuse_misfits(chunks: list[Chunk], manifest: Manifest, on_reject: dict[str, Any]) -> None:
    misfits = [misfit_reject(c) for c in chunks if c.table is None]
    tolerated = on_reject.get("policy") == "reject-file" and len(misfits) < len(chunks)
    if misfits and manifest.loads and not tolerated:
        raise misfit_error(misfits)


def misfit_reject(chunk: Chunk) -> Reject:
    """Describe a file that fits no table."""
    return Reject(chunk.file, 1, None, chunk.refusal or "unknown-columns", chunk.refused_columns)


def misfit_error(misfits: list[Reject]) -> DeliveryError:
    """Say that files fit no table."""
    first = misfits[0]
    about = f" ({printable(first.value)})" if first.value else ""
    others = f" and {len(misfits) - 1} more" if len(misfits) > 1 else ""
    detail = f"{first.file}{others}: {first.rule.replace('-', ' ')}{about}"
    return DeliveryError(first.rule, detail, misfits)


def grouped(chunks: list[Chunk], limits: Limits) -> tuple[tuple[Chunk, ...], ...]:
    """Divide chunks among tasks, in order and about evenly by size.

    A task costs about as much as reading a few megabytes: many small chunks share one.
    """
    total = sum(chunk.size_bytes + 1 for chunk in chunks)
    worth = max(limits.few_tasks, -(-total // limits.chunk_bytes))
    tasks = min(len(chunks), worth, limits.max_tasks)
    groups: list[list[Chunk]] = [[]]
    taken = 0.0
    for place, chunk in enumerate(chunks):
        is_due = taken * tasks >= total * len(groups) or len(chunks) - place <= tasks - len(groups)
        if groups[-1] and is_due and len(groups) < tasks:
            groups.append([])
        groups[-1].append(chunk)
        taken += chunk.size_bytes + 1
    return tuple(tuple(group) for group in groups)
