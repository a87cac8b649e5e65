"""Tokens that must not open anything, each differing in one way from one that does."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from starlette.testclient import TestClient

from gateway.identity import keys, tokens

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Forger:
    """Signs whatever it is given with the gateway's real key; all attacks but one need less."""

    def __init__(self, keys_dir: Path) -> None:
        self.key = keys.read(keys_dir)[-1]

    def header(self, **changed: Any) -> dict[str, Any]:
        header = {"alg": "ES256", "kid": self.key.kid, "typ": "at+jwt", **changed}
        return {name: value for name, value in header.items() if value is not None}

    def claims(self, **changed: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": "http://gateway.test",
            "aud": "gateway",
            "sub": "acme-uploader",
            "client": "acme",
            "scope": "batches:read batches:write",
            "jti": "forged",
            "iat": now,
            "nbf": now,
            "exp": now + 600,
            **changed,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def sign(self, header: Any, claims: Any, key: ec.EllipticCurvePrivateKey | None = None) -> str:
        texts = [part if isinstance(part, str) else json.dumps(part) for part in (header, claims)]
        signing = ".".join(b64(text.encode()) for text in texts)
        der = (key or self.key.private).sign(signing.encode(), ec.ECDSA(hashes.SHA256()))
        r, s = decode_dss_signature(der)
        return f"{signing}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def hmac(self, secret: bytes, **header: Any) -> str:
        parts = (self.header(alg="HS256", **header), self.claims())
        signing = ".".join(b64(json.dumps(part).encode()) for part in parts)
        return f"{signing}.{b64(hmac.digest(secret, signing.encode(), hashlib.sha256))}"

    def public(self, encoding: serialization.Encoding) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.private.public_key().public_bytes(encoding, form)


@pytest.fixture
def forger(keys_dir: Path) -> Forger:
    return Forger(keys_dir)


def knock(client: TestClient, token: str) -> Any:
    return client.get("/doors/reader", headers={"Authorization": f"Bearer {token}"})


def header_attacks(forger: Forger) -> Iterator[tuple[str, str]]:
    stranger = ec.generate_private_key(ec.SECP256R1())
    own = keys.SigningKey("x", stranger.public_key(), stranger, 0.0, None).jwk()
    good = forger.claims()
    for changed in (
        {"alg": "none"},
        {"alg": None},
        {"alg": "ES384"},
        {"alg": ["ES256"]},
        {"kid": None},
        {"kid": ""},
        {"kid": "unknown"},
        {"kid": ["a"]},
        {"kid": {"a": 1}},
        {"kid": 7},
        {"kid": "../../../dev/null"},
        {"typ": None},
        {"typ": "JWT"},
        {"typ": "receipt+jws"},
        {"typ": "application/at+jwt"},
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert.pem"},
        {"crit": ["exp"]},
        {"crit": ["b64"], "b64": False},
        {"cty": "JWT"},
        {"zip": "DEF"},
    ):
        yield f"header {changed}", forger.sign(forger.header(**changed), good)
    yield "own key in the header", forger.sign(forger.header(jwk=own), good, stranger)
    yield "own key under our kid", forger.sign(forger.header(), good, stranger)
    kid = forger.key.kid
    twice = f'{{"alg":"none","alg":"ES256","kid":"{kid}","typ":"at+jwt"}}'
    yield "alg twice", forger.sign(twice, good)
    yield "deep header", forger.sign("[" * 1000 + "]" * 1000, good)
    yield "header is no object", forger.sign("[]", good)
    yield "header is no JSON", forger.sign("{", good)
    signed = forger.sign(forger.header(alg="none"), good)
    yield "alg none, no signature", signed.rpartition(".")[0] + "."
    for name, secret in (
        ("PEM", forger.public(serialization.Encoding.PEM)),
        ("PEM without its last line end", forger.public(serialization.Encoding.PEM).rstrip()),
        ("DER", forger.public(serialization.Encoding.DER)),
        ("JWK", json.dumps(forger.key.jwk()).encode()),
        ("nothing", b""),
    ):
        yield f"HS256 with {name}", forger.hmac(secret)
        yield f"HS256 with {name} as JWT", forger.hmac(secret, typ="JWT")


def claim_attacks(forger: Forger) -> Iterator[tuple[str, str]]:
    now = int(time.time())
    for changed in (
        *({name: None} for name in ("iss", "aud", "sub", "scope", "jti", "iat", "nbf", "exp")),
        *({"exp": value} for value in ("9999999999", now + 60.5, True, [now + 60], 2**63, -1, 0)),
        *({"exp": value} for value in (now - 1, 10**400, {"a": 1}, "")),
        *({"nbf": value} for value in (now + 600, str(now), now - 0.5, False)),
        *({"iat": value} for value in (now + 600, str(now))),
        *({"aud": value} for value in ("airflow", ["gateway"], ["gateway", "airflow"], "", 1)),
        *({"iss": value} for value in ("http://evil.test", "http://gateway.test/", ["x"])),
        *({"sub": value} for value in ("", 7, ["acme-uploader"], "nobody-at-all", "gateway")),
        *({"sub": value} for value in ("*", "acme-*", "a)(uid=*", "x" * 500, "a\u200b")),
        *({"client": value} for value in (7, ["acme"], {"a": 1}, False)),
        *({"jti": value} for value in ("", 7)),
        *({"scope": value} for value in (["batches:read"], 7)),
        {"admin": True},
    ):
        yield f"claims {str(changed)[:60]}", forger.sign(forger.header(), forger.claims(**changed))
    good = json.dumps(forger.claims())
    yield "exp twice", forger.sign(forger.header(), good[:-1] + f', "exp": {now + 60}}}')
    yield "sub twice", forger.sign(forger.header(), good[:-1] + ', "sub": "admin"}')
    for constant in ("NaN", "Infinity", "-Infinity", "1e400", "1e3"):
        text = json.dumps(forger.claims(exp="@")).replace('"@"', constant)
        yield f"exp {constant}", forger.sign(forger.header(), text)
    yield "deep claims", forger.sign(forger.header(), "[" * 1000 + "]" * 1000)
    yield "claims are no object", forger.sign(forger.header(), '"claims"')
    yield "claims are no JSON", forger.sign(forger.header(), "")
    yield "too long", forger.sign(forger.header(), forger.claims(sub="x" * 4096))


def text_attacks(forger: Forger) -> Iterator[tuple[str, str]]:
    good = forger.sign(forger.header(), forger.claims())
    header, claims, signature = good.split(".")
    last = ALPHABET.index(signature[-1])
    for offset in (1, 2, 8, 15):
        other = ALPHABET[(last & 0b110000) | ((last + offset) & 0b1111)]
        yield (
            f"unused bits of the signature +{offset}",
            f"{header}.{claims}.{signature[:-1]}{other}",
        )
    yield "padding", f"{good}=="
    yield "two parts", f"{header}.{claims}"
    yield "four parts", f"{good}.{signature}"
    yield "five parts", f"{good}.{signature}.{signature}"
    yield "signature cut", good[:-2]
    yield "DER signature", f"{header}.{claims}.{b64(der_of(signature))}"
    yield "signature of zeroes", f"{header}.{claims}.{b64(bytes(64))}"
    yield (
        "claims exchanged",
        f"{header}.{b64(json.dumps(forger.claims(client='globex')).encode())}.{signature}",
    )
    yield "a mebibyte", "a" * 30_000


def der_of(signature: str) -> bytes:
    raw = unb64(signature)
    return encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))


@pytest.mark.parametrize("attacks", [header_attacks, claim_attacks, text_attacks])
def test_no_altered_token_opens_a_door(
    client: TestClient, forger: Forger, attacks: Callable[[Forger], Iterator[tuple[str, str]]]
) -> None:
    opened = []
    for name, token in attacks(forger):
        # The unaltered token opens the door each time, so that the alteration is the reason.
        assert knock(client, forger.sign(forger.header(), forger.claims())).status_code == 200
        answer = knock(client, token)
        if answer.status_code != 401 or answer.json()["type"] != "/problems/invalid-token":
            opened.append((name, answer.status_code, answer.text))
    assert opened == []


def test_a_token_never_gives_more_than_the_directory_does(
    client: TestClient, forger: Forger
) -> None:
    beyond = forger.sign(forger.header(), forger.claims(scope="admin audit:read jobs:write"))
    for door in ("admin", "auditor", "operator", "platform", "lessor"):
        headers = {"Authorization": f"Bearer {beyond}"}
        assert client.get(f"/doors/{door}", headers=headers).status_code == 403
    for foreign in (forger.claims(client="globex"), forger.claims(client=None)):
        assert knock(client, forger.sign(forger.header(), foreign)).status_code == 403


def test_revocation_holds_for_every_text_of_a_token(client: TestClient, forger: Forger) -> None:
    token = forger.sign(forger.header(), forger.claims(jti="to-be-revoked"))
    signing, _, signature = token.rpartition(".")
    raw = unb64(signature)
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    mirrored = f"{signing}.{b64(r.to_bytes(32, 'big') + (ORDER - s).to_bytes(32, 'big'))}"
    # (r, -s) is as valid a signature as (r, s): another text, the same token.
    assert knock(client, mirrored).status_code == 200
    assert client.post("/v1/token/revoke", data={"token": token}).status_code == 200
    assert knock(client, token).status_code == 401
    assert knock(client, mirrored).status_code == 401


def test_a_receipt_is_no_token(client: TestClient, forger: Forger, keys_dir: Path) -> None:
    ring = tokens.KeyRing.load(keys_dir)
    receipt = ring.sign_bytes(json.dumps(forger.claims()).encode())
    assert knock(client, receipt).status_code == 401
