"""How a published name is given on an object store, and never given again.

A file of one request is written by a request that the store refuses where there is an object. For
a longer one, such a request lays down a *claim*: a small object that names the multipart upload
which is about to replace it. To everybody else a claim is no file. Who takes one over, because its
worker has ended or was overtaken, first ends that upload in the store, then replaces this very
claim: a worker that comes back late finds no upload that it could complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Sequence

from gateway.landing.s3.multipart import GoneError, Multipart
from gateway.landing.s3.parts import OWNER, S3Part
from gateway.landing.s3.reader import open_ranged
from gateway.landing.s3.store import ChangedError, Found, Store, TakenError
from gateway.landing.zone import NameTakenError, StorageUnavailableError

# On a claim: the id of the multipart upload that is to take its place.
CLAIM = "gateway-upload"
# A completion that the store has begun before an upload was ended has ended after this time.
SETTLE_SECONDS = 1.0
ATTEMPTS = 5
_MD5 = re.compile("[0-9a-f]{32}")


class Names:
    """The names in one store.

    Raises
    ------
    InsufficientStorageError, StorageUnavailableError
        From every method.
    """

    def __init__(self, store: Store, multipart: Multipart) -> None:
        self._store = store
        self._multipart = multipart

    def give(self, part: S3Part, key: str) -> None:
        """Give a finished part its name.

        Raises
        ------
        NameTakenError
        """
        whole = part.whole
        if whole is None:
            self._give_assembled(part, key)
            return
        content = bytes(whole)
        etag = self._take(key, content, {OWNER: part.holder})
        # The store has compared the body with the signed SHA-256 already.
        if etag != hashlib.md5(content, usedforsecurity=False).hexdigest():
            self._verify(part, key, None)

    def _give_assembled(self, part: S3Part, key: str) -> None:
        there = self._store.look(key)
        if there is not None and CLAIM not in there.attributes:
            if there.attributes.get(OWNER) != part.holder:
                raise NameTakenError
            self._verify(part, key, None)  # completed before, and only the answer was lost
            return
        upload, etags = part.assemble(key)
        claim = {OWNER: part.holder, CLAIM: upload}
        self._take(key, f"claimed by {part.holder}\n".encode(), claim)
        # Where this fails, or its answer is lost, what lies there afterwards decides.
        with contextlib.suppress(GoneError, StorageUnavailableError):
            self._multipart.complete(key, upload, etags)
        self._verify(part, key, _joined(etags))

    def _take(self, key: str, content: bytes, attributes: dict[str, str]) -> str:
        """Write an object where there is none but perhaps a claim; return its ETag."""
        for _ in range(ATTEMPTS):
            with contextlib.suppress(TakenError):
                return self._store.create(key, content, attributes)
            there = self._store.look(key)
            if there is None:
                continue
            if there.attributes.items() >= attributes.items():
                return there.etag  # written by this very call, and only the answer was lost
            if CLAIM not in there.attributes:
                raise NameTakenError
            self.end_claim(key, there)
            with contextlib.suppress(ChangedError):
                return self._store.replace(key, content, there.etag, attributes)
        raise StorageUnavailableError

    def end_claim(self, key: str, claim: Found) -> None:
        """See to it that a claim's upload cannot be completed any more."""
        self._multipart.abort(key, claim.attributes[CLAIM])
        time.sleep(SETTLE_SECONDS)

    def _verify(self, part: S3Part, key: str, expected: str | None) -> None:
        """See to it that the store holds what was received: by its own digest, or by reading."""
        there = self.published(key)
        if there is None or there.attributes.get(OWNER) != part.holder:
            raise StorageUnavailableError
        if there.size_bytes != part.size_bytes:
            raise StorageUnavailableError
        # Stores that encrypt give ETags which are no digests of the content.
        if there.etag != expected and self.sha256(key, there) != part.finish().sha256:
            raise StorageUnavailableError

    def take_back(self, part: S3Part, key: str) -> None:
        """Take a name back from this part; another's stays.

        A store that cannot even be looked at was asked to do nothing: what lies there stays.
        """
        try:
            there = self._store.look(key)
        except StorageUnavailableError:
            return
        if there is None or there.attributes.get(OWNER) != part.holder:
            return
        if CLAIM in there.attributes:
            self._multipart.abort(key, there.attributes[CLAIM])
        self._store.delete([key])

    def published(self, key: str) -> Found | None:
        """Return the file of this name."""
        there = self._store.look(key)
        return None if there is None or CLAIM in there.attributes else there

    def sha256(self, key: str, there: Found) -> str:
        """Read a file and return its digest."""
        with open_ranged(self._store, key, there.size_bytes, there.etag) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _joined(etags: Sequence[str]) -> str | None:
    """Return the ETag that an object of these parts has, where ETags are digests."""
    if not all(map(_MD5.fullmatch, etags)):
        return None
    joined = b"".join(map(bytes.fromhex, etags))
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(etags)}"
