"""The sealed manifest and the receipt that proves it came from the gateway."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from pipeline import delivery as deliveries
from pipeline.errors import DeliveryError

if TYPE_CHECKING:
    from pipeline.delivery import Delivery

MAX_MANIFEST_BYTES = 64 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BATCH_ID = re.compile(r"bat_[0-9a-z]{10,40}")


@dataclass(frozen=True)
class LandedFile:
    """A file as the manifest states it."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """What this pipeline needs of a manifest."""

    files: tuple[LandedFile, ...]
    mode: str
    supersedes: str | None

    @property
    def loads(self) -> bool:
        """Whether rows are loaded, or only judged."""
        return self.mode == "load"


def read_manifest(delivery: Delivery, jwks: dict[str, Any]) -> Manifest:
    """Read a batch's manifest and hold it against its receipt and the run.

    Raises
    ------
    DeliveryError
        ``bad-receipt`` if the receipt is not the gateway's for exactly these bytes;
        ``bad-manifest`` if they speak of another batch or make no sense.
    """
    with deliveries.open_landed(delivery, "manifest.json") as file:
        content = _read_all(file)
    with deliveries.open_landed(delivery, "receipt.jws") as file:
        receipt = _read_all(file)
    verify_receipt(receipt, content, jwks)
    return parse_manifest(content, delivery)


def _read_all(file: Any) -> bytes:
    chunks, size = [], 0
    while chunk := file.read(1 << 20):
        size += len(chunk)
        if size > MAX_MANIFEST_BYTES:
            raise DeliveryError("bad-manifest", "the manifest or its receipt is too long")
        chunks.append(chunk)
    return b"".join(chunks)


def verify_receipt(receipt: bytes, content: bytes, jwks: dict[str, Any]) -> None:
    """Check that a receipt is ES256-signed by a key of ``jwks`` over exactly ``content``.

    Raises
    ------
    DeliveryError
        ``bad-receipt``.
    """
    try:
        keys = KeySet.import_key_set({"keys": [_usable(k) for k in jwks["keys"] if _is_p256(k)]})
        signed = jws.deserialize_compact(receipt.strip(), keys, registry=_receipt_rules())
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise DeliveryError("bad-receipt", "the receipt is not signed by the gateway") from error
    header = signed.headers()
    if header.get("typ") != "receipt+jws" or "kid" not in header:
        raise DeliveryError("bad-receipt", "the signed document is not a receipt")
    if signed.payload != content:
        raise DeliveryError("bad-receipt", "the manifest is not the one that was signed")


def _receipt_rules() -> jws.JWSRegistry:
    """Allow ES256 alone, and manifests longer than joserfc's default of 128,000 bytes."""
    rules = jws.JWSRegistry(algorithms=["ES256"])
    rules.max_payload_length = 2 * MAX_MANIFEST_BYTES
    return rules


def _is_p256(key: Any) -> bool:
    return isinstance(key, dict) and key.get("kty") == "EC" and key.get("crv") == "P-256"


def _usable(key: dict[str, Any]) -> dict[str, Any]:
    return {name: key[name] for name in ("kty", "crv", "x", "y", "kid") if name in key}


def parse_manifest(content: bytes, delivery: Delivery) -> Manifest:
    """Read manifest bytes strictly.

    Raises
    ------
    DeliveryError
        ``bad-manifest``.
    """
    try:
        document = json.loads(content, object_pairs_hook=_no_duplicates)
        files = tuple(LandedFile(**item) for item in document["files"])
        manifest = Manifest(files, document["mode"], document["supersedes"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DeliveryError("bad-manifest", "the manifest cannot be read") from error
    named = (document.get("contract"), document.get("batch"), document.get("client"),
             document.get("project"))  # fmt: skip
    if named != (1, delivery.batch_id, delivery.client, delivery.project):
        raise DeliveryError("bad-manifest", "the manifest is of another batch")
    _check(manifest)
    return manifest


def _check(manifest: Manifest) -> None:
    if manifest.mode not in ("load", "validate"):
        raise DeliveryError("bad-manifest", "mode must be load or validate")
    older = manifest.supersedes
    if older is not None and not (isinstance(older, str) and _BATCH_ID.fullmatch(older)):
        raise DeliveryError("bad-manifest", "supersedes names no batch")
    names = [f.name for f in manifest.files]
    if len(set(names)) != len(names) or not all(_is_sound(f) for f in manifest.files):
        raise DeliveryError("bad-manifest", "the list of files cannot be read")


def _is_sound(file: LandedFile) -> bool:
    return (
        deliveries.is_safe_name(file.name)
        and isinstance(file.sha256, str)
        and _SHA256.fullmatch(file.sha256) is not None
        and type(file.size_bytes) is int
        and file.size_bytes >= 0
    )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        msg = "a key stands twice"
        raise ValueError(msg)
    return keys
