"""The one thing obstore does not offer: an object assembled from others, and named when told to.

obstore hides the id of a multipart upload. The zone needs it: whoever takes a name or a part over
must be able to end the other's upload *in the store*, so that a worker that comes back late cannot
complete it (``NoSuchUpload``). boto3 gives it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from gateway.landing.s3.settings import S3Settings
from gateway.landing.zone import InsufficientStorageError, StorageUnavailableError

GONE, FULL = 404, 507
FULL_CODES = ("QuotaExceeded", "InsufficientCapacity", "InsufficientStorage")
CONNECT_SECONDS, READ_SECONDS = 3.0, 60.0
CONNECTIONS = 32


class GoneError(Exception):
    """The upload, or what it is made of, is not there: somebody ended it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes ``first`` to ``last`` of an object, or all of them."""

    key: str
    span: tuple[int, int] | None = None


class Multipart:
    """Multipart uploads by their ids; safe to share between threads.

    Raises
    ------
    InsufficientStorageError, StorageUnavailableError
        From every method.
    """

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        # Nothing is tried again here: whoever asks knows what a lost answer means.
        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=CONNECTIONS,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=settings.endpoint,
            region_name=settings.region,
            aws_access_key_id=settings.access_key_id,
            aws_secret_access_key=settings.secret_access_key,
            verify=None if settings.ca_path is None else str(settings.ca_path),
            config=config,
        )

    def begin(self, key: str, attributes: Mapping[str, str]) -> str:
        """Begin an object and return the upload's id."""
        with _failures():
            begun = self._client.create_multipart_upload(
                **self._place(key), Metadata=dict(attributes)
            )
        return str(begun["UploadId"])

    def copy(self, key: str, upload: str, number: int, piece: Piece) -> str:
        """Make another object's bytes part ``number``, from 1; return their ETag.

        Raises
        ------
        GoneError
        """
        span = {} if piece.span is None else {"CopySourceRange": "bytes={}-{}".format(*piece.span)}
        with _failures():
            copied = self._client.upload_part_copy(
                **self._place(key),
                UploadId=upload,
                PartNumber=number,
                CopySource=self._place(piece.key),
                **span,
            )
        return str(copied["CopyPartResult"]["ETag"]).strip('"')

    def complete(self, key: str, upload: str, etags: Sequence[str]) -> None:
        """Give the object its name; what has the name is replaced.

        Raises
        ------
        GoneError
        """
        listed = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        with _failures():
            self._client.complete_multipart_upload(
                **self._place(key), UploadId=upload, MultipartUpload={"Parts": listed}
            )

    def abort(self, key: str, upload: str) -> None:
        """End an upload: it can never be completed. One that is not there is no error."""
        try:
            with _failures():
                self._client.abort_multipart_upload(**self._place(key), UploadId=upload)
        except GoneError:
            return

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self._settings.bucket, "Key": self._settings.full(key)}


@contextmanager
def _failures() -> Iterator[None]:
    """Turn the store's refusals into what they mean; its texts go no further."""
    try:
        yield
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status == GONE:
            raise GoneError from None
        if status == FULL or error.response.get("Error", {}).get("Code") in FULL_CODES:
            raise InsufficientStorageError from None
        raise StorageUnavailableError from None
    except BotoCoreError:
        raise StorageUnavailableError from None
