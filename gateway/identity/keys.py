"""Signing keys on disk: one PEM file for each, named ``<UTC timestamp>-<kid>.pem``.

The newest signs; all of them verify and are published. A retired key is never dropped by the
gateway: receipts signed with it stay verifiable for as long as somebody keeps them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.settings import SettingsError

SUFFIX = ".pem"
COORDINATE_BYTES = 32


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An EC P-256 key pair and its name."""

    kid: str
    private: ec.EllipticCurvePrivateKey

    def jwk(self) -> dict[str, str]:
        """Return the public half as a JSON Web Key (RFC 7517)."""
        more = {"kid": self.kid, "use": "sig", "alg": "ES256"}
        return _public_jwk(self.private) | more


def names(keys_dir: Path) -> tuple[str, ...]:
    """Return the names of the key files, oldest first.

    Raises
    ------
    SettingsError
        There is no such directory.
    """
    try:
        return tuple(sorted(name for name in os.listdir(keys_dir) if name.endswith(SUFFIX)))  # noqa: PTH208 - called for every token; a Path per file is not needed
    except OSError as error:
        _refuse(keys_dir, f"cannot be read ({error.strerror}); run `gateway keys rotate`")


def read(keys_dir: Path) -> tuple[SigningKey, ...]:
    """Read every key, oldest first.

    Raises
    ------
    SettingsError
        There is none, one is damaged, or others than the owner may read them.
    """
    found = names(keys_dir)
    _require_private(keys_dir)
    if not found:
        _refuse(keys_dir, "holds no key; run `gateway keys rotate`")
    return tuple(_read_one(keys_dir / name) for name in found)


def rotate(keys_dir: Path) -> str:
    """Make a new key, which signs from now on; return its kid.

    Processes notice by themselves: no restart is needed.

    Raises
    ------
    SettingsError
        The directory is not private or cannot be written.
    """
    keys_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_private(keys_dir)
    private = ec.generate_private_key(ec.SECP256R1())
    kid = _thumbprint(private)
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-{kid}{SUFFIX}"
    earlier = names(keys_dir)
    if earlier and earlier[-1] > name:
        _refuse(keys_dir, "holds a key from the future; set the clock right")
    try:
        _write(keys_dir, name, _pem(private))
    except OSError as error:
        _refuse(keys_dir, f"cannot be written ({error.strerror})")
    return kid


def _write(keys_dir: Path, name: str, data: bytes) -> None:
    # Written under a name that no reader takes, then renamed: nobody sees half a key.
    part = keys_dir / f".{name}.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.rename(keys_dir / name)
    directory = os.open(keys_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _read_one(path: Path) -> SigningKey:
    _require_private(path)
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        _refuse(path, "is not a readable key")
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != "secp256r1":
        _refuse(path, "is not an EC P-256 key")
    kid = _thumbprint(private)
    if not path.name.endswith(f"Z-{kid}{SUFFIX}"):
        _refuse(path, "is not named <UTC timestamp>-<its own thumbprint>.pem")
    return SigningKey(kid, private)


def _require_private(path: Path) -> None:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        _refuse(path, "may be read by others than its owner; take their permissions away")


def _refuse(path: Path, reason: str) -> NoReturn:
    message = f"GATEWAY_TOKENS_KEYS_DIR: {path} {reason}"
    raise SettingsError(message)


def _pem(private: ec.EllipticCurvePrivateKey) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _public_jwk(private: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    numbers = private.public_key().public_numbers()
    return {"crv": "P-256", "kty": "EC", "x": _coordinate(numbers.x), "y": _coordinate(numbers.y)}


def _coordinate(number: int) -> str:
    return _base64url(number.to_bytes(COORDINATE_BYTES, "big"))


def _thumbprint(private: ec.EllipticCurvePrivateKey) -> str:
    """Return the RFC 7638 thumbprint: the digest of the required members in lexical order."""
    members = json.dumps(_public_jwk(private), sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(members.encode()).digest())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
