"""What a landing zone is, wherever its bytes lie; ``disk`` and ``s3`` are the two there are.

``<root>/<client>/<project>/<batch>/files/<name>``, with ``manifest.json`` and ``receipt.jws`` beside
``files``. A file is received into a *part*, which has no published name, and gets its name once and
durably; a name that is taken is never given again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import IO, Any, Protocol, runtime_checkable

from gateway.chunks import Chunk
from gateway.errors import GatewayError, UnavailableError

FILES = "files"
COMPONENT = re.compile(r"[a-z][a-z0-9_-]{1,62}")
Tell = Callable[[int], None]


class InsufficientStorageError(GatewayError):
    """The landing zone has no room."""

    slug = "insufficient-storage"
    status = 507
    title = "The landing zone is full"
    retryable = True


class StorageUnavailableError(UnavailableError):
    """The landing zone cannot be read or written."""

    title = "The landing zone does not answer"


class NameTakenError(Exception):
    """A file is published under this name already."""


class PartBusyError(Exception):
    """Somebody else works on this part."""


class PartLostError(Exception):
    """The part holds less than was acknowledged, or is not there at all."""


@dataclass(frozen=True, slots=True)
class BatchPath:
    """Where a batch lies."""

    client: str
    project: str
    batch: str

    def __post_init__(self) -> None:
        if not all(COMPONENT.fullmatch(part) for part in astuple(self)):
            message = "not a place in the landing zone"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Landed:
    """A published file, as it lies there."""

    batch: BatchPath
    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Stored:
    """What a finished part holds; ``sha256`` in lower-case hex."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Digest:
    """How far the SHA-256 of a part's beginning is known; ``state`` is a ``hashlib`` object."""

    size_bytes: int
    state: Any


class Part(Protocol):
    """One attempt at one file, held by one worker at a time. Its methods block.

    Raises
    ------
    InsufficientStorageError, StorageUnavailableError
        From every method but ``release`` and ``abort``; what was not checkpointed is lost then.
    """

    @property
    def size_bytes(self) -> int:
        """How many bytes it holds."""

    def reserve(self) -> None:
        """Take the room for all that was announced, so that a full store is known at once."""

    def write(self, chunks: Sequence[Chunk]) -> None:
        """Append."""

    def hasten(self) -> None:
        """Begin to make durable what was written, for whoever syncs it soon."""

    def checkpoint(self) -> int:
        """Make durable what was written before this call, and return how many bytes that is.

        It may run in another thread while ``write`` goes on.
        """

    def finish(self, tell: Tell | None = None) -> Stored:
        """Make every byte durable and return their digest.

        Parameters
        ----------
        tell
            Called now and then with how many bytes are verified, where the digest is not known
            from writing and everything has to be read once more.
        """

    def digest(self) -> Digest:
        """Return how far the digest is known."""

    def release(self) -> None:
        """Let go of the part and keep its bytes, for a later ``resume_part``."""

    def abort(self) -> None:
        """Remove the part and let go of it. A published file stays; again is harmless."""


class Zone(Protocol):
    """The landing zone. Its methods block.

    Raises
    ------
    InsufficientStorageError, StorageUnavailableError
        From every method.
    """

    def close(self) -> None:
        """Let go of what is held."""

    def check(self) -> None:
        """Say by raising that nothing can be received now."""

    def open_part(self, upload: str, expected_bytes: int | None = None) -> Part:
        """Begin to receive a file; ``upload`` is a new id."""

    def resume_part(self, upload: str, at_bytes: int, digest: Digest | None = None) -> Part:
        """Go on with a part that was released, or whose worker has ended, at this position.

        What it holds beyond is discarded.

        Raises
        ------
        PartBusyError
            Somebody works on it.
        PartLostError
            It holds less than ``at_bytes``.
        """

    def copy_part(self, upload: str, copy: str, size_bytes: int) -> None:
        """Copy a part's first bytes to a new part, durably, whoever works on the old one."""

    def remove_part(self, upload: str) -> None:
        """Remove a part; an absent one is no error."""

    def stale_parts(self, max_age_seconds: float) -> list[str]:
        """Return parts that nobody works on and that were last written to longer ago."""

    def is_receiving(self, upload: str, batch: BatchPath, name: str) -> bool:
        """Say whether somebody works on an upload, here or in another process.

        False where its process has ended, however that came.
        """

    def publish(self, part: Any, batch: BatchPath, name: str) -> None:
        """Give a finished part its name, durably; what has the name already stays.

        Raises
        ------
        NameTakenError
            The name is taken; the part is still there.
        """

    def retract(self, part: Any, batch: BatchPath, name: str) -> None:
        """Take a publication back. What has the name and is not this part stays.

        It raises only where what lies there may still go later.
        """

    def adopt(self, batch: BatchPath, name: str, stored: Stored) -> bool:
        """Make a published file durable if it has just these bytes; say whether it has."""

    def open_file(self, batch: BatchPath, name: str) -> tuple[IO[bytes], int]:
        """Open a published file, seekable, and tell its size in bytes.

        Raises
        ------
        FileNotFoundError
            It is not there.
        """

    def remove_file(self, batch: BatchPath, name: str) -> None:
        """Remove a published file, durably; an absent one is no error."""

    def quarantine(self, batch: BatchPath, name: str) -> str:
        """Set a published file that nobody acknowledged aside and return its new name.

        Raises
        ------
        FileNotFoundError
            There is nothing of this name.
        """

    def write_documents(self, batch: BatchPath, documents: Mapping[str, bytes]) -> None:
        """Write documents beside a batch's files, durably; the same again change nothing."""

    def remove_batch(self, batch: BatchPath) -> None:
        """Remove a batch with all that lies in it; an absent one is no error."""

    def walk(self) -> Iterator[Landed]:
        """Yield every published file; strangers among the directories are passed over."""


@runtime_checkable
class Gathering(Protocol):
    """What a zone can do besides where many names cost little more than one."""

    def publish_all(self, wanted: Sequence[tuple[Any, BatchPath, str]]) -> set[int]:
        """Publish many finished parts; return the places of those whose names were taken."""

    def retract(self, part: Any, batch: BatchPath, name: str) -> None:
        """Take a publication back. What has the name and is not this part stays."""
