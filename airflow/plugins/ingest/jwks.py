"""The gateway's public keys, cached.

Keys are fetched when first needed, again after a few minutes, and at once for an unknown key id —
but never more than once in a few seconds, so that made-up key ids cannot be used to knock on the
gateway's door.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING, Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from ingest import gateway_api

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

FRESH_SECONDS = 300.0
# After a rotation nobody could confirm, old keys stop counting: no authority without the gateway.
STALE_SECONDS = 1800.0
RETRY_SECONDS = 3.0


class KeysUnavailableError(Exception):
    """The gateway cannot be asked for its keys, so nothing can be said about a token."""


class KeyRing:
    """Look up verification keys by key id.

    Parameters
    ----------
    fetch
        Returns the key set document; raises `gateway_api.GatewayAwayError`.
    clock
        Seconds, monotonic.
    """

    def __init__(
        self, fetch: Callable[[], dict[str, Any]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str, tuple[ECKey, float]] = {}
        self._fetched_at = -STALE_SECONDS
        self._tried_at = -RETRY_SECONDS
        self._started_at = clock()

    def key(self, kid: str) -> ECKey | None:
        """Return the key with this id, or None when the gateway has no such key.

        Raises
        ------
        KeysUnavailableError
            The gateway is away and what is cached is too old, or nothing is cached.
        """
        if kid not in self._keys or self._age() > FRESH_SECONDS:
            self._refresh(kid)
        if self._age() >= STALE_SECONDS:
            raise KeysUnavailableError
        key, ends_at = self._keys.get(kid, (None, 0.0))
        # Kept by the gateway for receipts; everything else that it signed has expired.
        return key if ends_at > time.time() else None

    def _age(self) -> float:
        return self._now() - self._fetched_at

    def _now(self) -> float:
        # Counted from this ring's beginning: a monotonic clock may itself begin near zero.
        return self._clock() - self._started_at

    def _refresh(self, kid: str) -> None:
        # Whoever holds an old key goes on with it while somebody else asks for new ones.
        if not self._lock.acquire(blocking=kid not in self._keys):
            return
        try:
            done_meanwhile = kid in self._keys and self._age() <= FRESH_SECONDS
            if not done_meanwhile and self._now() - self._tried_at >= RETRY_SECONDS:
                self._fetch_now()
        finally:
            self._lock.release()

    def _fetch_now(self) -> None:
        self._tried_at = self._now()
        try:
            self._keys = _verification_keys(self._fetch())
        except gateway_api.GatewayAwayError:
            log.warning("The gateway's keys cannot be fetched")
            return
        self._fetched_at = self._now()


def _verification_keys(document: dict[str, Any]) -> dict[str, tuple[ECKey, float]]:
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise gateway_api.GatewayAwayError
    found = ((_key(entry), _end(entry)) for entry in entries if isinstance(entry, dict))
    return {key.kid: (key, ends_at) for key, ends_at in found if key and key.kid}


def _end(entry: dict[str, Any]) -> float:
    """Return when a key verifies no more tokens (``exp``, as in OpenID Federation)."""
    ends_at = entry.get("exp", math.inf)
    return ends_at if isinstance(ends_at, int | float) else 0.0


def _key(entry: dict[str, Any]) -> ECKey | None:
    """Import one key, if it is for ES256 signatures and names itself by its thumbprint."""
    wanted = {"kty": "EC", "crv": "P-256"}
    if any(entry.get(name) != value for name, value in wanted.items()):
        return None
    if entry.get("use", "sig") != "sig" or entry.get("alg", "ES256") != "ES256":
        return None
    try:
        key = ECKey.import_key({**wanted, "x": entry["x"], "y": entry["y"], "kid": entry["kid"]})
    except (JoseError, KeyError, TypeError, ValueError):
        return None
    return key if key.kid == key.thumbprint() else None
