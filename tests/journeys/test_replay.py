"""Deliveries processed again, corrected and rebuilt, on the real stack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.journeys.conftest import Stack
from tests.journeys.test_delivery import ended, flights
from tests.parts import REPOSITORY

TABLE = ("acme", "flights", "flights")


def sent(stack: Stack, path: Path, reference: str, **fields: Any) -> dict[str, Any]:
    """Deliver one file through the doors, and return its job when it has ended."""
    headers, url = stack.sign_in("ACME"), stack["GATEWAY_URL"]
    wanted = {"project": "flights", "reference": reference, **fields}
    batch = httpx.post(f"{url}/v1/batches", json=wanted, headers=headers).json()["id"]
    place = f"{url}/v1/batches/{batch}"
    put = httpx.put(f"{place}/files/{path.name}", content=path.read_bytes(), headers=headers)
    assert put.status_code == 201, put.text
    job = httpx.post(f"{place}/seal", headers=headers).json()["job"]["id"]
    return ended(stack, "ACME", job)


def replayed(stack: Stack, batch: str, **choice: str) -> dict[str, Any]:
    answer = httpx.post(
        f"{stack['GATEWAY_URL']}/v1/batches/{batch}/replays",
        json={"reason": "corrected", **choice},
        headers=stack.sign_in("ACME_OPERATOR"),
    )
    assert answer.status_code == 202, answer.text
    return ended(stack, "ACME_OPERATOR", answer.json()["id"])


def onboard(stack: Stack, directory: Path, longest: int) -> None:
    """Apply acme's file with another bound on a flight's distance."""
    demo = REPOSITORY / "deploy" / "demo"
    contract = yaml.safe_load((demo / "flights.odcs.yaml").read_text())
    (column,) = [each for each in contract["schema"][0]["properties"] if each["name"] == "distance"]
    column["logicalTypeOptions"] = {**column.get("logicalTypeOptions", {}), "maximum": longest}
    (directory / "flights.odcs.yaml").write_text(yaml.safe_dump(contract))
    (directory / "acme.yaml").write_text((demo / "acme.yaml").read_text())
    done = stack.operate("clients", "apply", str(directory / "acme.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_corrected_contract_a_correction_and_a_rebuild_change_the_rows_they_should(
    stack: Stack, tmp_path: Path
) -> None:
    lines = flights(5, 500).splitlines()
    far = lines[1].replace(",1400,", ",2400,")
    path = tmp_path / "flights_2013_05.csv"
    path.write_text("\n".join([lines[0], far, *lines[2:]]) + "\n")
    job = sent(stack, path, "may")
    batch, count = job["batch"], f"select count(*) from t where _batch_id = '{job['batch']}'"
    assert job["rows"]["loaded"] == 500, job

    onboard(stack, tmp_path, 2000)
    try:
        corrected = replayed(stack, batch)
        assert corrected["rows"] == {"read": 500, "loaded": 499, "rejected": 1}
        assert corrected["changes"]["contract_changed"] is True
        assert corrected["changes"]["rejects"] == {"new": 1, "gone": 0, "is_complete": True}
        assert stack.rows(*TABLE, count) == [[499]]
        staged = replayed(stack, batch, **{"from": "staged"})
        assert (staged["rows"], staged["starts_from"]) == (corrected["rows"], "staged")
        assert staged["changes"]["files_changed"] == 0
        assert stack.rows(*TABLE, count) == [[499]]
    finally:
        onboard(stack, tmp_path, 12_500)

    path.write_text(flights(5, 30))
    newer = sent(stack, path, "may-corrected", supersedes=batch)
    assert newer["rows"]["loaded"] == 30, newer
    assert stack.rows(*TABLE, count) == [[0]]

    exact = "* replace (epoch_us(time_hour) as time_hour)"
    every = f"select {exact} from t order by _batch_id, _file, _line"
    original = stack.rows(*TABLE, every)
    rebuilt = stack.operate("rebuild", "--project", "acme/flights")
    assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
    assert json.loads(rebuilt.stdout)["tables"] == {"flights": len(original)}
    assert stack.rows(*TABLE, every) == original
