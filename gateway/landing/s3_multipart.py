"""The one thing obstore does not offer: an object assembled from others, and named when told to.

obstore hides the id of a multipart upload. The zone needs it: whoever takes a name or a part over
must be able to end the other's upload *in the store*, so that a worker that comes back late cannot
complete it (``NoSuchUpload``). Requests are signed as AWS Signature Version 4 says.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import escape, unescape

from gateway.landing.s3_settings import S3Settings
from gateway.landing.zone import InsufficientStorageError, StorageUnavailableError

OK, GONE, FULL = 200, 404, 507
FULL_CODES = ("QuotaExceeded", "InsufficientCapacity", "InsufficientStorage")
TIMEOUT_SECONDS = 60.0
ANSWER_BYTES = 1024**2


class GoneError(Exception):
    """The upload, or what it is made of, is not there: somebody ended it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes ``first`` to ``last`` of an object, or all of them."""

    key: str
    span: tuple[int, int] | None = None


class Multipart:
    """Multipart uploads by their ids. Every call opens a connection of its own.

    Raises
    ------
    InsufficientStorageError, StorageUnavailableError
        From every method.
    """

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        address = urlsplit(settings.endpoint)
        self._host = address.netloc
        self._context = None
        if address.scheme == "https":
            ca_path = None if settings.ca_path is None else str(settings.ca_path)
            self._context = ssl.create_default_context(cafile=ca_path)

    def begin(self, key: str, attributes: Mapping[str, str]) -> str:
        """Begin an object and return the upload's id."""
        headers = {f"x-amz-meta-{name}": value for name, value in attributes.items()}
        _, body = self._ask("POST", key, {"uploads": ""}, headers=headers)
        return _text("UploadId", body)

    def copy(self, key: str, upload: str, number: int, piece: Piece) -> str:
        """Make another object's bytes part ``number``, from 1; return their ETag.

        Raises
        ------
        GoneError
        """
        source = f"/{self._settings.bucket}/{quote(self._settings.full(piece.key), safe='/-_.~')}"
        headers = {"x-amz-copy-source": source}
        if piece.span is not None:
            headers["x-amz-copy-source-range"] = "bytes={}-{}".format(*piece.span)
        query = {"partNumber": str(number), "uploadId": upload}
        _, body = self._ask("PUT", key, query, headers=headers)
        return _text("ETag", body)

    def complete(self, key: str, upload: str, etags: Sequence[str]) -> None:
        """Give the object its name; what has the name is replaced.

        Raises
        ------
        GoneError
        """
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
            for number, etag in enumerate(etags, 1)
        )
        document = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        _, body = self._ask("POST", key, {"uploadId": upload}, document)
        # S3 begins to answer 200 while it still works; then the body alone tells.
        _text("ETag", body)

    def abort(self, key: str, upload: str) -> None:
        """End an upload: it can never be completed. One that is not there is no error."""
        try:
            self._ask("DELETE", key, {"uploadId": upload})
        except GoneError:
            return

    def _ask(
        self,
        method: str,
        key: str,
        query: Mapping[str, str],
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, str]:
        path = quote(f"/{self._settings.bucket}/{self._settings.full(key)}", safe="/-_.~")
        words = "&".join(f"{name}={quote(query[name], safe='-_.~')}" for name in sorted(query))
        signed = self._signed(method, path, words, body, headers or {})
        connection = self._connection()
        try:
            connection.request(method, f"{path}?{words}", body, signed)
            answer = connection.getresponse()
            text = answer.read(ANSWER_BYTES).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            raise StorageUnavailableError from None
        finally:
            connection.close()
        if answer.status == GONE:
            raise GoneError
        if answer.status == FULL or any(f"<Code>{code}<" in text for code in FULL_CODES):
            raise InsufficientStorageError
        if not OK <= answer.status < OK + 100:
            raise StorageUnavailableError
        return answer.status, text

    def _connection(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, timeout=TIMEOUT_SECONDS)
        return http.client.HTTPSConnection(
            self._host, timeout=TIMEOUT_SECONDS, context=self._context
        )

    def _signed(
        self, method: str, path: str, words: str, body: bytes, headers: Mapping[str, str]
    ) -> dict[str, str]:
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(body).hexdigest()
        sent = {**headers, "host": self._host, "x-amz-date": now, "x-amz-content-sha256": digest}
        names = ";".join(sorted(sent))
        lines = "".join(f"{name}:{sent[name].strip()}\n" for name in sorted(sent))
        asked = f"{method}\n{path}\n{words}\n{lines}\n{names}\n{digest}"
        scope = f"{now[:8]}/{self._settings.region}/s3/aws4_request"
        asked_digest = hashlib.sha256(asked.encode()).hexdigest()
        signature = self._signature(scope, f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{asked_digest}")
        credential = f"{self._settings.access_key_id}/{scope}"
        sent["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credential}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        return sent

    def _signature(self, scope: str, text: str) -> str:
        key = b"AWS4" + self._settings.secret_access_key.encode()
        for word in scope.split("/"):
            key = hmac.digest(key, word.encode(), "sha256")
        return hmac.digest(key, text.encode(), "sha256").hex()


def _text(tag: str, body: str) -> str:
    found = re.search(f"<{tag}>(.*?)</{tag}>", body, re.DOTALL)
    if found is None:
        raise StorageUnavailableError
    return unescape(found[1], {"&quot;": '"', "&#34;": '"'}).strip('"')
