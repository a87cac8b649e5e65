"""What a sender says of a file before its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from gateway.errors import InvalidRequestError
from gateway.landing.zone import Stored
from gateway.uploads import digests
from gateway.uploads.digests import DigestMismatchError

MEDIA_TYPE_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Announced:
    """What the sender said of a file before its bytes; the digest in lower-case hex."""

    size_bytes: int | None = None
    sha256: str | None = None
    media_type: str | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str], size_bytes: int | None = None) -> Self:
        """Read the headers of a request or of a part, names in lower case.

        Raises
        ------
        InvalidRequestError
            A digest header is malformed.
        """
        media = headers.get("content-type", "")
        is_plain = media.isprintable() and 0 < len(media) <= MEDIA_TYPE_LENGTH
        return cls(size_bytes, digests.expected(headers), media if is_plain else None)

    def check(self, stored: Stored) -> None:
        """Compare with what arrived.

        Raises
        ------
        InvalidRequestError
            Bytes are missing.
        DigestMismatchError
        """
        if self.size_bytes not in {None, stored.size_bytes}:
            raise InvalidRequestError(f"Only {stored.size_bytes} bytes arrived.")
        if self.sha256 not in {None, stored.sha256}:
            raise DigestMismatchError(f"The bytes that arrived have SHA-256 {stored.sha256}.")
