from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.onboarding import spec
from gateway.onboarding.offer import Offer
from gateway.onboarding.spec import SpecError
from tests.factories import CONTRACT

EVERYTHING = Offer(frozenset({"local", "spark"}), databases=True)


def document(**changes: Any) -> dict[str, Any]:
    base = {
        "client": "acme",
        "name": "Acme Air",
        "limits": {"file_bytes": "50GiB", "batch_bytes": 1000},
        "projects": {"flights": {"contract": copy.deepcopy(CONTRACT)}},
    }
    return {**base, **changes}


def limited_project(**limits: Any) -> dict[str, Any]:
    return {"projects": {"flights": {"contract": CONTRACT, "limits": limits}}}


def into_postgres(project: str, *columns: str, **changes: Any) -> dict[str, Any]:
    contract: dict[str, Any] = copy.deepcopy(CONTRACT)
    properties = contract["schema"][0]["properties"]
    properties += [{"name": each, "logicalType": "string"} for each in columns]
    return {"projects": {project: {"contract": contract, "load": {"postgres": True}, **changes}}}


def test_sizes_and_defaults_are_understood() -> None:
    parsed = spec.parse(document())
    assert parsed.limits.file_bytes == 50 * 1024**3
    assert parsed.limits.batch_bytes == 1000
    assert parsed.limits.open_batches == 20
    assert parsed.projects["flights"].retention.landing == "90d"
    assert parsed.projects["flights"].on_reject.policy == "reject-rows"
    assert parsed.limits.bytes_per_day is None
    assert parsed.projects["flights"].limits.given() == {}


def test_a_project_may_have_narrower_limits_of_its_own() -> None:
    changes = limited_project(file_bytes="50GiB", batch_bytes=1000, bytes_per_day="1 TiB")
    parsed = spec.parse(document(**changes))
    given = {"file_bytes": 50 * 1024**3, "batch_bytes": 1000, "bytes_per_day": 1024**4}
    assert parsed.projects["flights"].limits.given() == given
    assert spec.parse(parsed.model_dump()) == parsed
    assert spec.parse(parsed.model_dump(mode="json")) == parsed


def test_an_engine_is_taken_where_the_platform_has_it_and_refused_at_its_line_elsewhere(
    tmp_path: Path,
) -> None:
    (tmp_path / "f.odcs.yaml").write_text(yaml.safe_dump(CONTRACT))
    lines = ["client: acme", "name: Acme", "projects:", "  flights:"]
    lines += ["    contract: f.odcs.yaml", "    engine: spark"]
    path = tmp_path / "acme.yaml"
    path.write_text("\n".join(lines))
    assert spec.read(path, EVERYTHING).projects["flights"].engine == "spark"
    with pytest.raises(SpecError) as refused:
        spec.read(path)
    (fault,) = refused.value.errors
    assert fault.pointer == f"{path}:6"
    assert fault.detail == "projects.flights.engine: this platform has no spark"


def test_a_limit_above_the_clients_is_refused_at_its_line(tmp_path: Path) -> None:
    (tmp_path / "f.odcs.yaml").write_text(yaml.safe_dump(CONTRACT))
    lines = ["client: acme", "name: Acme", "limits: {bytes_per_day: 1GiB}"]
    lines += ["projects:", "  flights:", "    contract: f.odcs.yaml"]
    lines += ["    limits:", "      file_bytes: 1GiB", "      bytes_per_day: 2GiB"]
    (tmp_path / "acme.yaml").write_text("\n".join(lines))
    with pytest.raises(SpecError) as refused:
        spec.read(tmp_path / "acme.yaml")
    (fault,) = refused.value.errors
    assert fault.pointer == f"{tmp_path}/acme.yaml:9"
    assert fault.detail.startswith("projects.flights.limits.bytes_per_day: 2147483648 is more than")


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"client": "Acme"}, "client"),
        ({"client": "../acme"}, "client"),
        ({"limits": {"file_bytes": "lots"}}, "limits/file_bytes"),
        ({"limits": {"file_bites": 1}}, "limits/file_bites"),
        ({"limits": {"open_batches": True}}, "limits/open_batches"),
        ({"limits": {"bytes_per_day": 0}}, "limits/bytes_per_day"),
        (limited_project(file_bytes="lots"), "projects/flights/limits/file_bytes"),
        (limited_project(open_batches=True), "projects/flights/limits/open_batches"),
        (limited_project(bytes_per_day=True), "projects/flights/limits/bytes_per_day"),
        (limited_project(bytes_per_day=0), "projects/flights/limits/bytes_per_day"),
        (limited_project(requests_per_second=1), "projects/flights/limits/requests_per_second"),
        (limited_project(batch_bytes=1001), "projects/flights/limits/batch_bytes"),
        (limited_project(open_batches=21), "projects/flights/limits/open_batches"),
        ({"projects": {}}, "projects"),
        ({"projects": {"a/b": {"contract": CONTRACT}}}, "projects/a/b"),
        ({"projects": {"f": {"contract": CONTRACT, "engine": "spark"}}}, "projects/f/engine"),
        ({"projects": {"f": {"contract": {}}}}, "projects/f/contract/apiVersion"),
        (into_postgres("f", load={"postgres": "yes"}), "projects/f/load/postgres"),
        (into_postgres("f", load={"oracle": True}), "projects/f/load/oracle/[key]"),
        (into_postgres("f"), "projects/f/load/postgres"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_an_impossible_file_is_refused_where_it_is_wrong(
    changes: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(SpecError) as refused:
        spec.parse(document(**changes))
    assert pointer in [fault.pointer for fault in refused.value.errors]


def test_the_line_of_a_fault_is_named_in_the_file_that_holds_it(tmp_path: Path) -> None:
    contract = copy.deepcopy(CONTRACT)
    contract["schema"][0]["properties"][1]["logicalType"] = "magic"
    (tmp_path / "f.odcs.yaml").write_text(yaml.safe_dump(contract, sort_keys=False))
    lines = ["client: acme", "name: Acme", "limits: {file_bytes: lots}"]
    lines += ["projects:", "  flights:", "    contract: f.odcs.yaml"]
    (tmp_path / "acme.yaml").write_text("\n".join(lines))
    with pytest.raises(SpecError) as refused:
        spec.read(tmp_path / "acme.yaml")
    assert refused.value.errors[0].pointer == f"{tmp_path}/acme.yaml:3"
    (tmp_path / "acme.yaml").write_text("\n".join([*lines[:2], *lines[3:]]))
    with pytest.raises(SpecError) as refused:
        spec.read(tmp_path / "acme.yaml")
    text = (tmp_path / "f.odcs.yaml").read_text().splitlines()
    line = next(n for n, each in enumerate(text, 1) if "magic" in each)
    assert refused.value.errors[0].pointer == f"{tmp_path}/f.odcs.yaml:{line}"


def test_a_missing_contract_names_the_line_that_asks_for_it(tmp_path: Path) -> None:
    text = "client: acme\nname: Acme\nprojects:\n  flights:\n    contract: nowhere.yaml\n"
    (tmp_path / "acme.yaml").write_text(text)
    with pytest.raises(SpecError) as refused:
        spec.read(tmp_path / "acme.yaml")
    assert refused.value.errors[0].pointer == f"{tmp_path}/acme.yaml:5"


def test_broken_yaml_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "acme.yaml").write_text("client: acme\nname: [")
    with pytest.raises(SpecError) as refused:
        spec.read(tmp_path / "acme.yaml")
    assert refused.value.errors[0].pointer.startswith(f"{tmp_path}/acme.yaml:")


def test_a_project_may_be_loaded_into_its_clients_database() -> None:
    wanted = document(**into_postgres("f-1_a", "ß" * 31, "Größe", "a" * 63))
    parsed = spec.parse(wanted, EVERYTHING)
    assert parsed.projects["f-1_a"].load == {"postgres": True}
    assert spec.parse(parsed.model_dump(mode="json"), EVERYTHING) == parsed
    assert spec.parse(document(**into_postgres("fl", load={"postgres": False})))
    assert spec.parse(document(**into_postgres("pg_x", "a" * 64, load={})))


@pytest.mark.parametrize(
    ("project", "columns", "pointer"),
    [
        ("pg_catalog", [], "projects/pg_catalog/load/postgres"),
        ("information_schema", [], "projects/information_schema/load/postgres"),
        ("public", [], "projects/public/load/postgres"),
        ("fl", ["a" * 64], "projects/fl/contract/schema/0/properties/{}/name"),
        ("fl", ["ß" * 32], "projects/fl/contract/schema/0/properties/{}/name"),
        ("fl", ["ctid"], "projects/fl/contract/schema/0/properties/{}/name"),
        ("fl", [f"c{n}" for n in range(1_597)], "projects/fl/contract/schema/0/properties"),
    ],
)
def test_what_cannot_be_in_postgres_is_refused_where_it_is_named(
    project: str, columns: list[str], pointer: str
) -> None:
    with pytest.raises(SpecError) as refused:
        spec.parse(document(**into_postgres(project, *columns)), EVERYTHING)
    number = len(CONTRACT["schema"][0]["properties"])
    assert [each.pointer for each in refused.value.errors] == [pointer.format(number)]
