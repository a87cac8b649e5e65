"""How far a part has come and who may go on: one small object, replaced only by who knows it.

Segments are objects of their own; their sizes follow from their numbers alone. What follows the
last whole segment is the *tail*. The index names them, and its ETag is the right to go on: who
takes a part over replaces the index, and whatever the worker before still does counts no more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Self

from gateway.landing.s3.store import ChangedError, Store, TakenError
from gateway.landing.zone import PartLostError

PARTS = ".parts"
SEGMENT_BYTES = 8 * 1024**2
# Segments grow, for S3 takes ten thousand at most: 8 MiB up to 10 GB, 64 MiB from 70 GB on.
SEGMENTS_OF_A_SIZE, DOUBLINGS = 1_250, 3
MAX_SEGMENTS = 9_999


def segment_bytes(number: int) -> int:
    """Return the size of a segment; the first is number 0."""
    return SEGMENT_BYTES << min(number // SEGMENTS_OF_A_SIZE, DOUBLINGS)


def whole_segments(size_bytes: int) -> tuple[int, int]:
    """Return how many whole segments there are in so many bytes, and how many bytes they hold."""
    number = held = 0
    while held + segment_bytes(number) <= size_bytes:
        held += segment_bytes(number)
        number += 1
    return number, held


def folder(upload: str) -> str:
    """Return where a part's objects lie."""
    return f"{PARTS}/{upload}"


@dataclass(frozen=True, slots=True)
class Index:
    """What a part holds.

    Attributes
    ----------
    segments
        Keys of the whole segments' objects, grouped: (folder and holder, how many).
    tail
        Key of the object that holds the rest, where there is a rest.
    assembly
        Key and id of the multipart upload that makes a published file of it.
    """

    holder: str
    size_bytes: int = 0
    runs: tuple[tuple[str, int], ...] = ()
    tail: str | None = None
    assembly: tuple[str, str] | None = None

    def whole(self) -> list[tuple[str, int]]:
        """Return holder and number of every whole segment."""
        holders = [holder for holder, count in self.runs for _ in range(count)]
        return [(holder, number) for number, holder in enumerate(holders)]

    def keys(self, upload: str) -> list[str]:
        """Return the keys of the objects that make the part up, in order."""
        whole = [segment_key(upload, number, holder) for holder, number in self.whole()]
        return [*whole, self.tail] if self.tail is not None else whole

    def with_segment(self) -> Self:
        """Return it with one more whole segment of its holder's."""
        last = self.runs[-1] if self.runs else None
        if last is not None and last[0] == self.holder:
            runs = (*self.runs[:-1], (self.holder, last[1] + 1))
        else:
            runs = (*self.runs, (self.holder, 1))
        return replace(self, runs=runs)

    def cut(self, segments: int) -> Self:
        """Return it with the first whole segments alone."""
        runs, left = [], segments
        for holder, count in self.runs:
            if left > 0:
                runs.append((holder, min(count, left)))
                left -= count
        return replace(self, runs=tuple(runs))

    def dump(self) -> bytes:
        """Return it as it is stored."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(fields).encode()

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read it as it is stored."""
        fields = json.loads(content)
        runs = tuple((holder, count) for holder, count in fields["runs"])
        assembly = tuple(fields["assembly"]) if fields["assembly"] else None
        return cls(**{**fields, "runs": runs, "assembly": assembly})


def segment_key(upload: str, number: int, holder: str) -> str:
    """Return the key of a whole segment."""
    return f"{folder(upload)}/{number:05}-{holder}"


def tail_key(upload: str, size_bytes: int, holder: str) -> str:
    """Return the key of the rest of a part that holds so many bytes in all."""
    return f"{folder(upload)}/tail-{size_bytes}-{holder}"


def index_key(upload: str) -> str:
    """Return the key of a part's index."""
    return f"{folder(upload)}/index"


def load(store: Store, upload: str) -> tuple[Index, str]:
    """Return a part's index and its ETag.

    Raises
    ------
    PartLostError
        There is none.
    """
    try:
        content, etag = store.read(index_key(upload))
    except FileNotFoundError:
        raise PartLostError(upload) from None
    return Index.parse(content), etag


def save(store: Store, upload: str, index: Index, etag: str | None) -> str:
    """Write an index in place of the one with this ETag, or the first; return the new ETag.

    Raises
    ------
    ChangedError
        Somebody else took the part.
    """
    content = index.dump()
    try:
        if etag is None:
            return store.create(index_key(upload), content)
        return store.replace(index_key(upload), content, etag)
    except (TakenError, ChangedError):
        # Perhaps it was written, and only the answer was lost.
        try:
            there, found = store.read(index_key(upload))
        except FileNotFoundError:
            raise ChangedError(upload) from None
        if there != content:
            raise ChangedError(upload) from None
        return found
