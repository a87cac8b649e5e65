"""Small files: what came whole, and what is durable under no name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway import database
from gateway.chunks import Chunk
from gateway.identity.access import Principal
from gateway.landing.names import FileName
from gateway.landing.zone import Part, Stored, Zone
from gateway.uploads import completion
from gateway.uploads.announced import Announced

SMALL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Small:
    """A small file that came whole, and what its sender said of it."""

    principal: Principal
    batch_id: str
    name: FileName
    announced: Announced
    request_id: str | None
    content: Sequence[Chunk]


@dataclass(frozen=True, slots=True)
class Ready:
    """A small file that is durable in its part."""

    small: Small
    upload: str
    part: Part
    stored: Stored

    @property
    def facts(self) -> dict[str, Any]:
        """Return what the trail and the feed say of it."""
        return completion.facts(self.small.batch_id, self.small.name.text, self.stored)


def write_all(zone: Zone, files: Sequence[Small]) -> list[Ready | Exception]:
    """Make the bytes of several small files durable, under no names; blocks.

    The disk begins with all of them before one is waited for: what the first sync writes out of the
    file system's journal, the others need not.

    Returns
    -------
    list
        For each file what became of it: ready, or why not (``InvalidRequestError``,
        ``DigestMismatchError``, ``InsufficientStorageError``, ``StorageUnavailableError``).
    """
    begun = [_begun(zone, small) for small in files]
    return [
        each if isinstance(each, Exception) else _finished(small, *each)
        for small, each in zip(files, begun, strict=True)
    ]


def _begun(zone: Zone, small: Small) -> tuple[str, Part] | Exception:
    upload = database.new_id("upl")
    try:
        part = zone.open_part(upload, small.announced.size_bytes)
    except Exception as error:  # noqa: BLE001 - returned
        return error
    try:
        part.write(small.content)
        part.hasten()
    except Exception as error:  # noqa: BLE001 - returned
        part.abort()
        return error
    return upload, part


def _finished(small: Small, upload: str, part: Part) -> Ready | Exception:
    try:
        stored = part.finish()
        small.announced.check(stored)
    except Exception as error:  # noqa: BLE001 - returned
        part.abort()
        return error
    return Ready(small, upload, part, stored)
