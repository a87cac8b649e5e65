"""The operators' commands, as they are typed."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import joserfc.jwk
import joserfc.jws
import psycopg2
import pytest
import yaml

from tests import factories
from tests.nursery import Nursery

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def gateway(nursery: Nursery, environment: dict[str, str]) -> Run:
    return lambda *words, **changed: nursery.run(words, {**environment, **changed})


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    (tmp_path / "f.odcs.yaml").write_text(yaml.safe_dump(factories.CONTRACT))
    spec = {"client": "acme", "name": "Acme", "projects": {"flights": {"contract": "f.odcs.yaml"}}}
    path = tmp_path / "acme.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def test_clients_are_planned_applied_once_listed_and_offboarded(
    gateway: Run, spec_file: Path, environment: dict[str, str]
) -> None:
    registry = Path(environment["GATEWAY_AIRFLOW_REGISTRY_PATH"])
    planned = gateway("clients", "plan", str(spec_file))
    assert planned.returncode == 0, planned.stderr
    assert "acme: create client acme" in planned.stdout
    assert not registry.exists(), "a plan changes nothing"
    assert gateway("clients", "apply", str(spec_file)).stdout == planned.stdout
    assert json.loads(registry.read_text())["projects"][0]["dag_id"] == "acme__flights"
    again = gateway("clients", "apply", str(spec_file))
    assert again.stdout == "acme: nothing to change\n"
    assert gateway("clients", "list").stdout == "acme\tactive\tAcme\tflights\n"
    assert gateway("clients", "offboard", "acme").returncode == 0
    assert json.loads(registry.read_text())["projects"] == []
    assert gateway("clients", "offboard", "acme").returncode == 1
    assert "3 records hold" not in gateway("audit", "verify").stdout
    assert "2 records hold" in gateway("audit", "verify").stdout


def test_a_file_that_asks_for_the_impossible_changes_nothing_and_says_which_line(
    gateway: Run, spec_file: Path
) -> None:
    spec_file.write_text(spec_file.read_text() + "surprise: true\n")
    refused = gateway("clients", "apply", str(spec_file))
    assert refused.returncode == 1
    assert f"{spec_file}:6: surprise: " in refused.stderr
    assert gateway("clients", "list").stdout == ""


def test_a_project_asks_for_a_database_only_where_clients_have_one(
    gateway: Run, spec_file: Path, environment: dict[str, str]
) -> None:
    spec_file.write_text(spec_file.read_text() + "    load:\n      postgres: true\n")
    refused = gateway("clients", "plan", str(spec_file))
    assert refused.returncode == 1
    assert f"{spec_file}:7: projects.flights.load.postgres: this platform has no" in refused.stderr
    lends = {"GATEWAY_LEASES_POSTGRES_URL": "postgresql://lessor:x@127.0.0.1:9/postgres"}
    applied = gateway("clients", "apply", str(spec_file), **lends)
    assert applied.returncode == 0, applied.stderr
    registry = json.loads(Path(environment["GATEWAY_AIRFLOW_REGISTRY_PATH"]).read_text())
    assert registry["projects"][0]["load"] == {"postgres": True}
    assert (
        gateway("clients", "apply", str(spec_file), **lends).stdout == "acme: nothing to change\n"
    )


def test_the_exported_trail_ends_with_a_head_that_the_gateway_signed(
    gateway: Run, spec_file: Path, keys_dir: Path
) -> None:
    gateway("clients", "apply", str(spec_file))
    exported = gateway("audit", "export")
    *records, last = [json.loads(line) for line in exported.stdout.splitlines()]
    assert [each["action"] for each in records] == ["client.applied"]
    assert last["head"] == {"number": 1, "hash": records[0]["hash"]}
    pem = max(keys_dir.glob("*.pem")).read_text()
    opened = joserfc.jws.deserialize_compact(last["signed"], joserfc.jwk.ECKey.import_key(pem))
    assert json.loads(opened.payload) == last["head"]


def test_a_changed_record_is_found(
    gateway: Run, spec_file: Path, environment: dict[str, str]
) -> None:
    gateway("clients", "apply", str(spec_file))
    url = environment["GATEWAY_DATABASE_URL"].replace("+psycopg2", "")
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE audit_event DISABLE TRIGGER ALL")
        cursor.execute("UPDATE audit_event SET actor = 'somebody else'")
    connection.close()
    verified = gateway("audit", "verify")
    assert verified.returncode == 1
    assert verified.stderr == "record 1: a record was changed\n"


def test_keys_are_rotated_listed_and_recorded(
    gateway: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    own = {"GATEWAY_TOKENS_KEYS_DIR": str(tmp_path / "keys")}
    first = gateway("keys", "rotate", **own)
    assert first.returncode == 0, first.stderr
    assert re.fullmatch(r"key \S{43} signs from \S+Z\n", first.stdout)
    second = gateway("keys", "rotate", **own)
    assert second.returncode == 0, second.stderr
    again = gateway("keys", "rotate", **own)
    assert again.returncode == 1
    assert "still waiting" in again.stderr
    listed = [line.split("\t")[:2] for line in gateway("keys", "list", **own).stdout.splitlines()]
    assert listed == [
        [first.stdout.split()[1], "signing"],
        [second.stdout.split()[1], "waiting"],
    ]
    assert gateway("keys", "rotate", "--now", **own).returncode == 0
    exported = gateway("audit", "export", **own).stdout.splitlines()
    assert [json.loads(line).get("action") for line in exported[:-1]] == ["key.rotated"] * 3


def test_a_hold_is_set_listed_and_lifted(gateway: Run, spec_file: Path) -> None:
    gateway("clients", "apply", str(spec_file))
    words = ["--client", "acme", "--project", "flights", "--reason", "case 2026-17"]
    hold = gateway("holds", "set", *words).stdout.strip()
    assert hold.startswith("hld_")
    listed = gateway("holds", "list").stdout
    assert re.fullmatch(rf"{hold}\tacme\tflights\toperator:\S+\tcase 2026-17\n", listed)
    nobody = gateway("holds", "set", "--client", "nobody", "--reason", "x")
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert gateway("holds", "lift", hold).returncode == 0
    assert gateway("holds", "list").stdout == ""
    *records, _ = map(json.loads, gateway("audit", "export").stdout.splitlines())
    assert [each["action"] for each in records[1:]] == ["hold.set", "hold.lifted"]
    assert {each["subject"] for each in records[1:]} == {hold}


def test_tables_are_not_rebuilt_where_no_pipeline_is_at_hand(gateway: Run, spec_file: Path) -> None:
    gateway("clients", "apply", str(spec_file))
    refused = gateway("rebuild", "--project", "acme/flights")
    assert refused.returncode == 1
    assert "GATEWAY_PIPELINE_COMMAND" in refused.stderr


def test_an_empty_landing_zone_is_reconciled(gateway: Run) -> None:
    done = gateway("reconcile")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"files_checked": 0, "findings": []}


def test_migrate_is_a_no_op_on_the_newest_schema(gateway: Run) -> None:
    done = gateway("migrate")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"GATEWAY_TOKENS_ISSUER": ""}, "GATEWAY_TOKENS_ISSUER"),
        ({"GATEWAY_LDAP_URL": "ldap://127.0.0.1:1"}, "GATEWAY_LDAP_URL: use ldaps://"),
        ({"GATEWAY_LANDING_ROOT": "/nowhere"}, "GATEWAY_LANDING_ROOT: is not a directory"),
        ({"GATEWAY_LANDING_S3_URL": "s3://landing"}, "GATEWAY_LANDING_ROOT: give either it or"),
        ({"GATEWAY_LANDING_S3_URL": "http://landing"}, "GATEWAY_LANDING_S3_URL: "),
        ({"GATEWAY_TOKENS_KEYS_DIR": "/nowhere"}, "GATEWAY_TOKENS_KEYS_DIR"),
        ({"GATEWAY_SURPRISE": "1"}, "GATEWAY_SURPRISE: no such setting"),
    ],
)
def test_a_weak_configuration_is_refused_in_one_clear_line(
    gateway: Run, changed: dict[str, str], says: str
) -> None:
    refused = gateway("serve", **changed)
    assert refused.returncode == 1
    assert says in refused.stderr
    assert "Traceback" not in refused.stderr


def test_usage_errors_answer_2_and_every_command_shows_an_example(gateway: Run) -> None:
    assert gateway("clients", "apply").returncode == 2
    assert gateway("no-such-command").returncode == 2
    for words in (
        ["serve"],
        ["worker"],
        ["migrate"],
        ["reconcile"],
        ["clients", "plan"],
        ["clients", "apply"],
        ["clients", "list"],
        ["clients", "offboard"],
        ["audit", "verify"],
        ["audit", "export"],
        ["keys", "rotate"],
        ["keys", "list"],
    ):
        shown = gateway(*words, "--help")
        assert shown.returncode == 0, words
        assert f"gateway {' '.join(words)}" in shown.stdout, words
        assert "Example" in shown.stdout, words
