from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import node
from tests.fakes.proxy import Proxy, running
from tests.faults.conftest import (  # noqa: F401 - fixtures
    acme,
    check,
    history,
    steady,
)
from tests.faults.history import Client
from tests.parts import GatewayServer
from tests.tus.driving import Delivery, TusJs, TusPy


@pytest.fixture(scope="session")
def tus_js() -> TusJs:
    """tus-js-client, installed by npm where `make bootstrap` could not."""
    environment = Path(sys.prefix)
    node.ensure(environment)
    program, _ = node.programs_of(environment)
    return TusJs(program, node.INSTALLED)


@pytest.fixture(params=["tuspy", "tus-js-client"])
def sender(request: pytest.FixtureRequest) -> TusPy | TusJs:
    """Each of the two clients in turn."""
    if request.param == "tuspy":
        return TusPy()
    found: TusJs = request.getfixturevalue("tus_js")
    return found


@pytest.fixture
def proxy(steady: GatewayServer) -> Iterator[Proxy]:  # noqa: F811
    """A proxy before the steady server; give it plans."""
    with running([steady.port]) as started:
        yield started


@pytest.fixture
def delivery(acme: Client, proxy: Proxy, tmp_path: Path) -> Delivery:  # noqa: F811
    """A batch to which files are sent through the proxy."""
    return Delivery(acme, proxy, acme.batch("tus"), tmp_path)
