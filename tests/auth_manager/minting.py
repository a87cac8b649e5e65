"""Keys and tokens as the gateway makes them, and as an attacker would like to."""

from __future__ import annotations

import base64
import json
import time
import uuid
from pathlib import Path
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "airflow/contract/token_claims.json").read_text())
# Ends a run of one DAG, as a trigger token starts one.
GOLDEN.setdefault(
    "cancel",
    {
        **GOLDEN["trigger"],
        "claims": {**GOLDEN["trigger"]["claims"], "scope": "dags:cancel"},
    },
)
ISSUER = "https://gateway.example"


def new_key() -> ECKey:
    """Return a key pair named by its thumbprint."""
    key = ECKey.generate_key("P-256")
    return ECKey.import_key({**key.as_dict(private=True), "kid": key.thumbprint()})


def public(key: ECKey) -> dict[str, Any]:
    """Return the key as it stands in the gateway's key set."""
    return {**key.as_dict(private=False), "use": "sig", "alg": "ES256"}


def claims(kind: str, *, now: float | None = None, **changes: Any) -> dict[str, Any]:
    """Return the golden claims of one kind, issued now; a change to None removes a claim."""
    golden = GOLDEN[kind]["claims"]
    issued = int(time.time() if now is None else now)
    fresh = {
        **golden,
        "jti": _jti(golden["jti"]),
        "iat": issued,
        "nbf": issued,
        "exp": issued + golden["exp"] - golden["iat"],
    }
    changed = {**fresh, **changes}
    return {name: value for name, value in changed.items() if value is not None}


def _jti(golden: str) -> str:
    """Return a new id of the same form: people's begin with that of their sign-on."""
    family = f"fam_{uuid.uuid4().hex[:26]}." if "." in golden else ""
    return family + uuid.uuid4().hex[:26]


def identity(**changes: Any) -> dict[str, Any]:
    """Return the golden claims of an identity token, issued now; None removes a claim."""
    golden = json.loads((ROOT / "airflow/contract/identity_claims.json").read_text())["claims"]
    now = int(time.time())
    fresh = {**golden, "iat": now, "exp": now + 120, "auth_time": now - 60, **changes}
    return {name: value for name, value in fresh.items() if value is not None}


def b64(raw: bytes) -> str:
    """Encode as JOSE does."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims_of(token: str) -> dict[str, Any]:
    """Read a token's claims without judging it."""
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def sign(key: ECKey, payload: dict[str, Any] | bytes, **header: Any) -> str:
    """Sign claims as the gateway does; header fields can be changed, or removed with None."""
    fields = {"alg": "ES256", "typ": "at+jwt", "kid": key.kid, **header}
    return sign_raw(
        key,
        json.dumps({name: value for name, value in fields.items() if value is not None}).encode(),
        payload if isinstance(payload, bytes) else json.dumps(payload).encode(),
    )


def sign_raw(key: ECKey, header: bytes, payload: bytes) -> str:
    """Sign any bytes at all with ES256."""
    signed = f"{b64(header)}.{b64(payload)}"
    algorithm = jws.JWSRegistry.algorithms["ES256"]
    return f"{signed}.{b64(algorithm.sign(signed.encode(), key))}"
