"""Which resumable uploads this process receives at the moment, and what it knows of others.

A newer request may have taken an upload over in another process: the fences of all that is received
here are asked for together, several times a second, and whoever is outrun is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from gateway import logs
from gateway.landing.zone import Digest
from gateway.uploads import tickets

if TYPE_CHECKING:
    from gateway.uploads.intake import Intake
    from gateway.uploads.stretch import Stretch

log = logs.get("uploads")

LOOK_SECONDS = 0.4
REMEMBERED = 10_000
# Passes over whole files that run at once: each holds a writer's thread for as long as it takes.
FINISHING = 4


class Switchboard:
    """One for each process; of its loop alone, but for the digests."""

    def __init__(self) -> None:
        self.finishing = asyncio.Semaphore(FINISHING)
        self._receiving: dict[str, Stretch] = {}
        self._digests: OrderedDict[str, Digest] = OrderedDict()
        self._look: asyncio.Task[None] | None = None

    @contextmanager
    def connected(self, stretch: Stretch, intake: Intake) -> Iterator[None]:
        """Stop an older stretch of the same upload here, and be stoppable while this one lasts."""
        identity = stretch.upload.id
        other = self._receiving.get(identity, stretch)
        newest = max(other, stretch, key=lambda each: each.upload.fence)
        for each in {other, stretch} - {newest}:
            each.stop.set()
        self._receiving[identity] = newest
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._keep_looking(intake))
        try:
            yield
        finally:
            if self._receiving.get(identity) is stretch:
                del self._receiving[identity]

    def digest_of(self, upload: str) -> Digest | None:
        """Return how far an upload's digest is known here; it is forgotten with that."""
        return self._digests.pop(upload, None)

    def remember(self, upload: str, digest: Digest) -> None:
        """Keep how far an upload's digest is known, for its next stretch."""
        self._digests[upload] = digest
        if len(self._digests) > REMEMBERED:
            with contextlib.suppress(KeyError):
                self._digests.popitem(last=False)

    async def _keep_looking(self, intake: Intake) -> None:
        while self._receiving:
            await asyncio.sleep(LOOK_SECONDS)
            here = list(self._receiving.values())
            try:
                newest = await intake.run(partial(_fences, intake, list(self._receiving)))
            except SQLAlchemyError as error:
                log.warning("fences_unknown", kind=type(error).__name__)
                continue
            for stretch in here:
                if newest.get(stretch.upload.id, -1) != stretch.upload.fence:
                    stretch.stop.set()


def _fences(intake: Intake, ids: list[str]) -> dict[str, int]:
    with intake.sessions.begin() as session:
        return tickets.fences(session, ids)
