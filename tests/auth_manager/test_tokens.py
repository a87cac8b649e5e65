"""Which tokens open Airflow, and the many that do not."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from ingest import tokens
from ingest.users import GatewayUser, Kind
from tests.auth_manager import minting
from tests.auth_manager.minting import ISSUER, b64, claims, sign, sign_raw

if TYPE_CHECKING:
    from collections.abc import Callable

    from joserfc.jwk import ECKey

KEY = minting.new_key()
OTHER = minting.new_key()
KINDS = tuple(minting.GOLDEN)


class OneKey:
    """A key ring with the gateway's one key."""

    def key(self, kid: str) -> ECKey | None:
        """Return it for its own id only."""
        return KEY if kid == KEY.kid else None


def verify(token: str, now: float | None = None) -> GatewayUser:
    return tokens.verify(tokens.parse(token), keys=OneKey(), issuer=ISSUER, now=now)


@pytest.mark.parametrize("kind", KINDS)
def test_golden_claims_of_each_kind_are_accepted_as_they_stand(kind: str) -> None:
    golden = minting.GOLDEN[kind]
    user = verify(sign(KEY, golden["claims"], **golden["header"]), now=golden["claims"]["iat"])
    assert user.kind is Kind(kind)
    assert user.sub == golden["claims"]["sub"]
    assert user.client == golden["claims"].get("client")
    assert user.scopes == set(golden["claims"]["scope"].split())
    assert user.dags == set(golden["claims"].get("dags", ()))
    assert user.expires_at == golden["claims"]["exp"]


@pytest.mark.parametrize("kind", KINDS)
def test_life_may_be_the_longest_allowed_and_no_second_longer(kind: str) -> None:
    issued, longest = int(time.time()), minting.GOLDEN[kind]["max_life_seconds"]
    assert verify(sign(KEY, claims(kind, now=issued, exp=issued + longest)))
    with pytest.raises(tokens.TokenRefusedError, match="life"):
        verify(sign(KEY, claims(kind, now=issued, exp=issued + longest + 1)))


@pytest.mark.parametrize("kind", KINDS)
def test_token_is_good_until_its_end_and_not_in_that_second(kind: str) -> None:
    token = sign(KEY, claims(kind, now=1_000_000))
    end = minting.claims_of(token)["exp"]
    assert verify(token, now=end - 1)
    with pytest.raises(tokens.TokenExpiredError):
        verify(token, now=end)


def test_issuing_clock_may_be_a_little_ahead() -> None:
    token = sign(KEY, claims("trigger", now=1_000_000))
    assert verify(token, now=1_000_000 - tokens.CLOCK_SKEW_SECONDS)
    with pytest.raises(tokens.TokenRefusedError, match="not yet"):
        verify(token, now=1_000_000 - tokens.CLOCK_SKEW_SECONDS - 1)


def test_admin_who_belongs_to_a_client_is_an_admin() -> None:
    user = verify(sign(KEY, claims("admin", client="acme", scope="admin batches:read")))
    assert (user.kind, user.client) == (Kind.ADMIN, "acme")


@pytest.mark.parametrize(
    ("scope", "kind"),
    [
        ("batches:read", Kind.VIEWER),
        ("batches:read batches:write", Kind.VIEWER),
        ("batches:read jobs:write", Kind.OPERATOR),
        ("batches:read jobs:write audit:read", Kind.AUDITOR),
        ("batches:read jobs:write audit:read admin", Kind.ADMIN),
    ],
)
def test_a_persons_role_follows_from_the_scopes(scope: str, kind: Kind) -> None:
    assert verify(sign(KEY, claims("operator", scope=scope))).kind is kind


def test_who_loses_a_scope_in_an_open_session_loses_its_role() -> None:
    operator = verify(sign(KEY, claims("operator")))
    left = tokens.narrowed(operator, "acme", frozenset({"batches:read"}))
    assert left is not None
    assert left.kind is Kind.VIEWER
    more = tokens.narrowed(left, "acme", frozenset({"batches:read", "jobs:write", "admin"}))
    assert more is not None
    assert more.kind is Kind.VIEWER
    assert tokens.narrowed(operator, "globex", operator.scopes) is None


CLAIM_ATTACKS: dict[str, dict[str, Any]] = {
    "another audience": {"aud": "gateway"},
    "a list of audiences": {"aud": ["airflow"]},
    "the execution API's audience": {"aud": "urn:airflow.apache.org:task"},
    "another issuer": {"iss": "https://evil.example"},
    "issuer with a slash": {"iss": ISSUER + "/"},
    "two clients": {"client": ["acme", "globex"]},
    "two clients in one text": {"client": "acme globex"},
    "a client that is a path": {"client": "../acme"},
    "a client with a newline": {"client": "acme\n"},
    "no client": {"client": None},
    "no dags": {"dags": None},
    "empty dags": {"dags": []},
    "dags as a text": {"dags": "acme__flights"},
    "dags with a wildcard": {"dags": ["~"]},
    "dags with a number": {"dags": [1]},
    "another scope": {"scope": "admin"},
    "two scopes": {"scope": "dags:trigger admin"},
    "a person's scope": {"scope": "batches:read"},
    "scope as a list": {"scope": ["dags:trigger"]},
    "an unknown claim": {"projects": ["flights"]},
    "no subject": {"sub": None},
    "an empty subject": {"sub": ""},
    "a number as subject": {"sub": 1},
    "no id": {"jti": None},
    "an endless id": {"jti": "x" * 129},
    "begins tomorrow": {"nbf": int(time.time()) + 86_400},
    "issued tomorrow": {"iat": int(time.time()) + 86_400, "exp": int(time.time()) + 86_460},
    "ends before it begins": {"exp": int(time.time()) - 10, "iat": int(time.time())},
    "issued in 1969": {"iat": -1},
    "ends in the far future": {"exp": 10**30},
    **{f"no {name}": {name: None} for name in ("iss", "aud", "exp", "iat", "nbf", "scope")},
    **{f"{name} as text": {name: str(int(time.time()) + 60)} for name in ("exp", "iat", "nbf")},
    **{f"{name} as float": {name: time.time() + 30.5} for name in ("exp", "iat", "nbf")},
    **{f"{name} as whole float": {name: float(int(time.time()))} for name in ("exp", "iat", "nbf")},
    **{f"{name} as bool": {name: True} for name in ("exp", "iat", "nbf")},
}


@pytest.mark.parametrize("changes", CLAIM_ATTACKS.values(), ids=CLAIM_ATTACKS.keys())
def test_rightly_signed_claims_that_are_not_exactly_right_are_refused(
    changes: dict[str, Any],
) -> None:
    assert verify(sign(KEY, claims("trigger")))
    with pytest.raises(tokens.TokenRefusedError):
        verify(sign(KEY, claims("trigger", **changes)))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("cancel", {"dags": None}),
        ("cancel", {"client": None}),
        ("cancel", {"scope": "dags:cancel dags:trigger"}),
        ("watcher", {"client": "acme"}),
        ("watcher", {"dags": ["acme__flights"]}),
        ("pools", {"client": None}),
        ("pools", {"dags": ["acme__flights"]}),
        ("operator", {"client": None}),
        ("viewer", {"client": None}),
        ("viewer", {"scope": "jobs:write"}),
        ("auditor", {"scope": "audit:read dags:watch"}),
        ("auditor", {"client": ["acme"]}),
        ("operator", {"scope": "batches:write"}),
        ("operator", {"scope": "batches:read dags:watch"}),
        ("operator", {"scope": "batches:read  admin"}),
        ("operator", {"scope": ""}),
        ("operator", {"dags": ["acme__flights"]}),
        ("admin", {"client": ["acme"]}),
        ("admin", {"scope": "admin pools:write"}),
        ("admin", {"sub": "gateway"}),
    ],
)
def test_no_kind_borrows_anything_from_another(kind: str, changes: dict[str, Any]) -> None:
    with pytest.raises(tokens.TokenRefusedError):
        verify(sign(KEY, claims(kind, **changes)))


HEADER_ATTACKS: dict[str, dict[str, Any]] = {
    "an unknown key id": {"kid": OTHER.kid},
    "no key id": {"kid": None},
    "a number as key id": {"kid": 1},
    "a list as key id": {"kid": [KEY.kid]},
    "an empty key id": {"kid": ""},
    "typ JWT": {"typ": "JWT"},
    "typ of a receipt": {"typ": "receipt+jws"},
    "no typ": {"typ": None},
    "typ in capitals": {"typ": "AT+JWT"},
    "alg none": {"alg": "none"},
    "alg ES384": {"alg": "ES384"},
    "alg in small letters": {"alg": "es256"},
    "no alg": {"alg": None},
    "alg as a list": {"alg": ["ES256"]},
    "jku": {"jku": "https://evil.example/jwks.json"},
    "x5u": {"x5u": "https://evil.example/cert.pem"},
    "jwk": {"jwk": minting.public(OTHER)},
    "crit": {"crit": ["exp"]},
    "b64": {"b64": False, "crit": ["b64"]},
    "zip": {"zip": "DEF"},
}


@pytest.mark.parametrize("header", HEADER_ATTACKS.values(), ids=HEADER_ATTACKS.keys())
def test_a_header_that_is_not_exactly_right_is_refused(header: dict[str, Any]) -> None:
    with pytest.raises(tokens.TokenRefusedError):
        verify(sign(KEY, claims("trigger"), **header))


def test_key_in_the_header_does_not_verify_its_own_token() -> None:
    with pytest.raises(tokens.TokenRefusedError):
        verify(sign(OTHER, claims("admin"), kid=KEY.kid, jwk=minting.public(OTHER)))


def test_another_key_under_our_key_id_is_refused() -> None:
    with pytest.raises(tokens.TokenRefusedError, match="signature"):
        verify(sign(OTHER, claims("admin"), kid=KEY.kid))


def test_unsigned_token_is_refused() -> None:
    header = {"alg": "none", "typ": "at+jwt", "kid": KEY.kid}
    text = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims('admin')).encode())}."
    with pytest.raises(tokens.TokenRefusedError):
        verify(text)
    with pytest.raises(tokens.TokenRefusedError):
        verify(sign(KEY, claims("admin")).rpartition(".")[0] + ".")


@pytest.mark.parametrize("form", ["pem", "der", "jwk"])
def test_hmac_with_our_public_key_is_refused(form: str) -> None:
    secret = {
        "pem": lambda: KEY.as_pem(private=False),
        "der": lambda: KEY.as_der(private=False),
        "jwk": lambda: json.dumps(KEY.as_dict(private=False)).encode(),
    }[form]()
    for alg in ("HS256", "ES256"):
        header = json.dumps({"alg": alg, "typ": "at+jwt", "kid": KEY.kid}).encode()
        signed = f"{b64(header)}.{b64(json.dumps(claims('admin')).encode())}"
        mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        with pytest.raises(tokens.TokenRefusedError):
            verify(f"{signed}.{b64(mac)}")


def _last_bits(token: str) -> str:
    """Write the same signature differently: 86 characters carry four bits nobody reads."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


def _zero_signature(token: str) -> str:
    return token.rpartition(".")[0] + "." + b64(bytes(64))


def _changed_payload(token: str) -> str:
    header, _, signature = token.split(".")
    return ".".join([header, b64(json.dumps(claims("admin")).encode()), signature])


MALLEATIONS: dict[str, Callable[[str], str]] = {
    "unread bits of the signature": _last_bits,
    "padding": lambda token: token + "==",
    "a space at the end": lambda token: token + " ",
    "a newline at the end": lambda token: token + "\n",
    "a newline inside": lambda token: token[:50] + "\n" + token[50:],
    "standard base64": lambda token: token.replace("-", "+").replace("_", "/") + "+",
    "four parts": lambda token: token + ".e30",
    "two parts": lambda token: token.rpartition(".")[0],
    "an empty header": lambda token: "." + token.partition(".")[2],
    "a short signature": lambda token: token[:-4],
    "a long signature": lambda token: token + "AAAA",
    "a signature of zeros": _zero_signature,
    "other claims": _changed_payload,
    "a letter that looks like another": lambda token: token.replace("e", "\u0435", 1),
    "nothing": lambda _: "",
}


@pytest.mark.parametrize("change", MALLEATIONS.values(), ids=MALLEATIONS.keys())
def test_a_token_has_one_spelling(change: Callable[[str], str]) -> None:
    token = sign(KEY, claims("trigger"))
    assert verify(token)
    with pytest.raises(tokens.TokenRefusedError):
        verify(change(token))


def test_second_spelling_of_the_same_bytes_is_refused_before_any_key_is_looked_for() -> None:
    with pytest.raises(tokens.TokenRefusedError, match="encoding"):
        tokens.parse(_last_bits(sign(KEY, claims("trigger"))))


def test_over_long_token_is_refused_before_it_is_parsed() -> None:
    text = sign(KEY, claims("trigger", dags=[f"acme__{'x' * 230}_{n}" for n in range(20)]))
    assert len(text) > tokens.MAX_LENGTH
    with pytest.raises(tokens.TokenRefusedError, match="shape"):
        tokens.parse(text)


def _with_payload(payload: str) -> str:
    return sign(KEY, payload.encode())


GOOD = json.dumps(claims("trigger"))
HOSTILE_JSON = {
    "a claim twice": _with_payload(GOOD[:-1] + ', "client": "globex"}'),
    "NaN": _with_payload(GOOD.replace('"exp": ', '"exp": NaN, "was": ')),
    "Infinity": _with_payload(GOOD[:-1] + ', "x": Infinity}'),
    "a list": _with_payload(f"[{GOOD}]"),
    "not JSON": _with_payload("exp=1"),
    "not UTF-8": sign(KEY, b'{"sub": "\xff"}'),
    "a lone surrogate": _with_payload(GOOD.replace('"gateway"', '"\\ud800"')),
    "deep nesting": _with_payload("[" * 1400 + "]" * 1400),
    "a deep header": sign_raw(KEY, b"[" * 1200 + b"]" * 1200, GOOD.encode()),
    "a huge number": _with_payload(GOOD[:-1] + ', "x": ' + "9" * 2500 + "}"),
    "alg twice": sign_raw(
        KEY,
        f'{{"alg": "none", "alg": "ES256", "typ": "at+jwt", "kid": "{KEY.kid}"}}'.encode(),
        GOOD.encode(),
    ),
}


@pytest.mark.parametrize("token", HOSTILE_JSON.values(), ids=HOSTILE_JSON.keys())
def test_hostile_json_is_refused(token: str) -> None:
    assert len(token) <= tokens.MAX_LENGTH
    with pytest.raises(tokens.TokenRefusedError):
        verify(token)
