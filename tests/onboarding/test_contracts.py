"""What a contract may ask for: the verdicts to which the pipeline's own reader is held as well."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.onboarding import contracts, spec
from gateway.onboarding.spec import SpecError
from tests.factories import CONTRACT

VERDICTS = json.loads(
    (Path(__file__).parents[2] / "airflow" / "contract" / "contracts.json").read_text()
)
REFUSED = [*VERDICTS["refused"], *VERDICTS["contradictory"]]


def contract_of(case: dict[str, Any]) -> dict[str, Any]:
    """Return a contract of one table, which a case describes, or one column of."""
    table = case.get("table") or {"name": "t", "properties": [case["column"]]}
    return {**CONTRACT, "schema": [table]}


def says(case: dict[str, Any]) -> str:
    return str(case["says"])


@pytest.mark.parametrize("case", VERDICTS["honoured"], ids=says)
def test_what_can_be_honoured_is_taken(case: dict[str, Any]) -> None:
    assert contracts.faults(contract_of(case)) == []


@pytest.mark.parametrize("case", REFUSED, ids=says)
def test_what_cannot_be_honoured_is_refused_at_its_place(case: dict[str, Any]) -> None:
    found = contracts.faults(contract_of(case))
    assert [each.pointer for each in found] == [f"schema/0/{case['place']}"], found


@pytest.mark.parametrize("version", ["v2.2.2", "v3.2.0", "3.0.0", None])
def test_another_version_of_the_standard_is_refused(version: str | None) -> None:
    (fault,) = contracts.faults({**CONTRACT, "apiVersion": version})
    assert fault.pointer == "apiVersion"


@pytest.mark.parametrize(
    ("one", "other", "is_refused"),
    [
        ((), (), True),
        (("a_*",), (), True),
        (("a_*",), ("a_*", "b"), True),
        (("a_*",), ("b_*",), False),
    ],
)
def test_tables_whose_files_cannot_be_told_apart_are_refused(
    one: tuple[str, ...], other: tuple[str, ...], *, is_refused: bool
) -> None:
    (table,) = copy.deepcopy(CONTRACT["schema"])
    tables = [
        {**table, "name": name, "customProperties": [{"property": "files", "value": list(files)}]}
        for name, files in (("one", one), ("other", other))
    ]
    found = [each.pointer for each in contracts.faults({**CONTRACT, "schema": tables})]
    assert found == (["schema/1"] if is_refused else [])


def test_a_contradiction_is_refused_at_its_line(tmp_path: Path) -> None:
    column = {
        "name": "x",
        "logicalType": "integer",
        "logicalTypeOptions": {"maximum": 3, "minimum": 4},
    }
    text = yaml.safe_dump(contract_of({"column": column}), sort_keys=False)
    (tmp_path / "f.odcs.yaml").write_text(text)
    at = next(n for n, line in enumerate(text.splitlines(), 1) if "minimum" in line)
    lines = ["client: acme", "name: Acme", "projects:", "  flights:", "    contract: f.odcs.yaml"]
    (tmp_path / "acme.yaml").write_text("\n".join(lines))
    with pytest.raises(SpecError) as refused:
        spec.read(tmp_path / "acme.yaml")
    (fault,) = refused.value.errors
    assert fault.pointer == f"{tmp_path}/f.odcs.yaml:{at}"
    assert fault.detail.endswith("minimum and maximum leave no value that can be right")
