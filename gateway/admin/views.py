"""What administrators and auditors are shown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from gateway.audit.model import AuditEvent
from gateway.clients.registry import Client
from gateway.identity.access import Rights
from gateway.jobs.model import Job
from gateway.jobs.views import JobView


class AuditEventView(BaseModel):
    """One record of the trail; ``hash`` covers it and ``previous_hash``."""

    id: str
    number: int
    at: datetime
    actor: str
    action: str
    client: str | None
    subject: str
    details: dict[str, Any]
    request_id: str | None
    previous_hash: str
    hash: str

    @classmethod
    def of(cls, event: AuditEvent) -> AuditEventView:
        """Return the view of a row."""
        return cls.model_validate(event, from_attributes=True)


class AuditPage(BaseModel):
    """A page of the trail, newest first."""

    items: list[AuditEventView]
    next: str | None


class VerdictView(BaseModel):
    """What verifying the whole chain found."""

    holds: bool
    records: int
    head: str
    broken_at: int | None
    reason: str | None


class ClientView(BaseModel):
    """A client as administrators see it.

    ``received_today`` has the bytes of each project since midnight (UTC), those that uploads under
    way hold included.
    """

    client: str
    name: str
    state: str
    projects: list[str]
    created_at: datetime
    updated_at: datetime
    spec: dict[str, Any] | None = None
    received_today: dict[str, int] | None = None

    @classmethod
    def of(cls, client: Client, projects: list[str], *, whole: bool) -> ClientView:
        """Return the view of a row; ``whole`` with the spec last applied."""
        return cls(
            client=client.name,
            name=client.title,
            state=client.state,
            projects=projects,
            created_at=client.created_at,
            updated_at=client.updated_at,
            spec=client.spec if whole else None,
        )


class ClientsJob(JobView):
    """A job, and whose it is."""

    client: str
    project: str

    @classmethod
    def of(cls, job: Job, view: JobView) -> ClientsJob:
        """Return the view of a job as its client sees it, with whose it is."""
        return cls(client=job.client, project=job.project, **view.model_dump())


class ClientsJobPage(BaseModel):
    """Jobs of all clients, newest first; ``next`` is the cursor of the following page."""

    items: list[ClientsJob]
    next: str | None


class ClientList(BaseModel):
    """Every client."""

    items: list[ClientView]


class Applied(BaseModel):
    """What applying a client's spec changed; nothing the second time."""

    client: str
    changes: list[str]


class Explanation(BaseModel):
    """Whether an account may do something, and what says so."""

    user: str
    known: bool
    action: str
    project: str | None
    allowed: bool
    groups: list[str]
    clients: dict[str, list[str]]
    platform: list[str]
    reason: str

    @classmethod
    def unknown(cls, user: str, action: str, project: str | None) -> Explanation:
        """Say that there is no such account."""
        return cls(
            user=user,
            known=False,
            action=action,
            project=project,
            allowed=False,
            groups=[],
            clients={},
            platform=[],
            reason="the directory has no such account",
        )

    @classmethod
    def of(cls, user: str, action: str, project: str | None, rights: Rights) -> Explanation:
        """Explain an account's rights; a ``project`` is written ``client/project``."""
        grants = rights.grants
        holders = [name for name, held in grants.clients.items() if action in held]
        wanted = None if project is None else project.partition("/")[0]
        by_client = bool(holders) if wanted is None else wanted in holders
        allowed = action in grants.platform or by_client
        return cls(
            user=user,
            known=True,
            action=action,
            project=project,
            allowed=allowed,
            groups=sorted(rights.account.group_names),
            clients={name: sorted(held) for name, held in grants.clients.items()},
            platform=sorted(grants.platform),
            reason="a group gives it" if allowed else "no group gives it",
        )


class Finding(BaseModel):
    """One disagreement between ledger and landing zone."""

    kind: str
    subject: str
    done: str | None = None


class Reconciliation(BaseModel):
    """What a comparison of ledger and landing zone found, and what was done about it."""

    files_checked: int
    findings: list[Finding]

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return self.model_dump()


def ndjson(events: Iterable[AuditEvent]) -> Iterator[str]:
    """Yield one line of JSON for each record."""
    for event in events:
        yield AuditEventView.of(event).model_dump_json() + "\n"


def comma_separated(events: Iterable[AuditEvent]) -> Iterator[str]:
    """Yield CSV (RFC 4180) with a header; a cell that a spreadsheet would run is quoted."""
    names = list(AuditEventView.model_fields)
    yield _line(names)
    for event in events:
        row = AuditEventView.of(event).model_dump(mode="json")
        row["details"] = json.dumps(row["details"], sort_keys=True)
        yield _line([_harmless(row[name]) for name in names])


def _line(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue()


def _harmless(value: Any) -> str:
    text = "" if value is None else str(value)
    return "'" + text if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text
