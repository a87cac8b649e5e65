"""Two environments, two sets of tests: each run collects those of the one it runs in."""

from __future__ import annotations

import importlib.util
from pathlib import Path

AIRFLOW_SIDE = ("auth_manager", "dags", "pipeline", "provider")
NEUTRAL = ("fakes",)

if importlib.util.find_spec("ldap3") is not None:
    pytest_plugins = ["tests.parts", "tests.stores"]
    collect_ignore = list(AIRFLOW_SIDE)
else:
    folders = (path.name for path in Path(__file__).parent.iterdir() if path.is_dir())
    collect_ignore = [name for name in folders if name not in (*AIRFLOW_SIDE, *NEUTRAL)]
