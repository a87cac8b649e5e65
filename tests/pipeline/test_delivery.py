"""Whose delivery it is, and that it is what was sealed."""

from __future__ import annotations

import base64
import hmac
import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey

from pipeline import tasks
from pipeline.delivery import ConfError, is_safe_name
from pipeline.errors import DeliveryError

if TYPE_CHECKING:
    from tests.pipeline.conftest import Stage

GOOD = b"flight,carrier,delay\n1,AA,2.5\n"


def plan(stage: Stage, batch: str, conf: dict[str, Any] | None = None, run_id: str = "") -> Any:
    conf = conf if conf is not None else stage.conf(batch)
    run = stage.task("plan", stage.conf(batch))
    if run_id:
        run = tasks.TaskRun(run.dag_id, run_id, "plan", -1, 1)
    return tasks.plan(stage.entry, conf, run)


@pytest.mark.parametrize(
    "change",
    [
        {"client": "globex"},
        {"project": "other"},
        {"contract": 2},
        {"contract": True},
        {"contract": "1"},
        {"attempt": 0},
        {"attempt": "1"},
        {"batch_id": "../globex/flights/bat_00000000000000000000000001"},
        {"batch_id": "bat_00000000000000000000000001\n"},
        {"batch_id": None},
        {"job_id": "job_0000000000000000000000zzzz"},
        {"landing": "/"},
    ],
)
def test_a_conf_that_the_gateway_did_not_make_for_this_dag_is_refused(
    stage: Stage, change: dict[str, Any]
) -> None:
    batch = stage.land({"a.csv": GOOD})
    with pytest.raises(ConfError):
        plan(stage, batch, {**stage.conf(batch), **change})
    assert stage.gateway.reports == []


def test_a_conf_that_lacks_a_key_or_is_none_is_refused(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD})
    conf = stage.conf(batch)
    for lacking in conf:
        with pytest.raises(ConfError):
            plan(stage, batch, {k: v for k, v in conf.items() if k != lacking})
    with pytest.raises(ConfError):
        tasks.plan(stage.entry, None, stage.task("plan", conf))


def test_a_run_that_is_not_named_for_its_job_is_refused(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD})
    with pytest.raises(ConfError):
        plan(stage, batch, run_id="gw.job_00000000000000000000000099")
    for run_id in ("manual__2026-01-01", ""):
        # With the right conf as well as with none.
        for conf in (stage.conf(batch), {}, None):
            run = replace(stage.task("plan", stage.conf(batch)), run_id=run_id)
            with pytest.raises(ConfError, match=r"by hand.*ask the gateway for a replay"):
                tasks.plan(stage.entry, conf, run)
    assert stage.gateway.reports == []
    assert not list((stage.root / "staged").iterdir())


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "-x", "a/b", "a\\b", "a\x00", "a\n", "x" * 256, "a\u202e", 1]
)
def test_a_name_that_no_landed_file_can_have_is_not_safe(name: object) -> None:
    assert not is_safe_name(name)
    assert is_safe_name("Flüge 2013 (1).csv")


def test_a_changed_file_is_refused(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD})
    (stage.batch_dir(batch) / "files" / "a.csv").write_bytes(GOOD.replace(b"AA", b"UA"))
    with pytest.raises(DeliveryError, match=r"digest-mismatch: a\.csv"):
        plan(stage, batch)


def test_a_missing_file_is_refused(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD})
    (stage.batch_dir(batch) / "files" / "a.csv").unlink()
    with pytest.raises(DeliveryError, match=r"missing-file: a\.csv"):
        plan(stage, batch)


@pytest.mark.parametrize("where", ["files/a.csv", "files", "manifest.json", "."])
def test_no_link_is_followed_below_the_landing_root(stage: Stage, where: str) -> None:
    batch = stage.land({"a.csv": GOOD})
    place = stage.batch_dir(batch) / where
    elsewhere = stage.root / "elsewhere"
    shutil.move(place, elsewhere)
    place.symlink_to(elsewhere)
    with pytest.raises(DeliveryError, match="missing-file"):
        plan(stage, batch)


@pytest.mark.parametrize(
    "change",
    [
        {"client": "globex"},
        {"project": "other"},
        {"batch": "bat_00000000000000000000000009"},
        {"contract": 2},
        {"mode": "delete"},
        {"supersedes": "' OR 1=1"},
        {"files": [{"name": "../../x", "sha256": "0" * 64, "size_bytes": 1}]},
        {"files": [{"name": "a.csv", "sha256": "0" * 63, "size_bytes": 1}]},
        {"files": [{"name": "a.csv", "sha256": "0" * 64, "size_bytes": -1}]},
        {"files": [{"name": "a.csv", "sha256": "0" * 64, "size_bytes": 1, "path": "/"}]},
        {"files": None},
    ],
)
def test_a_signed_manifest_of_another_batch_or_without_sense_is_refused(
    stage: Stage, change: dict[str, Any]
) -> None:
    batch = stage.land({"a.csv": GOOD})
    path = stage.batch_dir(batch) / "manifest.json"
    content = json.dumps({**json.loads(path.read_text()), **change}).encode()
    path.write_bytes(content)
    (stage.batch_dir(batch) / "receipt.jws").write_bytes(stage.gateway.sign(content))
    with pytest.raises(DeliveryError, match="bad-manifest"):
        plan(stage, batch)


def test_a_manifest_with_a_key_twice_is_refused(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD})
    path = stage.batch_dir(batch) / "manifest.json"
    content = path.read_bytes()[:-1] + b',"mode":"load"}'
    path.write_bytes(content)
    (stage.batch_dir(batch) / "receipt.jws").write_bytes(stage.gateway.sign(content))
    with pytest.raises(DeliveryError, match="bad-manifest"):
        plan(stage, batch)


def encoded(header: dict[str, str]) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=")


def hmac_signed(header: dict[str, str], payload: bytes, key: ECKey) -> bytes:
    text = encoded(header) + b"." + payload
    digest = hmac.digest(key.as_pem(private=False), text, "sha256")
    return text + b"." + base64.urlsafe_b64encode(digest).rstrip(b"=")


def forgeries(stage: Stage, content: bytes) -> dict[str, bytes]:
    """Make receipts that must not be believed."""
    gateway = stage.gateway
    other = ECKey.generate_key("P-256")
    header = {"alg": "ES256", "kid": gateway.key.kid, "typ": "receipt+jws"}
    signed = gateway.sign(content)
    head, payload, signature = signed.split(b".")
    return {
        "another key": jws.serialize_compact(header, content, other).encode(),
        "another key in the header": jws.serialize_compact(
            {**header, "jwk": other.as_dict(private=False)}, content, other
        ).encode(),
        "public key as secret": hmac_signed({**header, "alg": "HS256"}, payload, gateway.key),
        "no algorithm": encoded({**header, "alg": "none"}) + b"." + payload + b".",
        "another kid": gateway.sign(content, kid="other"),
        "an access token's type": gateway.sign(content, typ="at+jwt"),
        "another type": gateway.sign(content, typ="JWT"),
        "of other bytes": gateway.sign(content + b" "),
        "without signature": head + b"." + payload + b".",
        "cut short": signed[:-4],
        "not base64": head + b"." + payload + b".!" + signature,
        "nothing": b"",
        "not ascii": b"\xff\xfe",
    }


def test_no_forged_receipt_is_believed(stage: Stage) -> None:
    batch = stage.land({"a.csv": GOOD})
    receipt = stage.batch_dir(batch) / "receipt.jws"
    content = (stage.batch_dir(batch) / "manifest.json").read_bytes()
    for name, forged in forgeries(stage, content).items():
        receipt.write_bytes(forged)
        with pytest.raises(DeliveryError, match="bad-receipt"):
            pytest.fail(f"believed: {name}, {plan(stage, batch)}")
    receipt.write_bytes(stage.gateway.sign(content))
    assert plan(stage, batch)


def test_a_receipt_of_ten_thousand_files_is_read(stage: Stage) -> None:
    row = b"flight,carrier,delay\n1,AA,2\n"
    batch = stage.land({f"{i:05d} {'x' * 60}.csv": row for i in range(1200)})
    assert len((stage.batch_dir(batch) / "manifest.json").read_bytes()) > 128_000
    assert len(plan(stage, batch)) <= 64
