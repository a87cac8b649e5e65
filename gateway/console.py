"""What operators' commands share: the gateway's parts, clear failures, who is at work."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from gateway.bootstrap import Services


@contextmanager
def services() -> Iterator[Services]:
    """Give the gateway's parts, built from its settings."""
    from gateway import bootstrap, settings  # noqa: PLC0415

    services = bootstrap.build(settings.load())
    try:
        yield services
    finally:
        services.close()


@contextmanager
def failures() -> Iterator[None]:
    """Turn what an operator can mend into clear lines and exit code 1."""
    from sqlalchemy.exc import OperationalError  # noqa: PLC0415

    from gateway.errors import GatewayError  # noqa: PLC0415
    from gateway.settings import SettingsError  # noqa: PLC0415

    try:
        yield
    except SettingsError as error:
        fail(str(error))
    except GatewayError as error:
        lines = [f"{fault.pointer}: {fault.detail}" for fault in error.errors]
        fail("\n".join([error.detail or error.title, *lines]))
    except OperationalError:
        fail("the database does not answer")


def fail(message: str) -> None:
    """Say what is wrong, and end with exit code 1."""
    typer.echo(message, err=True)
    raise typer.Exit(1)


def operator() -> str:
    """Return who is at work, as the audit trail names them."""
    return f"operator:{getpass.getuser()}"
