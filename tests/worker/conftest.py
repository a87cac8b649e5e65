"""The same as the messenger's tests start from."""

from __future__ import annotations

from tests.dispatch.conftest import airflow, desk, environment

__all__ = ["airflow", "desk", "environment"]
