"""The headers of tus 1.0.0: read strictly, written as the protocol says."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from types import MappingProxyType

from starlette.datastructures import Headers

from gateway.errors import Fault, GatewayError, InvalidRequestError, UnsupportedMediaError
from gateway.uploads.stretch import Checksum

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,checksum,expiration,termination"
ALGORITHMS = MappingProxyType({"sha1": 20, "sha256": 32})
STREAM = "application/offset+octet-stream"
METADATA_BYTES = 4096
_NUMBER = re.compile(r"0|[1-9]\d{0,17}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"[!-+\--~]{1,100}")
_TYPE_KEYS = ("filetype", "type", "contentType")


class TusVersionError(GatewayError):
    """The request speaks no version of tus that is spoken here."""

    slug = "unsupported-version"
    status = 412
    title = "Send Tus-Resumable: 1.0.0"

    def __init__(self) -> None:
        super().__init__(headers={"Tus-Version": VERSION})


@dataclass(frozen=True, slots=True)
class Metadata:
    """What ``Upload-Metadata`` says of a file; ``header`` is all of it, as it came."""

    filename: str
    sha256: str | None
    media_type: str | None
    header: str


def require_version(headers: Headers) -> None:
    """Refuse what is not tus 1.0.0.

    Raises
    ------
    TusVersionError
    """
    if headers.get("tus-resumable") != VERSION:
        raise TusVersionError


def is_stream(headers: Headers) -> bool:
    """Say whether the body holds bytes of an upload."""
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    return media == STREAM


def require_stream(headers: Headers) -> None:
    """Refuse a body that does not say that it holds bytes of an upload.

    Raises
    ------
    UnsupportedMediaError
    """
    if not is_stream(headers):
        raise UnsupportedMediaError(f"Send {STREAM}.")
    if any(each.strip().lower() != "identity" for each in headers.getlist("content-encoding")):
        raise UnsupportedMediaError("Send the bytes as they are, without content coding.")


def number(headers: Headers, name: str) -> int:
    """Return a header that must be there and be a number of bytes.

    Raises
    ------
    InvalidRequestError
    """
    given = headers.getlist(name)
    if len(given) != 1 or _NUMBER.fullmatch(given[0].strip()) is None:
        raise InvalidRequestError(errors=[Fault(name, "must be a number of bytes")])
    return int(given[0])


def checksum(headers: Headers) -> Checksum | None:
    """Return what the bytes of a stretch must have, None when nothing is demanded.

    Raises
    ------
    InvalidRequestError
    """
    given = headers.get("upload-checksum")
    if given is None:
        return None
    algorithm, _, encoded = given.partition(" ")
    digest = _decoded(encoded)
    if digest is None or ALGORITHMS.get(algorithm) != len(digest):
        wanted = f"must be one of {', '.join(ALGORITHMS)}, a space and a base64 digest"
        raise InvalidRequestError(errors=[Fault("Upload-Checksum", wanted)])
    return Checksum(algorithm, digest)


def metadata(headers: Headers) -> Metadata:
    """Read ``Upload-Metadata``: a file name, maybe its SHA-256 and its type.

    Raises
    ------
    InvalidRequestError
        It is malformed, or has no ``filename``.
    """
    header = ", ".join(headers.getlist("upload-metadata"))
    if len(header) > METADATA_BYTES:
        raise _bad(f"may have {METADATA_BYTES} bytes")
    pairs: dict[str, str] = {}
    for each in filter(None, (part.strip() for part in header.split(","))):
        key, _, encoded = each.partition(" ")
        value = _decoded(encoded.strip())
        if value is None or _KEY.fullmatch(key) is None or key in pairs:
            raise _bad("must be keys, each once, with base64 values")
        try:
            pairs[key] = value.decode()
        except UnicodeDecodeError:
            raise _bad(f"{key} is not UTF-8") from None
    sha256 = pairs.get("sha256")
    if sha256 is not None and _SHA256.fullmatch(sha256) is None:
        raise _bad("sha256 must be 64 lower-case hex digits")
    if "filename" not in pairs and "name" not in pairs:
        raise _bad("must have a filename")
    media = next((pairs[key] for key in _TYPE_KEYS if key in pairs), "")
    plain = media if media.isprintable() and 0 < len(media) <= 100 else None  # noqa: PLR2004
    return Metadata(pairs.get("filename", pairs.get("name", "")), sha256, plain, header)


def expires(at: datetime) -> str:
    """Return the value of ``Upload-Expires`` (RFC 9110 §5.6.7)."""
    return format_datetime(at, usegmt=True)


def _decoded(encoded: str) -> bytes | None:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None


def _bad(detail: str) -> InvalidRequestError:
    return InvalidRequestError(errors=[Fault("Upload-Metadata", detail)])
