"""Options that several commands share, and what is made of them."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.sdk import journal
from gateway.sdk.client import GatewayClient
from gateway.sdk.journal import Journal
from gateway.sdk.login import Kind
from gateway.sdk.transport import RetryPolicy

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object; progress goes to standard error.")
]
Timeout = Annotated[float, typer.Option(min=0, help="Seconds to follow the job for.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Exit with 1 when rows were rejected (else 0).")
]

TIMEOUT_SECONDS = 3600.0


def _option(text: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel="Connection", **settings)


@dataclass(frozen=True, slots=True)
class Connection:
    """Which gateway, and as whom: the options every command that asks it has."""

    url: Annotated[str, _option("Address of the gateway.", envvar="GATEWAY_URL")] = ""
    user: Annotated[
        str,
        _option(
            "Account. Its password comes from GATEWAY_PASSWORD, from the file named by "
            "GATEWAY_PASSWORD_FILE, or is asked for.",
            envvar="GATEWAY_USER",
        ),
    ] = ""
    account: Annotated[
        Kind,
        _option("Kind of account: a machine's or a person's.", envvar="GATEWAY_ACCOUNT"),
    ] = "service"
    client: Annotated[
        str,
        _option("Client to act for, if the account has several.", envvar="GATEWAY_CLIENT"),
    ] = ""
    ca_file: Annotated[
        Path | None,
        _option(
            "PEM file of the authorities that vouch for the gateway; default: the system's.",
            envvar="GATEWAY_CA_FILE",
            exists=True,
            dir_okay=False,
        ),
    ] = None
    retry_for: Annotated[
        float, _option("Seconds to go on trying while the gateway is away.", min=0)
    ] = 300.0
    allow_http: Annotated[
        bool,
        _option("Let the password go unencrypted to another machine.", envvar="GATEWAY_ALLOW_HTTP"),
    ] = False

    def open(self) -> GatewayClient:
        """Return a client of the gateway the options name.

        Raises
        ------
        typer.BadParameter
            One of them is missing or unusable.
        """
        for option, value in (("url", self.url), ("user", self.user)):
            if not value:
                raise typer.BadParameter(f"--{option} (or GATEWAY_{option.upper()}) is needed")
        try:
            return GatewayClient(
                self.url,
                self.user,
                password_of(self.user),
                self.ca_file,
                kind=self.account,
                client=self.client,
                policy=RetryPolicy(deadline_seconds=self.retry_for),
                allow_http=self.allow_http,
            )
        except (ValueError, OSError) as error:
            raise typer.BadParameter(str(error)) from error

    def notes(self, project: str, reference: str, warn: Callable[[str], None]) -> Journal:
        """Return what was noted of a delivery when it was interrupted."""
        words = (self.url.rstrip("/"), self.account, self.user, self.client, project, reference)
        return Journal(journal.place_of(*words), warn)


def with_connection(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of :class:`Connection` for its parameter ``connection``."""
    added = inspect.signature(Connection, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        connection = Connection(**{name: given.pop(name) for name in added})
        command(connection=connection, **given)

    kept = [parameter for name, parameter in own.parameters.items() if name != "connection"]
    every = [*kept, *added.values()]
    keywords = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in every]
    with_options.__signature__ = own.replace(parameters=keywords)  # type: ignore[attr-defined]
    return with_options


def password_of(user: str) -> str:
    """Return the password; never from the command line, which other processes can read.

    Raises
    ------
    typer.BadParameter
        There is none, and nobody to ask.
    """
    given = os.environ.get("GATEWAY_PASSWORD", "")
    path = os.environ.get("GATEWAY_PASSWORD_FILE", "")
    if not given and path:
        given = _first_line(Path(path))
    if not given and sys.stdin.isatty():
        given = str(typer.prompt(f"Password of {user}", hide_input=True, err=True))
    if not given:
        raise typer.BadParameter("set GATEWAY_PASSWORD_FILE or GATEWAY_PASSWORD")
    return given


def metadata_of(pairs: Sequence[str]) -> dict[str, str]:
    """Read ``--metadata key=value`` options."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key or key in found:
            raise typer.BadParameter(f"{pair!r} is not key=value, or its key is repeated")
        found[key] = value
    return found


def period_of(start: str, end: str) -> dict[str, str] | None:
    """Read ``--period-start`` and ``--period-end``: both, or neither."""
    if not start and not end:
        return None
    try:
        in_order = datetime.fromisoformat(start) <= datetime.fromisoformat(end)
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(
            "a period has a start and an end: two dates (2013-01-31), or two times with a zone"
        ) from error
    if not in_order:
        raise typer.BadParameter("the period ends before it starts")
    return {"start": start, "end": end}


def _first_line(path: Path) -> str:
    try:
        return path.read_text("utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"GATEWAY_PASSWORD_FILE cannot be read: {path}") from error
