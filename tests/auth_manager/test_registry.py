"""The registry decides what belongs to whom."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ingest.registry import Registry
from tests.auth_manager.minting import ROOT

if TYPE_CHECKING:
    from pathlib import Path

GOLDEN = (ROOT / "airflow/contract/registry.json").read_text()


def registry(path: Path, text: str | None) -> Registry:
    if text is not None:
        path.write_text(text)
    return Registry(path)


def entry(client: str, dag_id: str, pool: str) -> dict[str, Any]:
    return {"client": client, "dag_id": dag_id, "pool": pool}


def test_golden_registry_is_understood(tmp_path: Path) -> None:
    current = registry(tmp_path / "registry.json", GOLDEN).current()
    assert current.client_by_dag == {"acme__flights": "acme"}
    assert current.client_by_pool == {"client-acme": "acme"}
    assert current.dag_ids("acme") == {"acme__flights"}
    assert current.dag_ids("globex") == set()
    assert current.dag_ids(None) == set()


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "null",
        '{"version": 2, "projects": []}',
        '{"projects": []}',
        '{"version": 1}',
        '{"version": 1, "projects": {"a": 1}}',
        '{"version": 1, "projects": [{"dag_id": "acme__flights"}]}',
        '{"version": 1, "projects": [{"dag_id": [], "client": "acme", "pool": "p"}]}',
        "[" * 100_000,
    ],
)
def test_missing_or_broken_registry_grants_nothing(tmp_path: Path, text: str | None) -> None:
    current = registry(tmp_path / "registry.json", text).current()
    assert (current.client_by_dag, current.client_by_pool) == ({}, {})


def test_replaced_registry_is_seen_at_once(tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    seen = registry(path, GOLDEN)
    assert seen.current().dag_ids("acme")
    assert seen.current() is seen.current()
    fresh = tmp_path / "new"
    fresh.write_text(GOLDEN.replace('"acme"', '"zeta"'))
    fresh.replace(path)
    assert not seen.current().dag_ids("acme")
    assert seen.current().dag_ids("zeta")
    path.unlink()
    assert not seen.current().dag_ids("zeta")


def test_name_that_two_clients_claim_belongs_to_neither(tmp_path: Path) -> None:
    projects = [
        entry("acme", "acme__flights", "client-acme"),
        entry("acme", "acme__hotels", "client-acme"),
        entry("globex", "acme__flights", "client-acme"),
    ]
    text = json.dumps({"version": 1, "projects": projects})
    current = registry(tmp_path / "registry.json", text).current()
    assert current.client_by_dag == {"acme__hotels": "acme"}
    assert current.client_by_pool == {}
