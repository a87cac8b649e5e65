"""Carries a plan out: rows, the client's Airflow pool, and the registry the DAG factory reads."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gateway.audit import actions, trail
from gateway.clients import registry
from gateway.clients.registry import Client, Project
from gateway.onboarding import plan
from gateway.onboarding.plan import Change
from gateway.onboarding.spec import ClientSpec
from gateway.outbox import queue

POOL_SLOTS = 16
_EXPORT_LOCK = 0x6761746577617901


def apply(session: Session, spec: ClientSpec, *, actor: str) -> list[Change]:
    """Bring a client to what ``spec`` says; a file applied before changes nothing.

    The caller commits, and then exports the registry (``export``): both are safe to repeat
    after a crash in between.
    """
    found = plan.changes(session, spec)
    if found:
        _write_client(session, spec)
        _write_projects(session, spec)
        session.flush()
        _ask_for_pool(session, spec.client)
        trail.record(
            session,
            actor=actor,
            action=actions.CLIENT_APPLIED,
            client=spec.client,
            subject=spec.client,
            details={"changes": [str(each) for each in found]},
        )
    return found


def offboard(session: Session, name: str, *, actor: str) -> bool:
    """End a client: no sign-in, no delivery, no DAG; what was delivered is kept until retention.

    Returns
    -------
    bool
        False when there is no such client, or it was ended before.
    """
    client = session.get(Client, name)
    if client is None or client.state == "gone":
        return False
    client.state = "gone"
    client.updated_at = func.now()
    trail.record(session, actor=actor, action=actions.CLIENT_OFFBOARDED, client=name, subject=name)
    return True


def export(session: Session, path: Path) -> bool:
    """Write the registry file from what is in force, if it says anything else.

    Two exports at once take turns; readers see the old file or the new one (atomic rename).
    """
    session.execute(select(func.pg_advisory_xact_lock(_EXPORT_LOCK)))
    text = json.dumps({"version": 1, "projects": _entries(session)}, indent=1, sort_keys=True)
    if path.exists() and path.read_text() == text:
        return False
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
    Path(file.name).replace(path)
    return True


def _entries(session: Session) -> list[dict[str, Any]]:
    return [
        _entry(client, project)
        for client in registry.clients(session)
        for project in registry.projects_of(session, client.name)
    ]


def _entry(client: Client, project: Project) -> dict[str, Any]:
    return {
        "dag_id": f"{client.name}__{project.name}",
        "client": client.name,
        "client_name": client.title,
        "project": project.name,
        "pool": f"client-{client.name}",
        "pool_slots": POOL_SLOTS,
        "engine": project.engine,
        "load": project.load,
        "on_reject": project.on_reject,
        "retention": project.retention,
        "contract_sha256": project.contract_sha256,
        "contract": project.contract,
    }


def _write_client(session: Session, spec: ClientSpec) -> None:
    client = session.get(Client, spec.client) or Client(name=spec.client)
    client.title = spec.name
    client.state = client.state if client.state == "suspended" else "active"
    client.limits = spec.limits.model_dump()
    client.spec = spec.model_dump()
    client.updated_at = func.now()
    session.add(client)
    session.flush()


def _write_projects(session: Session, spec: ClientSpec) -> None:
    existing = plan.projects(session, spec.client)
    for name, wanted in spec.projects.items():
        project = existing.get(name) or Project(client=spec.client, name=name)
        columns = plan.columns(wanted)
        registry.keep_contract(session, columns["contract_sha256"], columns["contract"])
        for key, value in columns.items():
            setattr(project, key, value)
        project.updated_at = func.now()
        session.add(project)
    for name in existing.keys() - spec.projects.keys():
        existing[name].state = "gone"


def _ask_for_pool(session: Session, client: str) -> None:
    payload = {"client": client, "pool": f"client-{client}", "slots": POOL_SLOTS}
    key = f"{client}:{POOL_SLOTS}"
    queue.put(session, topic="client.pool", key=key, lane=client, payload=payload)
