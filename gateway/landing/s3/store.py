"""What is asked of an object store, and what its refusals mean to a landing zone.

No answer of the store goes further than this: its text may name keys, accounts and hosts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from gateway.landing.s3.multipart import FULL_CODES
from gateway.landing.s3.settings import S3Settings
from gateway.landing.zone import InsufficientStorageError, StorageUnavailableError

if TYPE_CHECKING:
    from obstore.store import ClientConfig

# Together they end before a caller's patience does.
RETRIES, RETRIED_SECONDS = 2, 10
CONNECT_TIMEOUT = "3s"
# For a segment on a slow line, and for what is as small as a word.
PATIENT, QUICK = "30s", "5s"
BULK = 1000


class TakenError(Exception):
    """There is an object of this key."""


class ChangedError(Exception):
    """The object is not, or no longer, the one that was meant."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An object, as a listing shows it."""

    key: str
    size_bytes: int
    etag: str
    written_at: datetime


@dataclass(frozen=True, slots=True)
class Found:
    """An object, as it shows itself; ``attributes`` are those it was written with."""

    size_bytes: int
    etag: str
    attributes: Mapping[str, str]


class Store:
    """One prefix of one bucket.

    Raises
    ------
    InsufficientStorageError, StorageUnavailableError
        From every method.
    """

    def __init__(self, settings: S3Settings, timeout: str = PATIENT) -> None:
        options: ClientConfig = {
            "allow_http": settings.endpoint.startswith("http://"),
            "timeout": timeout,
            "connect_timeout": CONNECT_TIMEOUT,
        }
        if settings.ca_path is not None:
            options["root_certificate"] = settings.ca_path.read_bytes()
        self._store = S3Store(
            settings.bucket,
            prefix=settings.prefix or None,
            endpoint=settings.endpoint,
            region=settings.region,
            access_key_id=settings.access_key_id,
            secret_access_key=settings.secret_access_key,
            client_options=options,
            retry_config={
                "max_retries": RETRIES,
                "retry_timeout": timedelta(seconds=RETRIED_SECONDS),
            },
        )

    def put(self, key: str, content: bytes | bytearray) -> str:
        """Write an object, whatever was there; return its ETag.

        The request's signature covers the body's SHA-256: the store refuses what arrives altered.
        """
        with _failures():
            written = obstore.put(self._store, key, content, use_multipart=False)
        return _bare(written["e_tag"])

    def create(
        self, key: str, content: bytes | bytearray, attributes: dict[str, str] | None = None
    ) -> str:
        """Write an object where there is none; return its ETag.

        Raises
        ------
        TakenError
            There is one: perhaps this very one, where an answer was lost.
        """
        with _failures():
            try:
                written = obstore.put(
                    self._store, key, content, attributes=attributes, mode="create"
                )
            except (AlreadyExistsError, PreconditionError):
                raise TakenError from None
        return _bare(written["e_tag"])

    def replace(
        self,
        key: str,
        content: bytes | bytearray,
        etag: str,
        attributes: dict[str, str] | None = None,
    ) -> str:
        """Write an object in place of the one with this ETag; return the new one's.

        Raises
        ------
        ChangedError
            It is another: perhaps this very one, where an answer was lost.
        """
        with _failures():
            try:
                # Without quotes: Ceph 16 compares them as if they were part of the tag.
                written = obstore.put(
                    self._store, key, content, attributes=attributes, mode={"e_tag": etag}
                )
            except (FileNotFoundError, AlreadyExistsError, PreconditionError):
                raise ChangedError from None
        return _bare(written["e_tag"])

    def look(self, key: str) -> Found | None:
        """Return what there is under a key."""
        with _failures(), contextlib.suppress(FileNotFoundError):
            answer = obstore.get(self._store, key, options={"head": True})
            attributes = {str(name): value for name, value in answer.attributes.items()}
            return Found(answer.meta["size"], _bare(answer.meta["e_tag"]), attributes)
        return None

    def read(self, key: str) -> tuple[bytes, str]:
        """Return a small object and its ETag.

        Raises
        ------
        FileNotFoundError
        """
        with _failures():
            answer = obstore.get(self._store, key)
            return bytes(answer.bytes()), _bare(answer.meta["e_tag"])

    def read_range(self, key: str, first: int, size_bytes: int, etag: str | None = None) -> bytes:
        """Return bytes of an object, of this one only where its ETag is given.

        Raises
        ------
        FileNotFoundError
        ChangedError
        """
        span: obstore.GetOptions = {"range": (first, first + size_bytes)}
        if etag is not None:
            span["if_match"] = f'"{etag}"'
        with _failures():
            try:
                return bytes(obstore.get(self._store, key, options=span).bytes())
            except PreconditionError:
                raise ChangedError from None

    def walk(self, prefix: str) -> Iterator[Entry]:
        """Yield what lies below a folder, in order of keys."""
        with _failures():
            for entries in obstore.list(self._store, prefix, chunk_size=BULK):
                for each in entries:
                    etag = _bare(each["e_tag"])
                    yield Entry(each["path"], each["size"], etag, each["last_modified"])

    def folders(self, prefix: str | None = None) -> list[str]:
        """Return the names of the folders within a folder."""
        with _failures():
            found = obstore.list_with_delimiter(self._store, prefix)
        return sorted(each.rpartition("/")[2] for each in found["common_prefixes"])

    def copy(self, key: str, target: str) -> None:
        """Copy an object of at most 5 GiB, whatever lies at the target.

        Raises
        ------
        FileNotFoundError
        """
        with _failures():
            obstore.copy(self._store, key, target)

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; absent ones are no error."""
        with _failures():
            for begin in range(0, len(keys), BULK):
                obstore.delete(self._store, keys[begin : begin + BULK])


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise StorageUnavailableError from None
        raise FileNotFoundError from None
    except BaseError as error:
        text = str(error)
        if any(f"<Code>{code}<" in text for code in FULL_CODES) or "507 Insuff" in text:
            raise InsufficientStorageError from None
        raise StorageUnavailableError from None


def _bare(etag: str | None) -> str:
    return (etag or "").strip('"')
