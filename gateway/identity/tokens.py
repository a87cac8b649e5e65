"""Signed tokens: made, verified, published. The only module that imports jose.

python-jose 3.5 by itself takes a missing ``exp``, ``aud`` or ``sub``, any ``typ``, unknown
``crit`` headers and altered base64, and lets exceptions of many kinds out. So everything about a
token but the elliptic curve arithmetic is decided here: its size, its exact header, the
algorithm, and every claim's presence and type.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from jose import jwk, jws
from jose.constants import ALGORITHMS
from ulid import ULID

from gateway import logs, settings
from gateway.errors import GatewayError
from gateway.identity import keys
from gateway.settings import SettingsError

ACCESS_TYPE = "at+jwt"
RECEIPT_TYPE = "receipt+jws"
TOKEN_CHARACTERS = 4096
CLOCK_SKEW_SECONDS = 5
REMEMBERED_TOKENS = 4096
MAX_TIME = 2**40

_PARTS = re.compile(r"([A-Za-z0-9_-]{1,256})\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})")
_TEXT_CLAIMS = frozenset({"iss", "aud", "sub", "scope", "jti"})
_TIME_CLAIMS = frozenset({"iat", "nbf", "exp"})
_REQUIRED = _TEXT_CLAIMS | _TIME_CLAIMS
_OPTIONAL = frozenset({"client", "dags"})

log = logs.get("identity")


class InvalidTokenError(GatewayError):
    """A token that is not ours, not for here, or no longer good; never says which."""

    slug = "invalid-token"
    status = 401
    title = "The access token is not valid"

    def __init__(self) -> None:
        super().__init__(headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The keys of one state of the directory, parsed once; those that sign, newest first."""

    names: tuple[str, ...]
    signing: tuple[tuple[float, str, Any], ...]
    public: Mapping[str, Any]
    ends_at: Mapping[str, float]
    published: tuple[dict[str, str | int], ...]

    def signer(self) -> tuple[str, Any]:
        """Return the newest key whose time has come, and its name."""
        now = time.time()
        begun = (each for each in self.signing if each[0] <= now)
        _, kid, private = next(begun, self.signing[-1])
        return kid, private


class KeyRing:
    """Signs with the newest key whose time has come; follows the directory's changes.

    Tokens are verified by every key that may have signed one which has not expired.
    """

    def __init__(self, keys_dir: Path) -> None:
        self._keys_dir = keys_dir
        self._loaded = _load(keys_dir, keys.names(keys_dir))
        self._opened = lru_cache(REMEMBERED_TOKENS)(self._open)

    @classmethod
    def load(cls, keys_dir: Path) -> KeyRing:
        """Read the keys.

        Raises
        ------
        SettingsError
            There is none, one is damaged, or others than the owner may read them.
        """
        return cls(keys_dir)

    def sign(self, claims: Mapping[str, Any], typ: str = ACCESS_TYPE) -> str:
        """Return a JWT with these claims."""
        text = json.dumps(claims, separators=(",", ":"), allow_nan=False)
        return self.sign_bytes(text.encode(), typ)

    def sign_bytes(self, payload: bytes, typ: str = RECEIPT_TYPE) -> str:
        """Return a compact JWS whose payload is exactly these bytes."""
        kid, private = self._current().signer()
        signed: str = jws.sign(payload, private, {"kid": kid, "typ": typ}, ALGORITHMS.ES256)
        return signed

    def jwks(self) -> dict[str, Any]:
        """Return the public keys (RFC 7517), newest first, retired ones too."""
        return {"keys": [dict(key) for key in reversed(self._current().published)]}

    def verify(self, token: str, *, issuer: str, audience: str) -> dict[str, Any]:
        """Return the claims of an access token of ours.

        Raises
        ------
        InvalidTokenError
            For whatever reason.

        Notes
        -----
        Only what never changes about a token is remembered: its signature and the types of its
        claims. Its times are compared on every call, and whether it was revoked is for
        ``access`` to ask.
        """
        if len(token) > TOKEN_CHARACTERS:
            raise InvalidTokenError
        loaded = self._current()
        kid, claims = self._opened(loaded.names, token)
        now = time.time()
        if (
            loaded.ends_at.get(kid, now + 1) <= now
            or claims["iss"] != issuer
            or claims["aud"] != audience
            or claims["exp"] <= now
            or max(claims["nbf"], claims["iat"]) > now + CLOCK_SKEW_SECONDS
        ):
            raise InvalidTokenError
        return dict(claims)

    def _current(self) -> _Loaded:
        # Listing a few names costs microseconds and, unlike a time stamp, misses no change.
        try:
            names = keys.names(self._keys_dir)
            if names != self._loaded.names:
                self._loaded = _load(self._keys_dir, names)
        except SettingsError as error:
            log.error("keys_not_reloaded", reason=str(error))  # noqa: TRY400 - it says all
        return self._loaded

    def _open(self, _names: tuple[str, ...], token: str) -> tuple[str, Mapping[str, Any]]:
        try:
            return self._verified(token)
        except InvalidTokenError:
            raise
        except Exception:  # noqa: BLE001 - jose lets many kinds out; every one means "no"
            raise InvalidTokenError from None

    def _verified(self, token: str) -> tuple[str, Mapping[str, Any]]:
        parts = _PARTS.fullmatch(token)
        if parts is None:
            raise InvalidTokenError
        header_part, payload_part, signature_part = parts.groups()
        header = _strict_json(_decoded(header_part))
        kid = header.get("kid", "")
        key = self._loaded.public.get(kid)
        # The whole header is known: jku, x5u, jwk, crit and whatever else comes have no place.
        expected = {"alg": ALGORITHMS.ES256, "typ": ACCESS_TYPE, "kid": kid}
        if key is None or header != expected:
            raise InvalidTokenError
        _decoded(signature_part)
        jws.verify(token, key, algorithms=[ALGORITHMS.ES256])
        return kid, _checked(_strict_json(_decoded(payload_part)))


def _load(keys_dir: Path, names: tuple[str, ...]) -> _Loaded:
    found = keys.read(keys_dir)
    construct: Any = jwk.construct
    return _Loaded(
        names=names,
        signing=tuple(
            (key.signs_from, key.kid, construct(key.private, ALGORITHMS.ES256))
            for key in reversed(found)
            if key.private is not None
        ),
        public={key.kid: construct(key.public, ALGORITHMS.ES256) for key in found},
        ends_at={key.kid: key.ends_at for key in found if key.ends_at is not None},
        published=tuple(key.jwk() for key in found),
    )


def _decoded(part: str) -> bytes:
    """Decode base64url, refusing every text but the one its bytes encode to."""
    data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != part:
        raise InvalidTokenError
    return data


def _strict_json(data: bytes) -> dict[str, Any]:
    value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    if not isinstance(value, dict):
        raise InvalidTokenError
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidTokenError
    return found


def _no_constant(_name: str) -> Any:
    raise InvalidTokenError


def _checked(claims: dict[str, Any]) -> dict[str, Any]:
    names = claims.keys()
    if not (names >= _REQUIRED and names <= _REQUIRED | _OPTIONAL):
        raise InvalidTokenError
    if not all(type(claims[name]) is str for name in _TEXT_CLAIMS):
        raise InvalidTokenError
    # bool is an int to Python, a float time may be NaN or beyond what any clock holds.
    if not all(type(claims[name]) is int and 0 <= claims[name] < MAX_TIME for name in _TIME_CLAIMS):
        raise InvalidTokenError
    if not (claims["sub"] and claims["jti"] and type(claims.get("client", "-")) is str):
        raise InvalidTokenError
    return claims


def new_jti(family: str | None = None) -> str:
    """Return a token's id; it begins with the family's when the token has one."""
    own = str(ULID()).lower()
    return f"{family}.{own}" if family else own


def family_of(jti: str) -> str | None:
    """Return the family that a token's id names."""
    family, dot, _ = jti.partition(".")
    return family if dot else None


def claims_for(
    issuer: str, audience: str, subject: str, scope: str, life_seconds: int
) -> dict[str, Any]:
    """Return the claims that every token has (RFC 9068), valid from now on."""
    now = int(time.time())
    return {
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "scope": scope,
        "jti": new_jti(),
        "iat": now,
        "nbf": now,
        "exp": now + life_seconds,
    }


def mint_trigger(
    ring: KeyRing,
    config: settings.Tokens,
    airflow_audience: str,
    client: str,
    dag_id: str,
    *,
    scope: Literal["dags:trigger", "dags:cancel"] = "dags:trigger",
) -> str:
    """Return a token with which runs of one DAG of one client can be started, or ended."""
    claims = _own_claims(config, airflow_audience, scope)
    return ring.sign(claims | {"client": client, "dags": [dag_id]})


def mint_watcher(ring: KeyRing, config: settings.Tokens, airflow_audience: str) -> str:
    """Return a token that may look at runs and change nothing."""
    return ring.sign(_own_claims(config, airflow_audience, "dags:watch"))


def mint_pools(ring: KeyRing, config: settings.Tokens, airflow_audience: str, client: str) -> str:
    """Return a token that may set the size of one client's pool."""
    return ring.sign(_own_claims(config, airflow_audience, "pools:write") | {"client": client})


def _own_claims(config: settings.Tokens, airflow_audience: str, scope: str) -> dict[str, Any]:
    life = config.trigger_seconds
    return claims_for(config.issuer, airflow_audience, "gateway", scope, life)
