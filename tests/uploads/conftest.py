from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from deploy.local.directory import Directory as DirectoryServer
from tests import factories
from tests.parts import GatewayServer
from tests.uploads.sending import Books, Line, Sender, signed_in

Bearer = Callable[[str], dict[str, str]]


@pytest.fixture
def books(sessions: sessionmaker[Session], environment: dict[str, str]) -> Books:
    return Books(sessions, Path(environment["GATEWAY_LANDING_ROOT"]))


@pytest.fixture
def onboarded(sessions: sessionmaker[Session]) -> None:
    factories.onboard_two(sessions)


@pytest.fixture
def acme(client: TestClient, bearer: Bearer, onboarded: None) -> Sender:
    """Client A's own machine."""
    return Sender(client, bearer("acme-uploader"))


@pytest.fixture
def globex(client: TestClient, bearer: Bearer, onboarded: None) -> Sender:
    """Client B's own machine."""
    return Sender(client, bearer("globex-uploader"), "weather")


@pytest.fixture
def wired(
    server: GatewayServer, directory_server: DirectoryServer, onboarded: None
) -> Iterator[Sender]:
    """Client A's own machine, at a real server."""
    password = directory_server.passwords["acme-uploader"]
    with httpx.Client(base_url=server.url, timeout=30, verify=False) as speaker:
        yield Sender(speaker, signed_in(server, "acme-uploader", password))


@pytest.fixture
def line(server: GatewayServer, wired: Sender) -> Callable[[], Line]:
    """Open a connection of one's own to the real server."""
    return lambda: Line(server.port, wired.headers)
