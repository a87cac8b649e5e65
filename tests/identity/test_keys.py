"""The key ring: where keys lie, who signs, what other libraries make of it."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime, timedelta
from pathlib import Path

import joserfc.jwk
import joserfc.jws
import jwt
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session, sessionmaker

from gateway import settings
from gateway.audit.model import AuditEvent
from gateway.identity import keys, rotation, tokens
from gateway.settings import SettingsError

CONTRACT = Path(__file__).parents[2] / "airflow" / "contract" / "token_claims.json"
CONFIG = settings.Tokens(issuer="https://gateway.example", keys_dir=Path("/none"))


@pytest.fixture
def ring_dir(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    keys.rotate(path)
    return path


def verified(ring: tokens.KeyRing, token: str) -> dict[str, object]:
    return ring.verify(token, issuer="i", audience="a")


def claims() -> dict[str, object]:
    return tokens.claims_for("i", "a", "s", "x", 60)


def test_keys_are_files_that_only_their_owner_reads(ring_dir: Path) -> None:
    assert ring_dir.stat().st_mode & 0o777 == 0o700
    (name,) = keys.names(ring_dir)
    assert (ring_dir / name).stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"\d{8}T\d{12}Z-[A-Za-z0-9_-]{43}\.pem", name)
    assert [path.name for path in ring_dir.iterdir()] == [name]


def test_a_running_ring_signs_with_the_new_key_and_still_verifies_the_old(ring_dir: Path) -> None:
    ring = tokens.KeyRing.load(ring_dir)
    before = ring.sign(claims())
    kid = keys.rotate(ring_dir).kid
    after = ring.sign(claims())
    assert jwt.get_unverified_header(after)["kid"] == kid
    assert jwt.get_unverified_header(before)["kid"] != kid
    published = [key["kid"] for key in ring.jwks()["keys"]]
    assert published == [kid, jwt.get_unverified_header(before)["kid"]]
    for token in (before, after):
        assert verified(ring, token)["sub"] == "s"
        assert verified(tokens.KeyRing.load(ring_dir), token)["sub"] == "s"


def test_a_key_that_is_taken_away_verifies_no_more(ring_dir: Path) -> None:
    ring = tokens.KeyRing.load(ring_dir)
    token = ring.sign(claims())
    assert verified(ring, token)
    (old,) = keys.names(ring_dir)
    keys.rotate(ring_dir)
    (ring_dir / old).unlink()
    with pytest.raises(tokens.InvalidTokenError):
        verified(ring, token)


def test_a_damaged_new_key_does_not_stop_a_running_ring(ring_dir: Path) -> None:
    ring = tokens.KeyRing.load(ring_dir)
    damaged = ring_dir / "99990101T000000000000Z-x.pem"
    damaged.touch(0o600)
    assert verified(ring, ring.sign(claims()))


def test_a_receipt_is_the_bytes_it_signs(ring_dir: Path) -> None:
    ring = tokens.KeyRing.load(ring_dir)
    payload = '{"ä":1}'.encode()
    receipt = ring.sign_bytes(payload)
    published = joserfc.jwk.KeySet.import_key_set(ring.jwks())
    opened = joserfc.jws.deserialize_compact(receipt, published, algorithms=["ES256"])
    assert opened.payload == payload
    assert opened.headers() == {
        "alg": "ES256",
        "kid": published.keys[0].kid,
        "typ": "receipt+jws",
    }


def test_the_gateways_own_tokens_are_those_of_the_contract(ring_dir: Path) -> None:
    contract = json.loads(CONTRACT.read_text())
    ring = tokens.KeyRing.load(ring_dir)
    minted = {
        "trigger": tokens.mint_trigger(ring, CONFIG, "airflow", "acme", "acme__flights"),
        "watcher": tokens.mint_watcher(ring, CONFIG, "airflow"),
        "pools": tokens.mint_pools(ring, CONFIG, "airflow", "acme"),
    }
    for kind, token in minted.items():
        golden = contract[kind]
        header = jwt.get_unverified_header(token)
        assert {name: header[name] for name in golden["header"]} == golden["header"]
        found = jwt.decode(token, options={"verify_signature": False})
        assert found.keys() == golden["claims"].keys()
        assert 0 < found["exp"] - found["iat"] <= golden["max_life_seconds"]
        changing = {"jti", "iat", "nbf", "exp"}
        for name in golden["claims"].keys() - changing:
            assert found[name] == golden["claims"][name], (kind, name)


def test_a_ring_is_not_loaded_from_nowhere_or_nothing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        tokens.KeyRing.load(tmp_path / "none")
    (tmp_path / "empty").mkdir(mode=0o700)
    with pytest.raises(SettingsError, match="holds no key"):
        tokens.KeyRing.load(tmp_path / "empty")


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o710])
def test_a_directory_that_others_may_enter_is_refused(ring_dir: Path, mode: int) -> None:
    ring_dir.chmod(mode)
    with pytest.raises(SettingsError, match="others"):
        tokens.KeyRing.load(ring_dir)
    with pytest.raises(SettingsError, match="others"):
        keys.rotate(ring_dir)


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_key_that_others_may_read_is_refused(ring_dir: Path, mode: int) -> None:
    (ring_dir / keys.names(ring_dir)[0]).chmod(mode)
    with pytest.raises(SettingsError, match="others"):
        tokens.KeyRing.load(ring_dir)


def test_a_key_under_another_keys_name_is_refused(ring_dir: Path) -> None:
    (first,) = keys.names(ring_dir)
    keys.rotate(ring_dir)
    second = keys.names(ring_dir)[1]
    (ring_dir / first).rename(ring_dir / second)
    with pytest.raises(SettingsError, match="thumbprint"):
        tokens.KeyRing.load(ring_dir)


def test_a_damaged_key_is_refused(ring_dir: Path) -> None:
    (ring_dir / keys.names(ring_dir)[0]).write_text("no key")
    with pytest.raises(SettingsError, match="not a readable key"):
        tokens.KeyRing.load(ring_dir)


# Rotation.


def moved(ring_dir: Path, **by: float) -> None:
    """Let time pass for the keys: put the time from which each signs into the past."""
    for name in keys.names(ring_dir):
        stamp, dash, rest = name.partition("-")
        then = datetime.strptime(stamp, keys.TIME_FORMAT) - timedelta(**by)
        (ring_dir / name).rename(ring_dir / f"{then:{keys.TIME_FORMAT}}{dash}{rest}")


def states(ring_dir: Path) -> list[str]:
    return [key.state(time.time()) for key in keys.read(ring_dir)]


def test_a_new_key_is_published_before_it_signs(ring_dir: Path) -> None:
    ring = tokens.KeyRing.load(ring_dir)
    old = jwt.get_unverified_header(ring.sign(claims()))["kid"]
    new = keys.rotate(ring_dir, wait_seconds=60)
    assert states(ring_dir) == ["signing", "waiting"]
    assert [key["kid"] for key in ring.jwks()["keys"]] == [new.kid, old]
    assert jwt.get_unverified_header(ring.sign(claims()))["kid"] == old
    moved(ring_dir, seconds=60)
    assert states(ring_dir) == ["verifying", "signing"]
    assert jwt.get_unverified_header(ring.sign(claims()))["kid"] == new.kid


def test_the_first_key_waits_for_nobody(tmp_path: Path) -> None:
    assert keys.rotate(tmp_path / "keys", wait_seconds=60).signs_from <= time.time()


def test_an_old_key_verifies_until_the_last_token_it_signed_has_expired(ring_dir: Path) -> None:
    ring = tokens.KeyRing.load(ring_dir)
    token = ring.sign(tokens.claims_for("i", "a", "s", "x", 100_000))
    keys.rotate(ring_dir)
    moved(ring_dir, seconds=keys.VERIFIES_SECONDS - 5)
    assert verified(ring, token)
    moved(ring_dir, seconds=5)
    for each in (ring, tokens.KeyRing.load(ring_dir)):
        with pytest.raises(tokens.InvalidTokenError):
            verified(each, token)
    assert states(ring_dir) == ["retired", "signing"]


def test_a_key_ends_later_than_any_token_it_can_have_signed() -> None:
    longest = settings.Tokens.model_fields["access_seconds"].metadata
    assert any(getattr(each, "le", 0) <= keys.VERIFIES_SECONDS for each in longest)
    assert settings.Tokens.model_fields["trigger_seconds"].metadata[1].le < keys.VERIFIES_SECONDS


def test_a_retired_key_can_sign_nothing_and_still_verifies_receipts(ring_dir: Path) -> None:
    ring = tokens.KeyRing.load(ring_dir)
    receipt = ring.sign_bytes(b"{}")
    old = jwt.get_unverified_header(ring.sign(claims()))["kid"]
    keys.rotate(ring_dir)
    assert keys.retire(ring_dir) == []
    moved(ring_dir, seconds=keys.VERIFIES_SECONDS)
    assert keys.retire(ring_dir) == [old]
    assert keys.retire(ring_dir) == []
    (kept,) = ring_dir.glob("*.pub")
    assert "PRIVATE" not in kept.read_text()
    assert len(list(ring_dir.glob("*.pem"))) == 1
    for each in (ring, tokens.KeyRing.load(ring_dir)):
        published = joserfc.jwk.KeySet.import_key_set(each.jwks())
        assert joserfc.jws.deserialize_compact(receipt, published, algorithms=["ES256"])


def test_what_a_key_is_still_good_for_can_be_read_from_the_key_set(ring_dir: Path) -> None:
    keys.rotate(ring_dir)
    moved(ring_dir, seconds=keys.VERIFIES_SECONDS)
    keys.retire(ring_dir)
    new, retired = tokens.KeyRing.load(ring_dir).jwks()["keys"]
    assert "exp" not in new
    assert new["nbf"] <= time.time()
    assert retired["exp"] <= time.time()
    assert {"kty", "crv", "x", "y", "kid", "use", "alg"} <= new.keys() & retired.keys()


def test_one_rotation_at_a_time_unless_it_is_urgent(ring_dir: Path) -> None:
    keys.rotate(ring_dir, wait_seconds=60)
    with pytest.raises(SettingsError, match="still waiting"):
        keys.rotate(ring_dir, wait_seconds=60)
    urgent = keys.rotate(ring_dir)
    ring = tokens.KeyRing.load(ring_dir)
    assert jwt.get_unverified_header(ring.sign(claims()))["kid"] == urgent.kid


def test_a_rotation_is_recorded_and_without_a_record_there_is_none(
    ring_dir: Path, sessions: sessionmaker[Session]
) -> None:
    made = rotation.rotate(sessions, ring_dir, wait_seconds=0, actor="operator:test")
    moved(ring_dir, seconds=keys.VERIFIES_SECONDS)
    assert rotation.retire(sessions, ring_dir, actor="gateway") == 1
    with sessions.begin() as session:
        found = session.scalars(select(AuditEvent).order_by(AuditEvent.number)).all()
        kept = [(event.action, event.actor) for event in found]
        assert kept == [("key.rotated", "operator:test"), ("key.retired", "gateway")]
        assert found[0].subject == made.kid
        session.execute(text("REVOKE INSERT ON audit_event FROM gateway"))
    before = keys.names(ring_dir)
    with pytest.raises(ProgrammingError):
        rotation.rotate(sessions, ring_dir, wait_seconds=0, actor="operator:test")
    assert keys.names(ring_dir) == before
