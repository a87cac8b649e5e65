"""Verification of the gateway's access tokens (RFC 9068, ES256).

The library checks the signature; everything else is checked here, in the open: shape and size
before any parsing, strict JSON, exactly three header fields, and one closed model of the claims for
each kind of token. A claim that this side does not know refuses the token, because it might be
there to narrow it.
"""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from joserfc import jws
from jwt import ExpiredSignatureError, InvalidTokenError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ingest.users import GatewayUser, Kind

if TYPE_CHECKING:
    from joserfc.jwk import ECKey

MAX_LENGTH = 4096
# A token may be a little younger than this machine's clock, never older than its own end.
CLOCK_SKEW_SECONDS = 5
SERVICE_LIFE_SECONDS = 300
PERSON_LIFE_SECONDS = 900
SERVICE = "gateway"

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_HEADER_FIELDS = {"alg", "kid", "typ"}

Client = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,30}\z")]
DagId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,250}\z")]
Scope = Annotated[str, Field(pattern=r"^[a-z:]+( [a-z:]+)*\z", max_length=500)]
Seconds = Annotated[int, Field(ge=0, le=2**53)]


class TokenRefusedError(InvalidTokenError):
    """The token is not acceptable; Airflow answers 403."""


class TokenExpiredError(ExpiredSignatureError):
    """The token was good and has ended; Airflow answers 401."""


class Keys(Protocol):
    """Where verification keys come from."""

    def key(self, kid: str) -> ECKey | None:
        """Return the key with this id, if there is one."""


class Claims(BaseModel):
    """What every token says (RFC 9068, section 2.2)."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    iss: str
    aud: Literal["airflow"]
    sub: Annotated[str, Field(min_length=1, max_length=255)]
    jti: Annotated[str, Field(min_length=1, max_length=128)]
    iat: Seconds
    nbf: Seconds
    exp: Seconds
    scope: Scope


class TriggerClaims(Claims):
    """The gateway starting runs of one client's DAGs."""

    sub: Literal["gateway"]
    scope: Literal["dags:trigger"]
    client: Client
    dags: Annotated[list[DagId], Field(min_length=1, max_length=100)]


class CancelClaims(Claims):
    """The gateway ending a run of one client's DAG."""

    sub: Literal["gateway"]
    scope: Literal["dags:cancel"]
    client: Client
    dags: Annotated[list[DagId], Field(min_length=1, max_length=100)]


class WatcherClaims(Claims):
    """The gateway looking how runs are doing."""

    sub: Literal["gateway"]
    scope: Literal["dags:watch"]


class PoolsClaims(Claims):
    """The gateway setting up one client's pool."""

    sub: Literal["gateway"]
    scope: Literal["pools:write"]
    client: Client


class PersonClaims(Claims):
    """Somebody of a client."""

    client: Client


class AdminClaims(Claims):
    """Somebody of the platform, who may belong to a client as well."""

    client: Client | None = None


_SERVICES: dict[str, tuple[Kind, type[Claims]]] = {
    "dags:trigger": (Kind.TRIGGER, TriggerClaims),
    "dags:cancel": (Kind.CANCEL, CancelClaims),
    "dags:watch": (Kind.WATCHER, WatcherClaims),
    "pools:write": (Kind.POOLS, PoolsClaims),
}
_READING = "batches:read"
_ADMIN = "admin"


@dataclass(frozen=True)
class Unverified:
    """A token that is well-formed. Nothing in it may be believed yet."""

    text: str
    header: dict[str, Any]
    claims: dict[str, Any]


def parse(token: str) -> Unverified:
    """Take a compact token apart, strictly.

    Raises
    ------
    TokenRefusedError
        Too long, not three canonical base64url parts, or not two strict JSON objects.
    """
    if len(token) > MAX_LENGTH or not _COMPACT.fullmatch(token):
        raise TokenRefusedError("shape")
    header, payload, _ = (_decode(part) for part in token.split("."))
    return Unverified(text=token, header=_strict_object(header), claims=_strict_object(payload))


def verify(
    unverified: Unverified, *, keys: Keys, issuer: str, now: float | None = None
) -> GatewayUser:
    """Check a parsed token wholly and say who it speaks for.

    Raises
    ------
    TokenRefusedError
        Anything is wrong with it.
    TokenExpiredError
        Only its time has passed.
    jwks.KeysUnavailableError
        The gateway's keys cannot be had; nothing is known about the token.
    """
    key = keys.key(_key_id(unverified.header))
    if key is None:
        raise TokenRefusedError("unknown key")
    _check_signature(unverified.text, key)
    kind, claims = _claims(unverified.claims)
    if claims.iss != issuer:
        raise TokenRefusedError("issuer")
    _check_times(kind, claims, time.time() if now is None else now)
    return _user(kind, claims)


def _decode(part: str) -> bytes:
    """Decode canonical base64url: one text for each value (RFC 4648, section 3.5)."""
    try:
        raw = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise TokenRefusedError("encoding") from error
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != part:
        raise TokenRefusedError("encoding")
    return raw


def _strict_object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise TokenRefusedError("json") from error
    if not isinstance(value, dict):
        raise TokenRefusedError("json")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _key_id(header: dict[str, Any]) -> str:
    if set(header) != _HEADER_FIELDS or header["alg"] != "ES256" or header["typ"] != "at+jwt":
        raise TokenRefusedError("header")
    kid = header["kid"]
    if not isinstance(kid, str) or not kid:
        raise TokenRefusedError("header")
    return kid


def _check_signature(token: str, key: ECKey) -> None:
    try:
        jws.deserialize_compact(token, key, algorithms=["ES256"])
    except Exception as error:  # Whatever a library raises over hostile bytes, the answer is no.
        raise TokenRefusedError("signature") from error


def _claims(claims: dict[str, Any]) -> tuple[Kind, Claims]:
    kind, model = _kind(claims)
    try:
        return kind, model.model_validate(claims)
    except ValidationError as error:
        raise TokenRefusedError("claims") from error


def _kind(claims: dict[str, Any]) -> tuple[Kind, type[Claims]]:
    scope = claims.get("scope")
    if not isinstance(scope, str):
        raise TokenRefusedError("scope")
    if claims.get("sub") == SERVICE:
        if scope not in _SERVICES:
            raise TokenRefusedError("scope")
        return _SERVICES[scope]
    scopes = set(scope.split(" "))
    if scopes & set(_SERVICES):
        raise TokenRefusedError("scope")
    if _ADMIN in scopes:
        return Kind.ADMIN, AdminClaims
    if _READING not in scopes:
        raise TokenRefusedError("scope")
    return Kind.PERSON, PersonClaims


def _check_times(kind: Kind, claims: Claims, now: float) -> None:
    longest = PERSON_LIFE_SECONDS if kind in {Kind.PERSON, Kind.ADMIN} else SERVICE_LIFE_SECONDS
    if not 0 < claims.exp - claims.iat <= longest:
        raise TokenRefusedError("life")
    if max(claims.iat, claims.nbf) > now + CLOCK_SKEW_SECONDS:
        raise TokenRefusedError("not yet valid")
    if now >= claims.exp:
        raise TokenExpiredError


def _user(kind: Kind, claims: Claims) -> GatewayUser:
    return GatewayUser(
        sub=claims.sub,
        kind=kind,
        expires_at=claims.exp,
        client=getattr(claims, "client", None),
        scopes=frozenset(claims.scope.split(" ")),
        dags=frozenset(getattr(claims, "dags", ())),
    )
