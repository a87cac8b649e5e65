"""Runs migrations against the database of ``GATEWAY_DATABASE_URL``, or one handed over."""

from __future__ import annotations

import importlib
import pkgutil

from alembic import context
from sqlalchemy import Connection, text

import gateway
from gateway import database, settings

STATEMENT_SECONDS = 600


def _load_tables() -> None:
    for module in pkgutil.walk_packages(gateway.__path__, "gateway."):
        if module.name.rsplit(".", 1)[-1] in {"model", "registry", "feed"}:
            importlib.import_module(module.name)


def _run(connection: Connection) -> None:
    # A migration that cannot have its lock soon must not queue everybody behind it.
    connection.execute(text("SET lock_timeout = '5s'"))
    connection.execute(text(f"SET statement_timeout = '{STATEMENT_SECONDS}s'"))
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=database.Base.metadata,
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


_load_tables()
handed_over = context.config.attributes.get("connection")
if handed_over is not None:
    _run(handed_over)
else:
    engine = database.connect(settings.database(), statement_seconds=STATEMENT_SECONDS)
    with engine.connect() as opened:
        _run(opened)
