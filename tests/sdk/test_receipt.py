"""What a receipt proves, and what is not taken for one."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.sdk import files, receipt
from gateway.sdk.problems import ReceiptError
from tests.fakes.gateway_api import State

Write = Callable[[str, bytes], Path]
HEADER = {"kid": "key-1", "typ": "receipt+jws"}


def _manifest(named: list[dict[str, Any]] | None = None) -> bytes:
    batch: dict[str, Any] = {
        "id": "bat_1",
        "project": "flights",
        "reference": "2013-01",
        "mode": "load",
        "period": None,
        "metadata": {},
        "files": named or [],
    }
    return State().manifest(batch)


def _encode(part: object) -> str:
    content = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _signed(state: State, payload: bytes, header: dict[str, Any], algorithm: str = "ES256") -> str:
    return jwt.PyJWS().encode(payload, state.key, algorithm=algorithm, headers=header)


def test_receipt_of_the_gateway_says_what_was_signed() -> None:
    state, payload = State(), _manifest([{"name": "a.csv", "sha256": "00", "size_bytes": 4}])
    proof = receipt.verify(state.receipt(payload), state.jwks(), payload)
    assert (proof.batch, proof.client, proof.project) == ("bat_1", "acme", "flights")
    assert proof.payload == payload
    assert proof.files["a.csv"].size_bytes == 4


def test_receipt_of_ten_thousand_files_is_verified() -> None:
    named = [{"name": f"{n:0200d}.csv", "sha256": "0" * 64, "size_bytes": n} for n in range(10_000)]
    state, payload = State(), _manifest(named)
    assert len(receipt.verify(state.receipt(payload), state.jwks(), payload).files) == 10_000


def test_keys_of_other_kinds_in_the_set_do_no_harm() -> None:
    state = State()
    unknown = {"kty": "AKP", "kid": "new", "alg": "ML-DSA-44"}
    odd = [unknown, {"kty": "EC"}, "no key", {"kty": "EC", "crv": "P-384", "kid": "key-1"}]
    jwks = {"keys": [*odd, *state.jwks()["keys"]]}
    assert receipt.verify(state.receipt(_manifest()), jwks).batch == "bat_1"


def test_receipt_of_another_gateway_is_refused() -> None:
    with pytest.raises(ReceiptError, match="not made by this gateway"):
        receipt.verify(State().receipt(_manifest()), State().jwks())


def test_receipt_of_another_manifest_is_refused() -> None:
    state = State()
    with pytest.raises(ReceiptError, match="bytes differ"):
        receipt.verify(state.receipt(_manifest()), state.jwks(), _manifest() + b" ")


def _tampered(state: State) -> str:
    head, _, signature = state.receipt(_manifest()).split(".")
    changed = _manifest([{"name": "extra.csv", "sha256": "0" * 64, "size_bytes": 1}])
    return ".".join([head, _encode(changed), signature])


def _unsigned(_: State) -> str:
    return f"{_encode({'alg': 'none', **HEADER})}.{_encode(_manifest())}."


def _public_key_as_secret(state: State) -> str:
    public = state.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signed = f"{_encode({'alg': 'HS256', **HEADER})}.{_encode(_manifest())}"
    return f"{signed}.{_encode(hmac.digest(public, signed.encode(), 'sha256'))}"


def _with_own_key(state: State) -> str:
    """Signed by a stranger, who brings the key along."""
    stranger = State()
    own = stranger.jwks()["keys"][0]
    assert stranger.kid == state.kid
    return _signed(stranger, _manifest(), HEADER | {"jwk": own})


def _other_curve(_: State) -> str:
    key = ec.generate_private_key(ec.SECP384R1())
    return jwt.PyJWS().encode(_manifest(), key, algorithm="ES384", headers=HEADER)


FORGERIES: dict[str, Callable[[State], str]] = {
    "payload changed": _tampered,
    "alg none": _unsigned,
    "public key as secret": _public_key_as_secret,
    "own key in the header": _with_own_key,
    "another curve": _other_curve,
    "token type": lambda s: _signed(s, _manifest(), {"kid": "key-1", "typ": "at+jwt"}),
    "no type": lambda s: _signed(s, _manifest(), {"kid": "key-1", "typ": None}),
    "no kid": lambda s: _signed(s, _manifest(), {"typ": "receipt+jws"}),
    "unknown kid": lambda s: _signed(s, _manifest(), HEADER | {"kid": "key-2"}),
    "unknown crit": lambda s: _signed(s, _manifest(), HEADER | {"crit": ["x"], "x": 1}),
    "not a manifest": lambda s: _signed(s, b"[]", HEADER),
    "not JSON": lambda s: _signed(s, b"\xff", HEADER),
    "empty": lambda _: "",
    "one part": lambda _: "abc",
    "not ASCII": lambda _: "é.é.é",
    "deep header": lambda _: f"{_encode(b'[' * 9000)}.e30.e30",
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES.keys())
def test_forgery_is_refused(forgery: Callable[[State], str]) -> None:
    state = State()
    with pytest.raises(ReceiptError):
        receipt.verify(forgery(state), state.jwks())


@pytest.mark.parametrize(
    "jwks",
    [{}, {"keys": None}, {"keys": []}, {"keys": [{"kty": "oct", "k": "AA", "kid": "key-1"}]}],
)
def test_key_set_without_a_usable_key_verifies_nothing(jwks: dict[str, Any]) -> None:
    with pytest.raises(ReceiptError):
        receipt.verify(State().receipt(_manifest()), jwks)


def test_directory_is_compared_file_by_file(write: Write, tmp_path: Path) -> None:
    state = State()
    local = [files.inspect(write(name, name.encode())) for name in ("a.csv", "b.csv", "c.csv")]
    named = [
        {"name": file.name, "sha256": file.sha256, "size_bytes": file.size_bytes} for file in local
    ]
    proof = receipt.verify(state.receipt(_manifest(named)), state.jwks())
    write("notes.txt", b"not delivered")
    receipt.compare(proof, tmp_path)

    write("a.csv", b"A.csv")
    (tmp_path / "b.csv").unlink()
    with pytest.raises(ReceiptError) as caught:
        receipt.compare(proof, tmp_path)
    assert "a.csv differs" in str(caught.value)
    assert "b.csv is in the receipt but not here" in str(caught.value)
    assert "c.csv" not in str(caught.value)
