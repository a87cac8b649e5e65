"""The pipeline honours every contract that onboarding takes; ``contracts.json`` holds both to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.contract import ContractError, read_contract
from pipeline.validate import Judge

VERDICTS = json.loads(
    (Path(__file__).parents[2] / "airflow" / "contract" / "contracts.json").read_text()
)


def document(case: dict[str, Any]) -> dict[str, Any]:
    table = case.get("table") or {"name": "t", "properties": [case["column"]]}
    return {"apiVersion": "v3.1.0", "kind": "DataContract", "schema": [table]}


def says(case: dict[str, Any]) -> str:
    return str(case["says"])


@pytest.mark.parametrize("case", VERDICTS["honoured"], ids=says)
def test_what_onboarding_takes_is_honoured(case: dict[str, Any]) -> None:
    (table,) = read_contract(document(case)).tables
    assert Judge(table).table is table


@pytest.mark.parametrize("case", VERDICTS["refused"], ids=says)
def test_what_cannot_be_honoured_is_refused_here_too(case: dict[str, Any]) -> None:
    with pytest.raises(ContractError):
        read_contract(document(case))
