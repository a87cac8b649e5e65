"""Digest headers of RFC 9530: ``Repr-Digest`` and ``Content-Digest``, SHA-256 only."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

from gateway.errors import Fault, GatewayError, InvalidRequestError

# A dictionary of RFC 8941 whose values are byte sequences: sha-256=:…:, sha-512=:…:
_MEMBER = re.compile(r"([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/=]*):")
SHA256_BYTES = 32


class DigestMismatchError(GatewayError):
    """The bytes that arrived are not those that were announced."""

    slug = "digest-mismatch"
    status = 422
    title = "The digest does not match"


def expected(headers: Mapping[str, str]) -> str | None:
    """Return the SHA-256 (lower-case hex) that the headers demand, None when they demand none.

    Raises
    ------
    InvalidRequestError
        A header is malformed, or the two contradict each other. The body is sent without
        content coding, so that content and representation are the same bytes.
    """
    found = {
        digest
        for name in ("repr-digest", "content-digest")
        if (digest := _sha256(name, headers.get(name)))
    }
    if len(found) > 1:
        raise InvalidRequestError("Repr-Digest and Content-Digest contradict each other.")
    return found.pop() if found else None


def header(sha256: str) -> str:
    """Return the header's value for a digest in hex."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def _sha256(name: str, value: str | None) -> str | None:
    if value is None or not value.strip():
        return None
    members = [_MEMBER.fullmatch(each.strip()) for each in value.split(",")]
    if not all(members):
        raise _malformed(name)
    # Other algorithms may be ignored (RFC 9530 §2); of one key's members the last counts.
    found = {member[1]: member[2] for member in members if member}
    encoded = found.get("sha-256")
    return None if encoded is None else _hex(name, encoded)


def _hex(name: str, encoded: str) -> str:
    try:
        digest = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise _malformed(name) from None
    if len(digest) != SHA256_BYTES:
        raise _malformed(name)
    return digest.hex()


def _malformed(name: str) -> InvalidRequestError:
    return InvalidRequestError(errors=[Fault(name, "must be sha-256=:<base64 of 32 bytes>:")])
