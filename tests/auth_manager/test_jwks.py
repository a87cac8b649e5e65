"""The gateway's keys: fetched when needed, and not more often."""

from __future__ import annotations

import time

import pytest
from joserfc.jwk import ECKey, OctKey

from ingest import gateway_api, jwks
from tests.auth_manager import minting
from tests.auth_manager.gateway_fake import APPLICATION, Gateway

JWKS = "/.well-known/jwks.json"


class Clock:
    """A clock the test moves."""

    def __init__(self) -> None:
        self.seconds = 5.0

    def __call__(self) -> float:
        return self.seconds


def ring(gateway: Gateway) -> tuple[jwks.KeyRing, Clock]:
    clock = Clock()
    return jwks.KeyRing(gateway_api.GatewayApi(gateway.url, APPLICATION).key_set, clock), clock


def test_known_key_is_fetched_once(gateway: Gateway) -> None:
    keys, _ = ring(gateway)
    for _ in range(3):
        found = keys.key(gateway.key.kid)
        assert found
        assert found.thumbprint() == gateway.key.thumbprint()
        assert not found.is_private
    assert gateway.count(JWKS) == 1


def test_rotated_key_is_found_at_once_and_the_old_one_is_forgotten(gateway: Gateway) -> None:
    keys, clock = ring(gateway)
    old = gateway.key
    assert keys.key(old.kid)
    gateway.keys = [minting.new_key()]
    clock.seconds += jwks.RETRY_SECONDS
    assert keys.key(gateway.key.kid)
    assert keys.key(old.kid) is None


def test_made_up_key_ids_ask_the_gateway_at_most_once_in_a_few_seconds(gateway: Gateway) -> None:
    keys, clock = ring(gateway)
    assert keys.key(gateway.key.kid)
    clock.seconds += jwks.RETRY_SECONDS
    for number in range(50):
        assert keys.key(f"made-up-{number}") is None
    assert gateway.count(JWKS) == 2


def test_keys_are_asked_for_again_after_a_while(gateway: Gateway) -> None:
    keys, clock = ring(gateway)
    assert keys.key(gateway.key.kid)
    withdrawn = gateway.keys.pop()
    gateway.keys.append(minting.new_key())
    clock.seconds += jwks.FRESH_SECONDS + 1
    assert keys.key(withdrawn.kid) is None


def test_cached_keys_outlast_a_short_absence_of_the_gateway_and_not_a_long_one(
    gateway: Gateway,
) -> None:
    keys, clock = ring(gateway)
    assert keys.key(gateway.key.kid)
    gateway.fault = (503, {}, b"{}")
    clock.seconds += jwks.FRESH_SECONDS + 1
    assert keys.key(gateway.key.kid)
    clock.seconds += jwks.STALE_SECONDS
    with pytest.raises(jwks.KeysUnavailableError):
        keys.key(gateway.key.kid)


@pytest.mark.parametrize(
    "fault",
    [
        (503, {}, b"{}"),
        (302, {"Location": "/elsewhere"}, b"{}"),
        (200, {}, b"<html>"),
        (200, {}, b"[]"),
        (200, {}, b'{"keys": 1}'),
        (200, {}, b'{"keys": [' + b" " * 70_000 + b"]}"),
    ],
)
def test_without_a_key_set_nothing_is_decided(
    gateway: Gateway, fault: tuple[int, dict[str, str], bytes]
) -> None:
    gateway.fault = fault
    keys, _ = ring(gateway)
    with pytest.raises(jwks.KeysUnavailableError):
        keys.key(gateway.key.kid)
    assert gateway.count("/elsewhere") == 0


def test_only_signature_keys_for_es256_named_by_their_thumbprint_are_taken() -> None:
    good = minting.public(minting.new_key())
    other = {"kid": "x"}
    entries = [
        good,
        {**minting.public(minting.new_key()), "kid": "named-freely"},
        {**minting.public(minting.new_key()), "use": "enc"},
        {**minting.public(minting.new_key()), "alg": "HS256"},
        {**ECKey.generate_key("P-384").as_dict(private=False), **other},
        {**OctKey.generate_key(256).as_dict(private=True), **other},
        {**minting.public(minting.new_key()), "x": "AA"},
        {**minting.public(minting.new_key()), "kid": 1},
        {},
        "key",
    ]
    keys = jwks.KeyRing(lambda: {"keys": entries}, Clock())
    assert keys.key(good["kid"])
    for entry in entries[1:8]:
        assert keys.key(str(entry["kid"])) is None


def test_a_retired_key_verifies_no_tokens_any_more(gateway: Gateway) -> None:
    retired, waiting = minting.new_key(), minting.new_key()
    now = int(time.time())
    known = [{**minting.public(retired), "exp": now - 1}, {**minting.public(waiting), "nbf": now}]
    document = {"keys": [*known, {**minting.public(gateway.key), "exp": now + 900}]}
    keys = jwks.KeyRing(lambda: document)
    assert keys.key(retired.kid) is None
    assert keys.key(gateway.key.kid)
    assert keys.key(waiting.kid)


@pytest.mark.parametrize("end", ["tomorrow", None, [], {}, "1767225600"])
def test_a_key_whose_end_cannot_be_read_verifies_nothing(gateway: Gateway, end: object) -> None:
    keys = jwks.KeyRing(lambda: {"keys": [{**minting.public(gateway.key), "exp": end}]})
    assert keys.key(gateway.key.kid) is None
