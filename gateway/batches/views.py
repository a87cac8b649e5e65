"""Shapes of batches as doors take and give them."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, Self

import rfc8785
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from gateway.batches.model import Batch, File
from gateway.jobs.views import JobView

METADATA_BYTES = 16 * 1024
METADATA_KEYS = 50
LISTED_FILES = 100_000
BATCH_ID = r"^bat_[0-9a-z]{26}$"
SHA256 = r"^[0-9a-f]{64}$"

Mode = Literal["load", "validate"]
BatchState = Literal["open", "sealed", "canceled", "expired", "purged"]
FileState = Literal["pending", "complete", "error"]

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,6})?([Zz]|[+-]\d{2}:\d{2})")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable, without control characters")
    if not unicodedata.is_normalized("NFC", text):
        raise ValueError("must be in Unicode normal form C")
    return text


def _moment(text: str) -> str:
    _parsed(text)
    return text


def _parsed(text: str) -> datetime:
    """Return the moment that a date (its midnight, UTC) or an RFC 3339 timestamp names."""
    if _DATE.fullmatch(text):
        return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
    if _TIMESTAMP.fullmatch(text):
        return datetime.fromisoformat(text.upper())
    raise ValueError("must be a date (YYYY-MM-DD) or an RFC 3339 timestamp")


def _bounded(metadata: dict[str, Any]) -> dict[str, Any]:
    if len(metadata) > METADATA_KEYS:
        raise ValueError(f"must have at most {METADATA_KEYS} keys")
    if len(rfc8785.dumps(metadata)) > METADATA_BYTES:
        raise ValueError(f"must be at most {METADATA_BYTES} bytes")
    return metadata


Reference = Annotated[
    str, StringConstraints(min_length=1, max_length=200), AfterValidator(_printable)
]
Moment = Annotated[str, StringConstraints(max_length=40), AfterValidator(_moment)]
ProjectName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[ -~]+$")]


class Period(BaseModel):
    """The time a delivery is about: two dates, or two RFC 3339 timestamps."""

    model_config = ConfigDict(extra="forbid", strict=True)

    start: Moment
    end: Moment

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if bool(_DATE.fullmatch(self.start)) != bool(_DATE.fullmatch(self.end)):
            raise ValueError("start and end must both be dates, or both timestamps")
        if _parsed(self.start) > _parsed(self.end):
            raise ValueError("start must not be after end")
        return self


class BatchRequest(BaseModel):
    """A new delivery; ``reference`` is the client's own name for it."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "project": "flights",
                    "reference": "2013",
                    "period": {"start": "2013-01-01", "end": "2013-12-31"},
                }
            ]
        },
    )

    project: ProjectName
    reference: Reference
    mode: Mode = "load"
    period: Period | None = None
    metadata: Annotated[dict[str, Any], AfterValidator(_bounded)] = Field(default_factory=dict)
    supersedes: Annotated[str, StringConstraints(pattern=BATCH_ID)] | None = None


class ListedFile(BaseModel):
    """A file as its sender knows it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    size_bytes: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = None
    sha256: Annotated[str, StringConstraints(pattern=SHA256)] | None = None


class SealRequest(BaseModel):
    """What the batch must consist of, exactly; without a list, of whatever is there."""

    model_config = ConfigDict(extra="forbid", strict=True)

    files: Annotated[list[ListedFile], Field(max_length=LISTED_FILES)] | None = None

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        names = [each.name for each in self.files or ()]
        if len(set(names)) != len(names):
            raise ValueError("a file is listed twice")
        return self


class ReplayRequest(BaseModel):
    """Why a batch is processed again, from which layer, and under which contract.

    ``latest`` is the project's contract as it stands; ``pinned`` the one of the last attempt that
    loaded the batch. Staged rows are what the contract of their attempt made of the files, so
    ``staged`` is for a contract that has not changed since.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Annotated[
        str, StringConstraints(min_length=1, max_length=500), AfterValidator(_printable)
    ]
    source: Literal["landing", "staged"] = Field("landing", alias="from")
    contract: Literal["pinned", "latest"] = "latest"


class FileView(BaseModel):
    """One file of a batch; ``size_bytes`` and ``sha256`` are known once it is complete.

    Of a resumable upload, ``received_bytes`` are durable; ``verified_bytes`` have been read again,
    where the digest of the whole is not known from receiving it.
    """

    name: str
    state: FileState
    size_bytes: int | None
    sha256: str | None
    received_bytes: int | None = None
    verified_bytes: int | None = None
    media_type: str | None
    created_at: datetime
    completed_at: datetime | None

    @classmethod
    def of(cls, file: File) -> Self:
        """Show a file."""
        return cls.model_validate({name: getattr(file, name) for name in cls.model_fields})


class PeriodView(BaseModel):
    """The time a delivery is about."""

    start: str
    end: str


class BatchSummary(BaseModel):
    """One delivery."""

    id: str
    project: str
    reference: str
    mode: Mode
    state: BatchState
    period: PeriodView | None
    metadata: dict[str, Any]
    supersedes: str | None
    file_count: int
    created_by: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    sealed_at: datetime | None

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """Show a batch."""
        return cls.model_validate(_facts(batch))


class BatchView(BatchSummary):
    """One delivery with its files, by name, and its jobs, newest first."""

    files: list[FileView]
    jobs: list[JobView]

    @classmethod
    def whole(cls, batch: Batch, files: list[FileView], jobs: list[JobView]) -> Self:
        """Show a batch with what belongs to it."""
        return cls.model_validate({**_facts(batch), "files": files, "jobs": jobs})


class BatchPage(BaseModel):
    """Batches, newest first; ``next`` is the cursor of the following page."""

    items: list[BatchSummary]
    next: str | None


class SealedView(BaseModel):
    """What sealing made: the sealed batch, and its first job as it was queued.

    It stays the same when it is asked for again; the job's address shows how the job goes.
    """

    batch: BatchSummary
    job: JobView


class ProjectView(BaseModel):
    """One feed of the caller's client."""

    name: str
    contract: dict[str, Any]
    on_reject: dict[str, Any]
    retention: dict[str, Any]
    limits: LimitsView


class LimitsView(BaseModel):
    """What may be delivered to a project; sizes in bytes.

    ``open_batches``, ``uploads_in_flight`` and ``bytes_per_day`` (by UTC; null: any number) hold
    for the client's projects together too, ``requests_per_second`` for these alone.
    """

    file_bytes: int
    batch_bytes: int
    files_per_batch: int
    open_batches: int
    uploads_in_flight: int
    requests_per_second: int
    bytes_per_day: int | None


class ProjectPage(BaseModel):
    """The caller's projects, by name."""

    items: list[ProjectView]
    next: str | None = None


class RequestLimits(BaseModel):
    """Limits that hold for every client; a client's own are in ``/v1/projects``."""

    json_body_bytes: int
    metadata_bytes: int
    page_items: int
    open_batch_seconds: int
    idempotency_seconds: int


class Capabilities(BaseModel):
    """What this gateway can do."""

    version: str
    time: datetime
    uploads: list[str]
    digests: list[str]
    limits: RequestLimits


def _facts(batch: Batch) -> dict[str, Any]:
    period = {"start": batch.period_start, "end": batch.period_end}
    same = BatchSummary.model_fields.keys() - {"period", "metadata", "expires_at"}
    return {
        **{name: getattr(batch, name) for name in same},
        "period": period if batch.period_start else None,
        "metadata": batch.details,
        "expires_at": batch.expires_at if batch.state == "open" else None,
    }


ProjectView.model_rebuild()
