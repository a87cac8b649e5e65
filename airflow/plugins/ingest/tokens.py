"""Verification of the gateway's access tokens (RFC 9068, ES256).

The library checks the signature; everything else is checked here, in the open: shape and size
before any parsing, strict JSON, exactly three header fields, and a closed model of the claims (`claims`).
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from joserfc import jws
from jwt import ExpiredSignatureError, InvalidTokenError
from pydantic import ValidationError

from ingest.claims import (
    CancelClaims,
    Claims,
    IdentityClaims,
    PersonClaims,
    PlatformClaims,
    PoolsClaims,
    TriggerClaims,
    WatcherClaims,
)
from ingest.users import CLIENTS_PEOPLE, PEOPLE, GatewayUser, Kind

if TYPE_CHECKING:
    from collections.abc import Collection

    from joserfc.jwk import ECKey

MAX_LENGTH = 4096
# A token may be a little younger than this machine's clock, never older than its own end.
CLOCK_SKEW_SECONDS = 5
SERVICE_LIFE_SECONDS = 300
PERSON_LIFE_SECONDS = 900
SERVICE = "gateway"

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_HEADER_FIELDS = {"alg", "kid", "typ"}
_ACCESS, _IDENTITY = "at+jwt", "JWT"


class TokenRefusedError(InvalidTokenError):
    """The token is not acceptable; Airflow answers 403."""


class TokenExpiredError(ExpiredSignatureError):
    """The token was good and has ended; Airflow answers 401."""


class Keys(Protocol):
    """Where verification keys come from."""

    def key(self, kid: str) -> ECKey | None:
        """Return the key with this id, if there is one."""


_SERVICES: dict[str, tuple[Kind, type[Claims]]] = {
    "dags:trigger": (Kind.TRIGGER, TriggerClaims),
    "dags:cancel": (Kind.CANCEL, CancelClaims),
    "dags:watch": (Kind.WATCHER, WatcherClaims),
    "pools:write": (Kind.POOLS, PoolsClaims),
}
# Which role a person's scopes give, the strongest first. Who audits changes nothing, not even where
# the same person operates: for that they sign on as somebody of the client.
_ROLES = (
    (Kind.ADMIN, frozenset({"admin"})),
    (Kind.AUDITOR, frozenset({"audit:read"})),
    (Kind.OPERATOR, frozenset({"batches:read", "jobs:write"})),
    (Kind.VIEWER, frozenset({"batches:read"})),
)


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
    _check_signature(unverified, keys, _ACCESS)
    kind, claims = _claims(unverified.claims)
    if claims.iss != issuer:
        raise TokenRefusedError("issuer")
    _check_times(kind, claims, time.time() if now is None else now)
    return _user(kind, claims)


def verify_identity(
    unverified: Unverified, *, keys: Keys, issuer: str, application: str, nonce: str
) -> str:
    """Check a parsed identity token wholly and return whose it is.

    Raises
    ------
    TokenRefusedError
        It is not the gateway's, not for this application, or not the answer to this question.
    jwks.KeysUnavailableError
        The gateway's keys cannot be had; nothing is known about the token.
    """
    _check_signature(unverified, keys, _IDENTITY)
    try:
        claims = IdentityClaims.model_validate(unverified.claims)
    except ValidationError as error:
        raise TokenRefusedError("claims") from error
    if (claims.iss, claims.aud) != (issuer, application):
        raise TokenRefusedError("issuer or audience")
    if not hmac.compare_digest(claims.nonce.encode(), nonce.encode()):
        raise TokenRefusedError("nonce")
    if not claims.iat - CLOCK_SKEW_SECONDS <= time.time() < claims.exp:
        raise TokenRefusedError("life")
    return claims.sub


def session_of(jti: str) -> str | None:
    """Return the gateway's name for the sign-on that a token came of: before the id's dot."""
    family, dot, _ = jti.partition(".")
    return family if dot else None


def narrowed(user: GatewayUser, client: str | None, scopes: frozenset[str]) -> GatewayUser | None:
    """Return a person with what is left of their rights; None when nothing is.

    Rights only ever become fewer: more of them need a new sign-on.
    """
    left = user.scopes & scopes
    kind = _person_kind(left)
    if kind is None or client != user.client:
        return None
    return replace(user, kind=kind, scopes=left)


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


def _key_id(header: dict[str, Any], kind: str) -> str:
    if set(header) != _HEADER_FIELDS or header["alg"] != "ES256" or header["typ"] != kind:
        raise TokenRefusedError("header")
    kid = header["kid"]
    if not isinstance(kid, str) or not kid:
        raise TokenRefusedError("header")
    return kid


def _check_signature(unverified: Unverified, keys: Keys, kind: str) -> None:
    key = keys.key(_key_id(unverified.header, kind))
    if key is None:
        raise TokenRefusedError("unknown key")
    try:
        jws.deserialize_compact(unverified.text, key, algorithms=["ES256"])
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
    kind = _person_kind(scopes)
    if kind is None:
        raise TokenRefusedError("scope")
    return kind, PersonClaims if kind in CLIENTS_PEOPLE else PlatformClaims


def _person_kind(scopes: Collection[str]) -> Kind | None:
    return next((kind for kind, needed in _ROLES if needed <= set(scopes)), None)


def _check_times(kind: Kind, claims: Claims, now: float) -> None:
    longest = PERSON_LIFE_SECONDS if kind in PEOPLE else SERVICE_LIFE_SECONDS
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
        session=session_of(claims.jti) if kind in PEOPLE else None,
    )
