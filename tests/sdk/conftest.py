"""A gateway that can fail, and a client of it that loses no time between attempts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.sdk.client import GatewayClient
from gateway.sdk.transport import RetryPolicy
from tests.fakes import gateway_api
from tests.fakes.gateway_api import PASSWORD, USER

QUICK = RetryPolicy(deadline_seconds=5.0, base_seconds=0.01, cap_seconds=0.05)


@pytest.fixture
def api() -> Iterator[gateway_api.State]:
    """Run a gateway."""
    with gateway_api.running() as state:
        yield state


@pytest.fixture
def gateway(api: gateway_api.State) -> Iterator[GatewayClient]:
    """Return a client of it."""
    with GatewayClient(api.url, USER, PASSWORD, policy=QUICK) as client:
        yield client


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Return a function that writes a local file."""

    def write_file(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write_file
