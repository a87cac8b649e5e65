"""Signing keys on disk: one PEM file for each, named ``<UTC time it signs from>-<kid>.pem``.

A key's life: it *waits*, published already, so that everybody knows it before they meet it; it
*signs*; its successor signs, and it goes on *verifying* until every token that it signed has
expired; then it is *retired*: its private half is destroyed, and what is left, ``….pub``, is
published for receipts alone, for as long as somebody keeps them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NoReturn

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.settings import SettingsError

PRIVATE, PUBLIC = ".pem", ".pub"
COORDINATE_BYTES = 32
TIME_FORMAT = "%Y%m%dT%H%M%S%fZ"
# Nothing that expires is signed for longer (GATEWAY_TOKENS_ACCESS_SECONDS); a minute for clocks.
VERIFIES_SECONDS = 900 + 60

State = Literal["waiting", "signing", "verifying", "retired"]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An EC P-256 key and its life, in Unix seconds.

    Attributes
    ----------
    private
        None once it is retired for good.
    ends_at
        From then on it verifies receipts only; None while it has no successor.
    """

    kid: str
    public: ec.EllipticCurvePublicKey
    private: ec.EllipticCurvePrivateKey | None
    signs_from: float
    ends_at: float | None

    def jwk(self) -> dict[str, str | int]:
        """Return the public half as a JSON Web Key (RFC 7517).

        ``nbf`` and ``exp`` are those of OpenID Federation's historical keys.
        """
        more: dict[str, str | int] = {"kid": self.kid, "use": "sig", "alg": "ES256"}
        more["nbf"] = int(self.signs_from)
        if self.ends_at is not None:
            more["exp"] = int(self.ends_at)
        return _public_jwk(self.public) | more

    def state(self, now: float) -> State:
        """Say what it does at a time."""
        if now < self.signs_from:
            return "waiting"
        if self.ends_at is None or now < self.ends_at - VERIFIES_SECONDS:
            return "signing"
        return "verifying" if now < self.ends_at else "retired"


def names(keys_dir: Path) -> tuple[str, ...]:
    """Return the names of the key files, oldest first.

    Raises
    ------
    SettingsError
        There is no such directory.
    """
    try:
        listed = os.listdir(keys_dir)  # noqa: PTH208 - called for every token; a Path per file is not needed
    except OSError as error:
        _refuse(keys_dir, f"cannot be read ({error.strerror}); run `gateway keys rotate`")
    return tuple(sorted(name for name in listed if name.endswith((PRIVATE, PUBLIC))))


def read(keys_dir: Path) -> tuple[SigningKey, ...]:
    """Read every key, oldest first.

    Raises
    ------
    SettingsError
        There is none, one is damaged, or others than the owner may read them.
    """
    found = names(keys_dir)
    _require_private(keys_dir)
    # While a key is being retired both halves are there: the private one counts no more.
    stems = {name.removesuffix(PRIVATE).removesuffix(PUBLIC): name for name in found}
    if not any(name.endswith(PRIVATE) for name in stems.values()):
        _refuse(keys_dir, "holds no key; run `gateway keys rotate`")
    paths = [keys_dir / name for name in stems.values()]
    begins = [_signs_from(path) for path in paths]
    ends = [begin + VERIFIES_SECONDS for begin in begins[1:]]
    parts = zip(paths, begins, [*ends, None], strict=True)
    return tuple(_read_one(path, begin, end) for path, begin, end in parts)


def rotate(keys_dir: Path, wait_seconds: float = 0) -> SigningKey:
    """Make a new key, published at once, which signs after a while; the first key signs at once.

    Processes notice by themselves: no restart is needed.

    Raises
    ------
    SettingsError
        The directory is not private or cannot be written, or the last new key is still waiting
        and this one would too.
    """
    keys_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_private(keys_dir)
    earlier = names(keys_dir)
    signs_from = datetime.fromtimestamp(time.time() + (wait_seconds if earlier else 0), UTC)
    if wait_seconds and earlier and _signs_from(keys_dir / earlier[-1]) > time.time():
        _refuse(keys_dir, "holds a key that is still waiting to sign, or one from the future")
    private = ec.generate_private_key(ec.SECP256R1())
    kid = _thumbprint(private.public_key())
    try:
        _write(keys_dir, f"{signs_from:{TIME_FORMAT}}-{kid}{PRIVATE}", _pem(private))
    except OSError as error:
        _refuse(keys_dir, f"cannot be written ({error.strerror})")
    return SigningKey(kid, private.public_key(), private, signs_from.timestamp(), None)


def remove(keys_dir: Path, key: SigningKey) -> None:
    """Take a key away that was only just made."""
    for name in names(keys_dir):
        if name.endswith(f"-{key.kid}{PRIVATE}"):
            (keys_dir / name).unlink()


def retire(keys_dir: Path) -> list[str]:
    """Destroy the private halves of keys whose last token has expired; return their kids.

    Raises
    ------
    SettingsError
        The keys cannot be read, or the directory cannot be written.
    """
    done = []
    for key in read(keys_dir):
        if key.private is not None and key.state(time.time()) == "retired":
            _keep_public_half(keys_dir, key)
            done.append(key.kid)
    return done


def _keep_public_half(keys_dir: Path, key: SigningKey) -> None:
    (name,) = (each for each in names(keys_dir) if each.endswith(f"-{key.kid}{PRIVATE}"))
    try:
        _write(keys_dir, name.removesuffix(PRIVATE) + PUBLIC, _public_pem(key.public))
        (keys_dir / name).unlink()
    except OSError as error:
        _refuse(keys_dir, f"cannot be written ({error.strerror})")


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


def _signs_from(path: Path) -> float:
    try:
        found = datetime.strptime(path.name.partition("-")[0], TIME_FORMAT)  # noqa: DTZ007 - UTC below
    except ValueError:
        _refuse(path, "is not named <UTC timestamp>-<its own thumbprint>.pem")
    return found.replace(tzinfo=UTC).timestamp()


def _read_one(path: Path, signs_from: float, ends_at: float | None) -> SigningKey:
    _require_private(path)
    private: object = None
    try:
        data = path.read_bytes()
        if path.suffix == PUBLIC:
            public: object = serialization.load_pem_public_key(data)
        else:
            private = serialization.load_pem_private_key(data, password=None)
            public = getattr(private, "public_key", lambda: None)()
    except (OSError, ValueError, TypeError):
        _refuse(path, "is not a readable key")
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
        _refuse(path, "is not an EC P-256 key")
    kid = _thumbprint(public)
    if not path.stem.endswith(f"Z-{kid}"):
        _refuse(path, "is not named <UTC timestamp>-<its own thumbprint>.pem")
    usable = private if isinstance(private, ec.EllipticCurvePrivateKey) else None
    return SigningKey(kid, public, usable, signs_from, ends_at)


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


def _public_pem(public: ec.EllipticCurvePublicKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return public.public_bytes(serialization.Encoding.PEM, form)


def _public_jwk(public: ec.EllipticCurvePublicKey) -> dict[str, str | int]:
    numbers = public.public_numbers()
    return {"crv": "P-256", "kty": "EC", "x": _coordinate(numbers.x), "y": _coordinate(numbers.y)}


def _coordinate(number: int) -> str:
    return _base64url(number.to_bytes(COORDINATE_BYTES, "big"))


def _thumbprint(public: ec.EllipticCurvePublicKey) -> str:
    """Return the RFC 7638 thumbprint: the digest of the required members in lexical order."""
    members = json.dumps(_public_jwk(public), sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(members.encode()).digest())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
