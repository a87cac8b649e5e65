"""What parts are put together from and taken apart into, without a worker who holds them."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from gateway.landing.s3 import index as s3_index
from gateway.landing.s3.index import Index
from gateway.landing.s3.multipart import GoneError, Multipart, Piece
from gateway.landing.s3.store import Store
from gateway.landing.zone import PartLostError, StorageUnavailableError

COPIES_AT_ONCE = 4


def copied(multipart: Multipart, key: str, upload: str, pieces: Sequence[Piece]) -> list[str]:
    """Let the store copy pieces into an upload, some at once; return their ETags.

    Raises
    ------
    InsufficientStorageError, StorageUnavailableError
    """
    numbers = range(1, len(pieces) + 1)
    with ThreadPoolExecutor(COPIES_AT_ONCE) as pool:
        try:
            return list(pool.map(partial(multipart.copy, key, upload), numbers, pieces))
        except GoneError:
            raise StorageUnavailableError from None
        finally:
            pool.shutdown(cancel_futures=True)


def copy(store: Store, upload: str, target: str, size_bytes: int) -> None:
    """Copy a part's first bytes to a new part, durably.

    Raises
    ------
    PartLostError
        There are fewer.
    """
    found, _ = s3_index.load(store, upload)
    if found.size_bytes < size_bytes:
        raise PartLostError(upload)
    whole, _ = s3_index.whole_segments(size_bytes)
    rest = rest_of(store, upload, found, size_bytes)
    holder = secrets.token_hex(6)
    for number, key in enumerate(found.cut(whole).keys(upload)[:whole]):
        with _losses(upload):
            store.copy(key, s3_index.segment_key(target, number, holder))
    tail = s3_index.tail_key(target, size_bytes, holder) if rest else None
    if tail is not None:
        store.put(tail, rest)
    runs = ((holder, whole),) if whole else ()
    s3_index.save(store, target, Index(holder, size_bytes, runs, tail), None)


def remove(store: Store, multipart: Multipart, upload: str) -> None:
    """Remove a part with what was about to be made of it; an absent one is no error."""
    with contextlib.suppress(PartLostError):
        index, _ = s3_index.load(store, upload)
        if index.assembly is not None:
            multipart.abort(*index.assembly)
    store.delete([each.key for each in store.walk(s3_index.folder(upload))])


def rest_of(store: Store, upload: str, index: Index, size_bytes: int) -> bytearray:
    """Read what lies between the last whole segment and a position.

    Raises
    ------
    PartLostError
    """
    whole, begin = s3_index.whole_segments(size_bytes)
    if size_bytes == begin:
        return bytearray()
    keys = index.keys(upload)
    if whole >= len(keys):
        raise PartLostError(upload)
    return bytearray(bytes_of(store, keys[whole], 0, size_bytes - begin))


def bytes_of(store: Store, key: str, first: int, size_bytes: int) -> bytes:
    """Read some bytes of an object.

    Raises
    ------
    PartLostError
        They are not there.
    """
    with _losses(key):
        content = store.read_range(key, first, size_bytes)
    if len(content) != size_bytes:
        raise PartLostError(key)
    return content


@contextlib.contextmanager
def _losses(what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise PartLostError(what) from None
