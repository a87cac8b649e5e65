"""What the gateway answers, as frozen dataclasses.

Reading is strict about what the SDK acts on (ids and states) and tolerant of the rest: a newer
gateway may add members, and lists may leave out what only the single object carries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx

from gateway.sdk import problems

Json: TypeAlias = Mapping[str, Any]

SUCCEEDED = "succeeded"
PARTIALLY_SUCCEEDED = "partially_succeeded"
BLOCKED = "blocked"
ENDED = frozenset({SUCCEEDED, PARTIALLY_SUCCEEDED, "failed", "canceled"})
LIVE_BATCHES = frozenset({"open", "sealed"})


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a gateway can do; ``uploads`` are the ways in which it takes files."""

    uploads: frozenset[str]


@dataclass(frozen=True, slots=True)
class BatchFile:
    """A file as the gateway holds it; ``sha256`` is empty until it is complete.

    ``received_bytes`` have come of one sent in pieces; of ``verified_bytes`` is known that they did.
    """

    name: str
    state: str
    size_bytes: int
    sha256: str
    verified_bytes: int = 0
    received_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a job; ``total`` is None while it is not known."""

    name: str
    state: str
    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Rows:
    """Row counts of a job so far."""

    read: int = 0
    loaded: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """One processing attempt of a sealed batch."""

    id: str
    batch: str
    state: str
    attempt: int = 1
    cause: str = ""
    waiting_reason: str = ""
    steps: tuple[Step, ...] = ()
    rows: Rows = field(default_factory=Rows)
    created_at: str = ""
    finished_at: str = ""
    error: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to this job."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class Batch:
    """One delivery."""

    id: str
    project: str
    reference: str
    state: str
    mode: str = ""
    period: Json | None = None
    metadata: Json = field(default_factory=dict)
    created_at: str = ""
    sealed_at: str = ""
    files: tuple[BatchFile, ...] = ()
    jobs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; ``next`` is the cursor of the following one."""

    items: tuple[Batch, ...]
    next: str


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The gateway's confirmation that it keeps a file."""

    name: str
    size_bytes: int
    sha256: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class Sealed:
    """The ids made known by sealing a batch."""

    batch: str
    job: str


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that failed validation."""

    file: str
    line: int | None
    column: str
    rule: str
    value: str


def json_object(response: httpx.Response) -> Json:
    """Return an answer's JSON object.

    Raises
    ------
    GatewayProblem
        It has none.
    """
    try:
        body = response.json()
    except ValueError as error:
        raise unexpected("it is not JSON") from error
    if not isinstance(body, dict):
        raise unexpected("it is not a JSON object")
    return body


def capabilities(body: Json) -> Capabilities:
    """Read what a gateway can do; an older one says less."""
    return Capabilities(frozenset(str(word) for word in body.get("uploads") or ()))


def batch(body: Json) -> Batch:
    """Read a batch."""
    period = body.get("period")
    return Batch(
        id=required(body, "id"),
        project=required(body, "project"),
        reference=required(body, "reference"),
        state=required(body, "state"),
        mode=text(body, "mode"),
        period=period if isinstance(period, dict) else None,
        metadata=body.get("metadata") or {},
        created_at=text(body, "created_at"),
        sealed_at=text(body, "sealed_at"),
        files=tuple(batch_file(item) for item in _objects(body, "files")),
        jobs=tuple(identifier(item) for item in body.get("jobs") or ()),
    )


def page(body: Json) -> Page:
    """Read one page of batches."""
    return Page(tuple(batch(item) for item in _objects(body, "items")), text(body, "next"))


def batch_file(body: Json) -> BatchFile:
    """Read a file of a batch."""
    return BatchFile(
        name=required(body, "name"),
        state=text(body, "state"),
        size_bytes=int(body.get("size_bytes") or 0),
        sha256=text(body, "sha256"),
        verified_bytes=int(body.get("verified_bytes") or 0),
        received_bytes=int(body.get("received_bytes") or 0),
    )


def present(body: Json) -> frozenset[str]:
    """Read which of the files that were declared are there."""
    items = body.get("items") or ()
    return frozenset(required(each, "name") for each in items if each.get("status") == "present")


def stored_file(body: Json, name: str, *, is_new: bool) -> StoredFile:
    """Read the confirmation of a stored file."""
    size_bytes = int(body.get("size_bytes") or 0)
    return StoredFile(name, size_bytes, required(body, "sha256"), is_new)


def sealed(body: Json) -> Sealed:
    """Read the answer to a seal."""
    return Sealed(batch=identifier(body.get("batch")), job=identifier(body.get("job")))


def job(body: Json) -> Job:
    """Read a job."""
    rows = body.get("rows") or {}
    return Job(
        id=required(body, "id"),
        batch=identifier(body.get("batch") or body.get("batch_id") or "?"),
        state=required(body, "state"),
        attempt=int(body.get("attempt") or 1),
        cause=text(body, "cause"),
        waiting_reason=text(body, "waiting_reason"),
        steps=tuple(_step(item) for item in _objects(body, "steps")),
        rows=Rows(*(int(rows.get(key) or 0) for key in ("read", "loaded", "rejected"))),
        created_at=text(body, "created_at"),
        finished_at=text(body, "finished_at"),
        error=_error(body.get("error")),
    )


def reject(body: Json) -> Reject:
    """Read a rejected row."""
    line = body.get("line")
    return Reject(
        file=text(body, "file"),
        line=line if isinstance(line, int) else None,
        column=text(body, "column"),
        rule=text(body, "rule"),
        value=text(body, "value"),
    )


def required(body: Json, key: str) -> str:
    """Return a member that must be a non-empty text.

    Raises
    ------
    GatewayProblem
        It is not: whatever answered does not speak the gateway's contract.
    """
    value = body.get(key)
    if isinstance(value, str) and value:
        return value
    raise unexpected(f"{key!r} is missing from the answer")


def text(body: Json, key: str) -> str:
    """Return a member as text, empty when absent or null."""
    value = body.get(key)
    return "" if value is None else str(value)


def identifier(value: object) -> str:
    """Return the id in a reference, which is either the id or the object itself."""
    if isinstance(value, Mapping):
        return required(value, "id")
    if isinstance(value, str) and value:
        return value
    raise unexpected("an id is missing from the answer")


def unexpected(detail: str) -> problems.GatewayProblem:
    """Return the problem of a successful answer that makes no sense."""
    return problems.GatewayProblem(
        "unexpected-answer", 0, "The answer is not one a gateway gives", detail
    )


def _step(body: Json) -> Step:
    total = body.get("total")
    return Step(
        name=required(body, "name"),
        state=text(body, "state"),
        done=int(body.get("done") or 0),
        total=total if isinstance(total, int) else None,
    )


def _error(value: object) -> str:
    if isinstance(value, Mapping):
        return ": ".join(str(value[key]) for key in ("code", "detail") if value.get(key))
    return "" if value is None else str(value)


def _objects(body: Json, key: str) -> Iterable[Json]:
    return (item for item in body.get(key) or () if isinstance(item, dict))
