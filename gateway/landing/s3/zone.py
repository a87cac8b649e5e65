"""The landing zone on an object store that speaks S3: the same layout, in keys below a prefix.

How a name is given there, and never twice, is told in ``names``; who works on what in
``roll``; what a part is made of in ``index``.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator, Mapping
from dataclasses import astuple
from datetime import datetime, timedelta
from functools import partial

from gateway.errors import GatewayError
from gateway.landing.s3 import pieces as in_pieces
from gateway.landing.s3.index import PARTS
from gateway.landing.s3.multipart import GoneError, Multipart, Piece
from gateway.landing.s3.names import CLAIM, Names
from gateway.landing.s3.parts import S3Part
from gateway.landing.s3.reader import open_ranged
from gateway.landing.s3.roll import Roll
from gateway.landing.s3.settings import S3Settings
from gateway.landing.s3.store import QUICK, Store, TakenError
from gateway.landing.zone import (
    COMPONENT,
    FILES,
    BatchPath,
    Digest,
    Landed,
    PartBusyError,
    StorageUnavailableError,
    Stored,
)

QUARANTINE = ".quarantine"
CHECKED_SECONDS = 1.0
COPY_BYTES = 4 * 1024**3
NAME_BYTES = 255


class S3Zone:
    """The landing zone.

    Raises
    ------
    StorageUnavailableError
        The bucket cannot be listed.
    """

    def __init__(self, settings: S3Settings) -> None:
        self._store = Store(settings)
        self._multipart = Multipart(settings)
        self._names = Names(self._store, self._multipart)
        self._store.folders()
        self._roll = Roll(Store(settings, QUICK), settings.lease_seconds)

    def close(self) -> None:
        """Let go of what is held."""
        self._roll.close()

    def check(self) -> None:
        """Say by raising that nothing can be received now.

        Raises
        ------
        InsufficientStorageError, StorageUnavailableError
        """
        self._roll.require_writable(CHECKED_SECONDS)

    def open_part(self, upload: str, expected_bytes: int | None = None) -> S3Part:  # noqa: ARG002
        """Begin to receive a file; ``upload`` is a new id.

        Raises
        ------
        InsufficientStorageError, StorageUnavailableError
        """
        return self._held(upload)

    def resume_part(self, upload: str, at_bytes: int, digest: Digest | None = None) -> S3Part:
        """Go on with a part that was released, or whose worker has ended, at this position.

        What it holds beyond is discarded.

        Raises
        ------
        PartBusyError
            Somebody works on it.
        PartLostError
            It holds less than ``at_bytes``.
        InsufficientStorageError, StorageUnavailableError
        """
        if self._is_in_hand(upload):
            raise PartBusyError(upload)
        part = self._held(upload)
        try:
            part.begin_at(at_bytes, digest)
        except BaseException:
            self._roll.drop(upload, at_once=True)
            raise
        return part

    def _held(self, upload: str) -> S3Part:
        try:
            self._roll.add(upload)
        except ValueError:
            raise PartBusyError(upload) from None
        return S3Part(self._store, self._multipart, self._roll, upload)

    def copy_part(self, upload: str, copy: str, size_bytes: int) -> None:
        """Copy a part's first bytes to a new part, durably, whoever works on the old one.

        Raises
        ------
        PartLostError
            It holds less.
        InsufficientStorageError, StorageUnavailableError
        """
        try:
            in_pieces.copy(self._store, upload, copy, size_bytes)
        except BaseException:
            with contextlib.suppress(GatewayError):
                self.remove_part(copy)
            raise

    def remove_part(self, upload: str) -> None:
        """Remove a part; an absent one is no error."""
        in_pieces.remove(self._store, self._multipart, upload)

    def stale_parts(self, max_age_seconds: float) -> list[str]:
        """Return parts that nobody works on and that were last written to longer ago."""
        newest: dict[str, datetime] = {}
        for each in self._store.walk(PARTS):
            upload = each.key.split("/")[1]
            newest[upload] = max(each.written_at, newest.get(upload, each.written_at))
        self._roll.forget_dead()
        limit = self._roll.now() - timedelta(seconds=max_age_seconds)
        old = [upload for upload, written_at in newest.items() if written_at < limit]
        others = self._roll.others() if old else set()
        return [each for each in old if each not in others and not self._roll.holds(each)]

    def is_receiving(self, upload: str, batch: BatchPath, name: str) -> bool:  # noqa: ARG002
        """Say whether somebody works on an upload, here or in another process.

        False where its process has ended, once its lease has.
        """
        return self._is_in_hand(upload)

    def _is_in_hand(self, upload: str) -> bool:
        return self._roll.holds(upload) or upload in self._roll.others()

    def publish(self, part: S3Part, batch: BatchPath, name: str) -> None:
        """Give a finished part its name, durably; what has the name already stays.

        Raises
        ------
        NameTakenError
            The name is taken; the part is still there.
        InsufficientStorageError, StorageUnavailableError
        """
        self._names.give(part, _file(batch, name))

    def retract(self, part: S3Part, batch: BatchPath, name: str) -> None:
        """Take a publication back. What has the name and is not this part stays."""
        self._names.take_back(part, _file(batch, name))

    def adopt(self, batch: BatchPath, name: str, stored: Stored) -> bool:
        """Say whether a published file has just these bytes; what is published is durable.

        Raises
        ------
        StorageUnavailableError
        """
        key = _file(batch, name)
        there = self._names.published(key)
        if there is None or there.size_bytes != stored.size_bytes:
            return False
        return self._names.sha256(key, there) == stored.sha256

    def open_file(self, batch: BatchPath, name: str) -> tuple[io.BufferedReader, int]:
        """Open a published file and tell its size in bytes.

        Raises
        ------
        FileNotFoundError
            It is not there.
        StorageUnavailableError
            Also from reading.
        """
        key = _file(batch, name)
        there = self._names.published(key)
        if there is None:
            raise FileNotFoundError(name)
        return open_ranged(self._store, key, there.size_bytes, there.etag), there.size_bytes

    def remove_file(self, batch: BatchPath, name: str) -> None:
        """Remove a published file, durably; an absent one is no error."""
        self._store.delete([_file(batch, name)])

    def quarantine(self, batch: BatchPath, name: str) -> str:
        """Set a published file that nobody acknowledged aside and return its new name.

        Raises
        ------
        FileNotFoundError
            There is nothing of this name.
        StorageUnavailableError
        """
        key = _file(batch, name)
        there = self._store.look(key)
        if there is None:
            raise FileNotFoundError(name)
        if CLAIM in there.attributes:
            self._names.end_claim(key, there)
        aside = f"{batch.batch}.{time.time_ns()}.{name}".encode()[:NAME_BYTES]
        target = f"{QUARANTINE}/{aside.decode(errors='ignore')}"
        self._copy(key, target, there.size_bytes)
        self._store.delete([key])
        return target.removeprefix(f"{QUARANTINE}/")

    def _copy(self, key: str, target: str, size_bytes: int) -> None:
        if size_bytes <= COPY_BYTES:
            return self._store.copy(key, target)
        upload = self._multipart.begin(target, {})
        begins = range(0, size_bytes, COPY_BYTES)
        spans = [(begin, min(begin + COPY_BYTES, size_bytes) - 1) for begin in begins]
        pieces = list(map(partial(Piece, key), spans))
        try:
            etags = in_pieces.copied(self._multipart, target, upload, pieces)
            return self._multipart.complete(target, upload, etags)
        except GoneError:
            raise StorageUnavailableError from None

    def write_documents(self, batch: BatchPath, documents: Mapping[str, bytes]) -> None:
        """Write documents beside a batch's files, durably; the same again change nothing.

        Raises
        ------
        InsufficientStorageError, StorageUnavailableError
        """
        for name, content in documents.items():
            self._write_document(f"{_folder(batch)}/{name}", content)

    def _write_document(self, key: str, content: bytes) -> None:
        try:
            self._store.create(key, content)
        except TakenError:
            with contextlib.suppress(FileNotFoundError):
                if self._store.read(key)[0] == content:
                    return
            self._store.put(key, content)

    def remove_batch(self, batch: BatchPath) -> None:
        """Remove a batch with all that lies in it; an absent one is no error."""
        self._store.delete([each.key for each in self._store.walk(_folder(batch))])

    def walk(self) -> Iterator[Landed]:
        """Yield every published file; strangers are passed over.

        A claim that was left behind is among them, so that it is found and set aside.
        """
        for client in self._store.folders():
            if COMPONENT.fullmatch(client):
                for each in self._store.walk(client):
                    yield from _landed(each.key, each.size_bytes)


def _folder(batch: BatchPath) -> str:
    return "/".join(astuple(batch))


def _file(batch: BatchPath, name: str) -> str:
    return f"{_folder(batch)}/{FILES}/{name}"


def _landed(key: str, size_bytes: int) -> Iterator[Landed]:
    with contextlib.suppress(ValueError):
        client, project, batch, files, name = key.split("/")
        if files == FILES:
            yield Landed(BatchPath(client, project, batch), name, size_bytes)
