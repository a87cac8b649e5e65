"""The landing zone, for tasks: a path where they share the gateway's disk, else a pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from gateway.identity import passes
from gateway.landing.zone import BatchPath
from gateway.leases.resources.driver import Connection, Purpose, ResourceUnavailableError

PORTS = {"http": 80, "https": 443}


class LandingPath:
    """Tells tasks beside the gateway where their batch lies. A path is no secret and stays true.

    Who may read there is the file system's affair: the workers' account has no right to write.
    """

    name = "landing-path"

    def __init__(self, root: Path) -> None:
        self._root = root

    def handle(self, purpose: Purpose) -> dict[str, Any]:
        """Return nothing: there is nothing to revoke."""
        del purpose
        return {}

    def issue(self, purpose: Purpose, seconds: float) -> Connection:
        """Return the path of the batch."""
        del seconds
        place = BatchPath(purpose.client, purpose.project, purpose.batch)
        return Connection("fs", extra={"path": str(self._root.joinpath(*astuple(place)))})

    def renew(self, handle: dict[str, Any], seconds: float) -> None:
        """Do nothing."""

    def revoke(self, handle: dict[str, Any]) -> None:
        """Do nothing."""


class LandingPass:
    """Gives tasks a URL of the gateway, and a token that opens the files of one batch there."""

    name = "landing-pass"

    def __init__(self, sessions: sessionmaker[Session], url: str) -> None:
        self._sessions = sessions
        self._url = url.rstrip("/")

    def handle(self, purpose: Purpose) -> dict[str, Any]:
        """Return the id of the pass."""
        return {"pass": purpose.lease}

    def issue(self, purpose: Purpose, seconds: float) -> Connection:
        """Make a pass."""
        with self._transaction() as session:
            token = passes.grant(
                session,
                purpose.lease,
                client=purpose.client,
                batch_id=purpose.batch,
                seconds=seconds,
            )
        address = urlsplit(self._url)
        return Connection(
            "http",
            host=address.hostname,
            port=address.port or PORTS[address.scheme],
            schema=address.scheme,
            password=token,
            extra={"batch_url": f"{self._url}/v1/batches/{purpose.batch}"},
        )

    def renew(self, handle: dict[str, Any], seconds: float) -> None:
        """Prolong the pass."""
        with self._transaction() as session:
            found = passes.prolong(session, handle["pass"], seconds)
        if not found:
            raise ResourceUnavailableError("gone")

    def revoke(self, handle: dict[str, Any]) -> None:
        """Take the pass back: the next request finds it gone."""
        with self._transaction() as session:
            passes.withdraw(session, handle["pass"])

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        try:
            with self._sessions.begin() as session:
                yield session
        except SQLAlchemyError as error:
            raise ResourceUnavailableError(type(error).__name__) from None
