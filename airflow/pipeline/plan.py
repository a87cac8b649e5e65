"""The first step: prove that what landed is what was sealed, unpack it, and divide the work."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from pipeline import archive, matching, text
from pipeline import delivery as deliveries
from pipeline import manifest as manifests
from pipeline.contract import ContractError, read_contract
from pipeline.errors import DeliveryError
from pipeline.rejects import Reject, printable, shorten
from pipeline.staging import Chunk, Plan, fresh_dir
from pipeline.validate import Judge

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.contract import Contract
    from pipeline.delivery import Delivery
    from pipeline.manifest import LandedFile, Manifest

READ_BYTES = 1 << 20
MAX_GROUPS = 64
# Airflow keeps 250 characters of a mapped task's name.
MAX_LABEL_CHARS = 200


@dataclass(frozen=True)
class Found:
    """A readable file of the delivery: as it landed, or out of an archive."""

    file: str
    source: str
    name: str
    scan: text.EncodingScan


def make_plan(
    delivery: Delivery,
    contract_document: dict[str, Any],
    on_reject: dict[str, Any],
    jwks: dict[str, Any],
    caps: archive.Caps | None = None,
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
    if not manifest.files:
        raise DeliveryError("empty-batch", "the batch holds no files")
    survey = _Survey(delivery, archive.Budget(caps or archive.Caps()))
    found = [f for landed in manifest.files for f in survey.take(landed)]
    if not found:
        raise DeliveryError("empty-batch", "the archives of the batch hold no files")
    chunks = [_chunk(f, contract) for f in found]
    _refuse_misfits(chunks, manifest, on_reject)
    plan = Plan(contract_document, on_reject, manifest.mode, manifest.supersedes, grouped(chunks))
    plan.write(delivery)
    return plan


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
    """Name a task's work by its file, or its first file and how many more."""
    group = plan.groups[index]
    more = f" +{len(group) - 1}" if len(group) > 1 else ""
    return f"{shorten(group[0].file, MAX_LABEL_CHARS)}{more}"


class _Survey:
    """Looks at each landed file once: digest, encoding and, where packed, contents."""

    def __init__(self, delivery: Delivery, budget: archive.Budget) -> None:
        self.delivery = delivery
        self.budget = budget
        self.unpacked = 0

    def take(self, landed: LandedFile) -> list[Found]:
        with deliveries.open_landed(self.delivery, "files", landed.name) as file:
            kind = archive.kind_of(file)
            scan = text.EncodingScan()
            _verify(landed, file, scan if kind == "plain" else None)
            claimed = archive.claims_archive(landed.name)
            if claimed not in (None, kind):
                detail = f"{landed.name} is not the {claimed} file that its name says"
                raise DeliveryError("corrupt-archive", detail)
            if kind == "plain":
                return [Found(landed.name, "landing", landed.name, scan)]
            return self._unpack(landed.name, kind, file)

    def _unpack(self, name: str, kind: str, file: BinaryIO) -> list[Found]:
        if kind == "gzip":
            self.budget.take_entries(name, 1)
            target = self._target()
            with target:
                archive.unpack_gzip(name, file, self.budget, target)
            return [self._found(name, name, target)]
        found = []
        entries = archive.unpack_zip(name, file, self.budget, lambda _: self._target())
        for entry_name, target in entries:
            target.close()
            found.append(self._found(name, f"{name}/{entry_name}", target))
        return found

    def _found(self, name: str, label: str, target: _Target) -> Found:
        if archive.is_archive(target.scan.head):
            raise DeliveryError("unsafe-archive", f"{name} holds another archive")
        return Found(label, "unpacked", target.path.name, target.scan)

    def _target(self) -> _Target:
        directory = self.delivery.staged_dir / "unpacked"
        directory.mkdir(exist_ok=True, mode=0o750)
        self.unpacked += 1
        return _Target(directory / f"{self.unpacked:06d}")


class _Target:
    """An unpacked file: its bytes go to disk and past the scan."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scan = text.EncodingScan()
        self._file = path.open("xb")

    def write(self, chunk: bytes) -> None:
        self.scan.write(chunk)
        self._file.write(chunk)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _verify(landed: LandedFile, file: BinaryIO, scan: text.EncodingScan | None) -> None:
    digest, size = hashlib.sha256(), 0
    while chunk := file.read(READ_BYTES):
        digest.update(chunk)
        size += len(chunk)
        if scan is not None:
            scan.write(chunk)
    if (size, digest.hexdigest()) != (landed.size_bytes, landed.sha256):
        raise DeliveryError("digest-mismatch", f"{landed.name} is not the file that was sealed")


def _chunk(found: Found, contract: Contract) -> Chunk:
    dialect, heading = text.find_dialect(found.scan, contract)
    match = matching.match(found.file, heading, contract, empty=not found.scan.size_bytes)
    return Chunk(
        file=found.file,
        source=found.source,
        name=found.name,
        size_bytes=found.scan.size_bytes,
        table=match.table,
        heading=match.columns,
        dialect=dialect,
        refusal=match.refusal,
        refused_columns=match.refused_columns,
    )


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


def grouped(chunks: list[Chunk]) -> tuple[tuple[Chunk, ...], ...]:
    """Divide chunks among at most `MAX_GROUPS` tasks, in order and about evenly by size."""
    if len(chunks) <= MAX_GROUPS:
        return tuple((chunk,) for chunk in chunks)
    share = sum(chunk.size_bytes + 1 for chunk in chunks) / MAX_GROUPS
    groups: list[list[Chunk]] = [[]]
    taken = 0.0
    for chunk in chunks:
        if groups[-1] and taken >= share * len(groups) and len(groups) < MAX_GROUPS:
            groups.append([])
        groups[-1].append(chunk)
        taken += chunk.size_bytes + 1
    return tuple(tuple(group) for group in groups)
