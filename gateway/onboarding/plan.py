"""What applying a client file would change: computed first, shown, then carried out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import rfc8785
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.clients.registry import Client, Project
from gateway.onboarding.spec import ClientSpec, ProjectSpec


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between the file and what is in force."""

    verb: str
    what: str

    def __str__(self) -> str:
        return f"{self.verb} {self.what}"


def changes(session: Session, spec: ClientSpec) -> list[Change]:
    """Return what applying ``spec`` would change; nothing for a file applied before."""
    client = session.get(Client, spec.client)
    found = _client_changes(client, spec)
    existing = projects(session, spec.client)
    for name, wanted in spec.projects.items():
        found += _project_changes(existing.get(name), name, wanted)
    found += [
        Change("retire", f"project {name}")
        for name, project in existing.items()
        if name not in spec.projects and project.state == "active"
    ]
    return found


def projects(session: Session, client: str) -> dict[str, Project]:
    """Return every project of a client by name, the retired ones too."""
    query = select(Project).where(Project.client == client)
    return {each.name: each for each in session.scalars(query)}


def columns(wanted: ProjectSpec) -> dict[str, Any]:
    """Return a project's row, without its key."""
    return {
        "state": "active",
        "contract": wanted.contract,
        "contract_sha256": hashlib.sha256(rfc8785.dumps(wanted.contract)).hexdigest(),
        "on_reject": wanted.on_reject.model_dump(),
        "retention": wanted.retention.model_dump(),
        "engine": wanted.engine,
        "load": dict(wanted.load),
        "limits": wanted.limits.given(),
    }


def _client_changes(client: Client | None, spec: ClientSpec) -> list[Change]:
    if client is None:
        return [Change("create", f"client {spec.client}")]
    found = []
    if client.state == "gone":
        found.append(Change("bring back", f"client {spec.client}"))
    if client.title != spec.name:
        found.append(Change("rename", f"client {spec.client} to {spec.name}"))
    limits = spec.limits.model_dump()
    found += [
        Change("set", f"limit {name} to {limits[name]}")
        for name in limits
        if client.limits.get(name) != limits[name]
    ]
    return found


def _project_changes(project: Project | None, name: str, wanted: ProjectSpec) -> list[Change]:
    if project is None:
        return [Change("create", f"project {name}")]
    differing = [
        key
        for key, value in columns(wanted).items()
        if key != "contract" and getattr(project, key) != value
    ]
    labels = {"contract_sha256": "contract", "state": "state (bring back)"}
    return [Change("change", f"project {name}: {labels.get(key, key)}") for key in differing]
