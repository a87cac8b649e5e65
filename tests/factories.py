"""Makes what a test needs, through the same functions that the product uses."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from gateway.onboarding import apply, spec

CONTRACT: dict[str, Any] = {
    "apiVersion": "v3.1.0",
    "kind": "DataContract",
    "id": "test",
    "version": "1.0.0",
    "status": "active",
    "schema": [
        {
            "name": "rows",
            "properties": [
                {"name": "id", "logicalType": "integer", "required": True},
                {"name": "note", "logicalType": "string"},
            ],
        }
    ],
}


def onboard(
    sessions: sessionmaker[Session],
    name: str = "acme",
    projects: tuple[str, ...] = ("flights",),
    own: dict[str, int] | None = None,
    **limits: int,
) -> None:
    """Onboard a client with projects of one small contract, each with the limits ``own``.

    Tests ask faster than a client may by default.
    """
    document = {
        "client": name,
        "name": name.title(),
        "limits": {"requests_per_second": 100_000, **limits},
        "projects": {project: {"contract": CONTRACT, "limits": own or {}} for project in projects},
    }
    with sessions.begin() as session:
        apply.apply(session, spec.parse(document), actor="operator:test")


def onboard_two(sessions: sessionmaker[Session]) -> None:
    """Onboard the two clients that the directory knows."""
    onboard(sessions, "acme", ("flights",))
    onboard(sessions, "globex", ("weather",))
