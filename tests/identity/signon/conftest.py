"""The gateway as browsers and applications meet it, and somebody who signs on."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from deploy.local.directory import Directory as DirectoryServer
from tests.identity.conftest import Start
from tests.identity.signon.signing_on import served


@pytest.fixture
def client(start: Start) -> TestClient:
    return served(start)


@pytest.fixture
def operator(directory_server: DirectoryServer) -> tuple[str, str]:
    """A name and a password of a client's."""
    return "acme-operator", directory_server.passwords["acme-operator"]
