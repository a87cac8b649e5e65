"""A file while it is being received into an object store: hashed as it comes, stored in segments.

A file of one segment is kept in memory and becomes one object when it is published. Of a longer
one, memory holds a segment at most.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
from collections.abc import Sequence
from dataclasses import replace

from gateway.chunks import Chunk
from gateway.errors import GatewayError
from gateway.landing.s3 import index as s3_index
from gateway.landing.s3 import pieces as in_pieces
from gateway.landing.s3.index import Index
from gateway.landing.s3.multipart import Multipart, Piece
from gateway.landing.s3.roll import Roll
from gateway.landing.s3.store import ChangedError, Store
from gateway.landing.zone import (
    Digest,
    InsufficientStorageError,
    PartBusyError,
    PartLostError,
    StorageUnavailableError,
    Stored,
    Tell,
)

READ_BYTES = 4 * 1024**2
# Written to everything that is published: the id of the attempt that did it.
OWNER = "gateway-owner"


class S3Part:
    """One attempt at one file. Its methods block; call them from a thread, one at a time.

    ``checkpoint`` alone may run beside ``write``.

    Attributes
    ----------
    holder
        An id of this very attempt. What it publishes carries it.
    """

    def __init__(self, store: Store, multipart: Multipart, roll: Roll, upload: str) -> None:
        self.upload = upload
        self.holder = secrets.token_hex(6)
        self.size_bytes = 0
        self.stored: Stored | None = None
        self._store = store
        self._multipart = multipart
        self._roll = roll
        self._lock = threading.RLock()
        self._rest = bytearray()
        self._index = Index(self.holder)
        self._etag: str | None = None
        self._is_in_store = False
        self._is_held = True
        self._digest = hashlib.sha256()
        self._hashed_bytes = 0

    def begin_at(self, at_bytes: int, digest: Digest | None) -> None:
        """Take over what the store holds, up to a position; what lies beyond is discarded.

        Raises
        ------
        PartBusyError, PartLostError
        """
        found, etag = s3_index.load(self._store, self.upload)
        if found.size_bytes < at_bytes:
            raise PartLostError(self.upload)
        self._rest = in_pieces.rest_of(self._store, self.upload, found, at_bytes)
        self.size_bytes = at_bytes
        whole, _ = s3_index.whole_segments(at_bytes)
        self._index, self._etag = replace(found.cut(whole), holder=self.holder, assembly=None), etag
        self._is_in_store = True
        if digest is not None and digest.size_bytes <= at_bytes:
            self._digest, self._hashed_bytes = digest.state, digest.size_bytes
        try:
            self._save()
        except StorageUnavailableError as error:
            if isinstance(error.__cause__, ChangedError):
                raise PartBusyError(self.upload) from None
            raise
        if found.assembly is not None:
            self._multipart.abort(*found.assembly)
        self._sweep()

    def reserve(self) -> None:
        """Do nothing: an object store says only when it is written to that it is full."""

    def write(self, chunks: Sequence[Chunk]) -> None:
        """Append.

        Raises
        ------
        InsufficientStorageError, StorageUnavailableError
            The part is of no more use; abort it.
        """
        with self._lock:
            for chunk in chunks:
                self._take(memoryview(chunk))

    def _take(self, view: memoryview) -> None:
        if self._hashed_bytes == self.size_bytes:
            self._digest.update(view)
            self._hashed_bytes += len(view)
        self.size_bytes += len(view)
        while len(view):
            room = s3_index.segment_bytes(self._segments) - len(self._rest)
            if room == 0:
                self._store_segment()
                continue
            self._rest += view[:room]
            view = view[room:]

    @property
    def _segments(self) -> int:
        return sum(count for _, count in self._index.runs)

    def _store_segment(self) -> None:
        """Store a whole segment, once something follows it."""
        if self._segments >= s3_index.MAX_SEGMENTS:
            raise InsufficientStorageError
        self._is_in_store = True
        key = s3_index.segment_key(self.upload, self._segments, self.holder)
        self._store.put(key, self._rest)
        self._index = self._index.with_segment()
        self._rest = bytearray()

    def hasten(self) -> None:
        """Do nothing: segments are on their way as they fill."""

    def checkpoint(self) -> int:
        """Make durable what was written before this call, and return how many bytes that is.

        Raises
        ------
        InsufficientStorageError, StorageUnavailableError
            What was written since the last checkpoint is lost; the part may be resumed there.
        """
        with self._lock:
            if self._etag is None or self._index.size_bytes != self.size_bytes:
                self._save()
            return self.size_bytes

    def _save(self) -> None:
        """Store the rest, and write down what there is."""
        self._is_in_store = True
        before, tail = self._index.tail, None
        if self._rest:
            tail = s3_index.tail_key(self.upload, self.size_bytes, self.holder)
            self._store.put(tail, self._rest)
        self._write_index(replace(self._index, size_bytes=self.size_bytes, tail=tail))
        if before is not None and before != tail:
            with contextlib.suppress(GatewayError):
                self._store.delete([before])

    def _write_index(self, index: Index) -> None:
        try:
            self._etag = s3_index.save(self._store, self.upload, index, self._etag)
        except ChangedError as error:
            raise StorageUnavailableError("Another worker took the upload over.") from error
        self._index = index

    def finish(self, tell: Tell | None = None) -> Stored:
        """Return the digest of all bytes; of more than one segment make them durable first.

        A shorter file is durable when it is published, by the one request that does both.

        Raises
        ------
        InsufficientStorageError, StorageUnavailableError
            The part is of no more use; abort it.
        """
        with self._lock:
            if self._is_in_store:
                self.checkpoint()
            try:
                self._catch_up(tell or (lambda _: None))
            except PartLostError:
                raise StorageUnavailableError from None
            self.stored = Stored(self.size_bytes, self._digest.hexdigest())
        return self.stored

    def _catch_up(self, tell: Tell) -> None:
        """Hash what was written while the digest of what lies before it was not known."""
        begin = 0
        for number, key in enumerate(self._index.keys(self.upload)):
            end = min(begin + s3_index.segment_bytes(number), self.size_bytes)
            while self._hashed_bytes < end:
                wanted = min(READ_BYTES, end - self._hashed_bytes)
                first = self._hashed_bytes - begin
                self._digest.update(in_pieces.bytes_of(self._store, key, first, wanted))
                self._hashed_bytes += wanted
                tell(self._hashed_bytes)
            begin = end

    def digest(self) -> Digest:
        """Return how far the digest is known."""
        return Digest(self._hashed_bytes, self._digest.copy())

    @property
    def whole(self) -> bytearray | None:
        """All bytes, where they are few enough for one object; else None."""
        return None if self._segments else self._rest

    def assemble(self, key: str) -> tuple[str, list[str]]:
        """Make an object of the segments, which has no name yet; return its id and its ETags.

        Raises
        ------
        InsufficientStorageError, StorageUnavailableError
        """
        if self._index.assembly is not None:
            self._multipart.abort(*self._index.assembly)
        upload = self._multipart.begin(key, {OWNER: self.holder})
        # Written down before there is anything in it: whoever sweeps the part ends it too.
        self._write_index(replace(self._index, assembly=(key, upload)))
        pieces = [Piece(each) for each in self._index.keys(self.upload)]
        return upload, in_pieces.copied(self._multipart, key, upload, pieces)

    def release(self) -> None:
        """Let go of the part and keep its bytes, for a later resume."""
        if self._is_held:
            self._is_held = False
            with contextlib.suppress(GatewayError):
                self.checkpoint()
            self._roll.drop(self.upload, at_once=True)

    def abort(self) -> None:
        """Remove the part and let go of it. A published file stays; again is harmless."""
        if self._is_held:
            self._is_held = False
            if self._is_in_store:
                with contextlib.suppress(GatewayError):
                    in_pieces.remove(self._store, self._multipart, self.upload)
            self._roll.drop(self.upload)

    def _sweep(self) -> None:
        """Remove objects of the part that its index does not name: what lay beyond."""
        named = {*self._index.keys(self.upload), s3_index.index_key(self.upload)}
        lying = [each.key for each in self._store.walk(s3_index.folder(self.upload))]
        with contextlib.suppress(GatewayError):
            self._store.delete([key for key in lying if key not in named])
