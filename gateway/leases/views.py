"""Shapes of leases as doors take and give them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

LeaseState = Literal["intended", "issued", "revoking", "revoked", "irrevocable"]
Name = Annotated[str, StringConstraints(min_length=1, max_length=250)]


class LeaseRequest(BaseModel):
    """Which running task asks for what, as Airflow knows it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    resource: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    dag_id: Name
    run_id: Name
    task_id: Name
    map_index: Annotated[int, Field(ge=-1, le=1_000_000)]
    try_number: Annotated[int, Field(ge=0, le=1_000_000)]


class LeaseConnection(BaseModel):
    """A credential as Airflow writes connections, and how long it lives."""

    lease_id: str
    expires_at: datetime
    conn_type: str
    host: str | None
    port: int | None
    schema_: str | None = Field(alias="schema")
    login: str | None
    password: str | None
    extra: dict[str, Any]


class LeaseLife(BaseModel):
    """How long a lease lives."""

    lease_id: str
    expires_at: datetime


class LeaseView(BaseModel):
    """A lease as administrators see it. What the credential was, nobody can see."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    client: str
    project: str
    job: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    resource: str
    state: LeaseState
    reason: str | None
    expires_at: datetime
    attempts: int
    last_error: str | None
    created_at: datetime
    issued_at: datetime | None
    renewed_at: datetime | None
    ended_at: datetime | None
    revoked_at: datetime | None


class LeasePage(BaseModel):
    """Leases, newest first; ``next`` is the cursor of the following page."""

    items: list[LeaseView]
    next: str | None
