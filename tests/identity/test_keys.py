"""The key ring: where keys lie, who signs, what other libraries make of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import joserfc.jwk
import joserfc.jws
import jwt
import pytest

from gateway import settings
from gateway.identity import keys, tokens
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
