"""Verifying a receipt: the manifest of a batch, signed by the gateway.

Notes
-----
A receipt is a JWS in compact form (RFC 7515) by an ES256 key of the gateway's JWKS, header
``{alg, kid, typ: "receipt+jws"}``, and its payload is the manifest in canonical JSON (RFC 8785).
What it proves rests on where the JWKS comes from: fetched, on the TLS connection; from a
file, on how that file was kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from gateway.sdk import files, records
from gateway.sdk.files import LocalFile
from gateway.sdk.problems import ClientError, ReceiptError

ALGORITHM = "ES256"
TYPE = "receipt+jws"
# A manifest of ten thousand files of long names stays below this.
MAX_PAYLOAD_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt whose signature is right.

    Parameters
    ----------
    payload
        Exactly the bytes that were signed.
    files
        The files it names, by name.
    """

    payload: bytes
    kid: str
    batch: str
    client: str
    project: str
    reference: str
    sealed_at: str
    files: Mapping[str, records.BatchFile]


def verify(compact: str, jwks: Mapping[str, Any], manifest: bytes | None = None) -> Receipt:
    """Check a receipt's signature and return what it says.

    Parameters
    ----------
    compact
        The receipt.
    jwks
        The gateway's public keys.
    manifest
        The manifest's bytes, when at hand: they must be the signed ones.

    Raises
    ------
    ReceiptError
        Not a receipt, not signed by one of these keys, or not of this manifest.
    """
    signature = _signature(compact.strip(), _signing_keys(jwks))
    if manifest is not None and signature.payload != manifest:
        raise ReceiptError("The receipt is not of this manifest: the bytes differ")
    return _read(signature.payload, str(signature.headers()["kid"]))


def differences(receipt: Receipt, local: Iterable[LocalFile]) -> list[str]:
    """Compare a receipt with local files; return one line for each difference, best none."""
    here = {file.name: file for file in local}
    lines = [f"{name} is not in the receipt" for name in sorted(here.keys() - receipt.files.keys())]
    for name, signed in sorted(receipt.files.items()):
        file = here.get(name)
        if file is None:
            lines.append(f"{name} is in the receipt but not here")
        elif (file.sha256, file.size_bytes) != (signed.sha256, signed.size_bytes):
            lines.append(f"{name} differs: the receipt says {signed.sha256}, here {file.sha256}")
    return lines


def verify_kept(receipt_path: Path, jwks_path: Path) -> Receipt:
    """Verify a receipt with keys that were kept with it: no network, no gateway.

    Raises
    ------
    ReceiptError
        See :func:`verify`; or the files are of another kind.
    """
    try:
        compact = receipt_path.read_text("ascii")
        jwks = json.loads(jwks_path.read_bytes())
    except ValueError as error:
        raise ReceiptError(f"Not a receipt and a key set: {error}") from error
    if not isinstance(jwks, dict):
        raise ReceiptError(f"{jwks_path} is not a key set")
    return verify(compact, jwks)


def compare(receipt: Receipt, directory: Path) -> None:
    """Check that the files a receipt names are in a directory; others may be there too.

    Raises
    ------
    ReceiptError
        Files are missing or different; one line for each.
    """
    here = (path for path in directory.iterdir() if path.is_file())
    named = [files.inspect(path) for path in here if files.name_of(path) in receipt.files]
    different = differences(receipt, named)
    if different:
        raise ReceiptError("\n".join(["These are not the files of the receipt:", *different]))


def _signing_keys(jwks: Mapping[str, Any]) -> KeySet:
    """Keep the keys that may sign receipts; without a ``kid`` none could be told from another."""
    keys = jwks.get("keys")
    usable = [key for key in keys if _is_signing_key(key)] if isinstance(keys, list) else []
    try:
        return KeySet.import_key_set({"keys": usable})
    except (JoseError, ValueError) as error:
        raise ReceiptError(f"The key set has no usable {ALGORITHM} key") from error


def _is_signing_key(key: object) -> bool:
    if not isinstance(key, dict) or not isinstance(key.get("kid"), str):
        return False
    is_signing = key.get("use", "sig") == "sig" and key.get("alg", ALGORITHM) == ALGORITHM
    return is_signing and (key.get("kty"), key.get("crv")) == ("EC", "P-256")


def _signature(compact: str, keys: KeySet) -> jws.CompactSignature:
    registry = jws.JWSRegistry(algorithms=[ALGORITHM])
    registry.max_payload_length = MAX_PAYLOAD_BYTES
    try:
        found = jws.extract_compact(compact.encode("ascii"), registry=registry)
        header = found.headers()
        if header.get("typ") != TYPE or not isinstance(header.get("kid"), str):
            raise ReceiptError("This is not a receipt: its header says something else")
        if not jws.validate_compact(found, keys, registry=registry):
            raise ReceiptError("The receipt's signature is wrong: it was not made by this gateway")
    except (JoseError, ValueError) as error:
        raise ReceiptError(f"The receipt cannot be verified: {error}") from error
    return found


def _read(payload: bytes, kid: str) -> Receipt:
    try:
        body = json.loads(payload)
        named = [records.batch_file(item) for item in body["files"]]
        words = {key: str(body[key]) for key in ("client", "project", "reference", "sealed_at")}
        return Receipt(payload, kid, body["batch"], **words, files={f.name: f for f in named})
    except (ValueError, LookupError, TypeError, AttributeError, ClientError) as error:
        raise ReceiptError("The receipt is signed, but its manifest cannot be read") from error
