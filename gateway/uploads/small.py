"""Small files: what came whole, and what is durable under no name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway import database
from gateway.identity.access import Principal
from gateway.landing.names import FileName
from gateway.landing.zone import Chunk, Part, Stored, Zone
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


def write(zone: Zone, small: Small) -> Ready:
    """Make a small file's bytes durable, under no name; blocks.

    Raises
    ------
    InvalidRequestError, DigestMismatchError
        They are not what was announced.
    InsufficientStorageError, StorageUnavailableError
    """
    upload = database.new_id("upl")
    part = zone.open_part(upload, small.announced.size_bytes)
    try:
        part.write(small.content)
        stored = part.finish()
        small.announced.check(stored)
    except BaseException:
        part.abort()
        raise
    return Ready(small, upload, part, stored)
