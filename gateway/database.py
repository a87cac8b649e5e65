"""Postgres: the engine, the base of every table, ids.

Domain functions take a ``Session`` first and never commit; doors, worker steps
and commands own exactly one ``begin()`` each.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import DateTime, Engine, MetaData, Text, create_engine, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from ulid import ULID

from gateway import settings


class Base(DeclarativeBase):
    """Base of every table; names of constraints follow from what they constrain."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[dict[str, Any]]: JSONB,
        str: Text,
    }


def connect(config: settings.Database) -> Engine:
    """Build the engine: a bounded pool, UTC, and time limits on every statement."""
    milliseconds = int(config.statement_timeout_seconds * 1000)
    options = f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds} -c timezone=UTC"
    return create_engine(
        config.url.get_secret_value(),
        pool_size=config.pool_size,
        max_overflow=0,
        pool_timeout=config.pool_timeout_seconds,
        pool_pre_ping=True,
        connect_args={
            "options": options,
            "connect_timeout": 5,
            "application_name": "gateway",
            "keepalives_idle": 30,
            "tcp_user_timeout": 20_000,
        },
    )


def sessions(engine: Engine) -> sessionmaker[Session]:
    """Build the factory of sessions; what a session loaded stays readable after its commit."""
    return sessionmaker(engine, expire_on_commit=False)


def new_id(prefix: str) -> str:
    """Return an opaque id such as ``bat_01k…``: sortable by time, URL-safe, lower case."""
    return f"{prefix}_{str(ULID()).lower()}"


def now(session: Session) -> datetime:
    """Return the database's clock: the one time that queues, leases and limits go by."""
    found: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return found


def violated(error: IntegrityError) -> str:
    """Return the name of the constraint that an insert or update ran into."""
    diagnostics = getattr(error.orig, "diag", None)
    return getattr(diagnostics, "constraint_name", None) or ""
