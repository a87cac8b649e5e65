"""Who may deliver what: clients and their projects, as onboarding wrote them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from gateway.database import Base
from gateway.errors import Fault, ForbiddenError, InvalidRequestError


class Client(Base):
    """A customer (tenant). ``spec`` is what was last applied, contracts inline."""

    __tablename__ = "client"
    __table_args__ = (CheckConstraint("state IN ('active', 'suspended', 'gone')", name="state"),)

    name: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str]
    state: Mapped[str] = mapped_column(default="active")
    limits: Mapped[dict[str, Any]]
    spec: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Project(Base):
    """One feed of a client. ``limits`` are those it has narrower than its client's."""

    __tablename__ = "project"
    __table_args__ = (CheckConstraint("state IN ('active', 'gone')", name="state"),)

    client: Mapped[str] = mapped_column(ForeignKey("client.name"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(default="active")
    contract: Mapped[dict[str, Any]]
    contract_sha256: Mapped[str] = mapped_column(ForeignKey("contract_version.sha256"))
    on_reject: Mapped[dict[str, Any]]
    retention: Mapped[dict[str, Any]]
    engine: Mapped[str] = mapped_column(default="local")
    load: Mapped[dict[str, Any]]
    limits: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ContractVersion(Base):
    """A contract that was in force: kept for as long as it may be used again."""

    __tablename__ = "contract_version"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    document: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ClientSuspendedError(ForbiddenError):
    """The client exists and may not deliver at present."""

    title = "Deliveries of this client are suspended"


def active_client(session: Session, name: str) -> Client:
    """Return a client that may deliver.

    Raises
    ------
    ClientSuspendedError
        It is suspended, has left, or was never onboarded.
    """
    client = session.get(Client, name)
    if client is None or client.state != "active":
        raise ClientSuspendedError
    return client


def active_project(session: Session, client: str, name: str) -> Project:
    """Return a client's project.

    Raises
    ------
    InvalidRequestError
        The client has no such project.
    """
    project = session.get(Project, (client, name))
    if project is None or project.state != "active":
        fault = Fault("project", "you have no project of this name", "unknown-project")
        raise InvalidRequestError(errors=[fault])
    return project


def kept_contract(session: Session, sha256: str | None) -> dict[str, Any] | None:
    """Return a contract that was kept; None for none."""
    return None if sha256 is None else session.get_one(ContractVersion, sha256).document


def keep_contract(session: Session, sha256: str, document: dict[str, Any]) -> None:
    """Keep a contract, before a project is given it."""
    values = {"sha256": sha256, "document": document}
    session.execute(insert(ContractVersion).values(values).on_conflict_do_nothing())


def projects_of(session: Session, client: str) -> list[Project]:
    """Return a client's active projects by name."""
    query = select(Project).where(Project.client == client, Project.state == "active")
    return list(session.scalars(query.order_by(Project.name)))


def clients(session: Session) -> list[Client]:
    """Return every client by name, those who left not included."""
    return list(session.scalars(select(Client).where(Client.state != "gone").order_by(Client.name)))
