"""Two environments, two sets of tests: each run collects those of the one it runs in."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

AIRFLOW_SIDE = ("auth_manager", "dags", "pipeline", "provider", "spark")
NEUTRAL = ("fakes",)
JOURNEYS = "tests/journeys/"

if importlib.util.find_spec("ldap3") is not None:
    pytest_plugins = ["tests.parts", "tests.stores"]
    collect_ignore = list(AIRFLOW_SIDE)
else:
    folders = (path.name for path in Path(__file__).parent.iterdir() if path.is_dir())
    collect_ignore = [name for name in folders if name not in (*AIRFLOW_SIDE, *NEUTRAL)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the journeys first, and large files before small: two processes end at the same time."""
    sizes = Counter(item.path for item in items)
    items.sort(key=lambda item: (scope_of(item.nodeid) != JOURNEYS, -sizes[item.path]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file together, and all journeys: they share one running stack."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    config.option.loadscopereorder = False
    return Scheduling(config, log)


def scope_of(nodeid: str) -> str:
    """Return what one process runs as a whole."""
    path = nodeid.split("::", 1)[0]
    return JOURNEYS if path.startswith(JOURNEYS) else path
