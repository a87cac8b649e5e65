from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import pytest

from deploy.local import dataset, layout
from deploy.local.programs import ROOT, StackError
from gateway import settings
from gateway.onboarding import spec
from gateway.onboarding.offer import Offer

LOCKS = [*ROOT.glob("*.lock"), *ROOT.glob("deploy/**/*.lock")]


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[.*\])?==(\S+)", lock.read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_lock_pins_every_package_by_hash_and_names_no_address(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert pins(lock)
    for entry in re.split(r"\n(?=\S)", text.strip()):
        assert "--hash=sha256:" in entry


def test_production_lock_holds_the_versions_that_are_tested() -> None:
    tested = pins(ROOT / "dev.lock")
    for name, version in pins(ROOT / "gateway.lock").items():
        assert tested[name] == version, name


def test_demo_clients_are_what_onboarding_takes() -> None:
    for client, project in (("acme", "flights"), ("globex", "weather")):
        found = spec.read(
            ROOT / f"deploy/demo/{client}.yaml", Offer(frozenset({"local"}), databases=True)
        )
        assert found.client == client
        assert list(found.projects) == [project]


def test_local_stack_sets_only_variables_the_gateway_knows() -> None:
    secrets = {f"GATEWAY_{name}_FILE" for name in settings.Settings.secrets}
    known = {*settings.names(), *secrets}
    source = (ROOT / "deploy/local/gateway.py").read_text()
    given = re.findall(r'^        "([A-Z_]+)":', source, re.MULTILINE)
    assert len(given) > 10
    assert {f"GATEWAY_{name}" for name in given} <= known


@pytest.mark.parametrize("given", ["x", "80", "-1", "65001", "1e4"])
def test_unusable_port_base_is_one_clear_line(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT_BASE", given)
    with pytest.raises(StackError, match=f"PORT_BASE={given} is not a number"):
        layout.Ports.from_environment()


def test_port_base_moves_every_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT_BASE", "30000")
    assert layout.Ports.from_environment() == layout.Ports(30000, 30001, 30002, 30003)


def test_year_is_cut_into_months_and_always_packed_alike(tmp_path: Path) -> None:
    table = b"year,month,flight\n2013,1,11\n2013,10,12\n2013,1,13\n2013,2,14\n"
    source = io.BytesIO()
    with zipfile.ZipFile(source, "w") as packed:
        packed.writestr("flights.csv", table)
    for name in ("first.zip", "second.zip"):
        source.seek(0)
        dataset._split_flights(source, tmp_path / name)
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "first.zip") as packed:
        assert packed.namelist() == [f"flights_2013_{month}.csv" for month in ("01", "02", "10")]
        assert packed.read("flights_2013_01.csv") == b"year,month,flight\n2013,1,11\n2013,1,13\n"
