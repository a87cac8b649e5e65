"""The small files of one delivery: written side by side while more arrive, stored a group at a time.

One group is gathered while the one before is stored: what is held in memory is two of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial

from gateway.batches.views import ListedFile
from gateway.chunks import Chunk
from gateway.jobs.reading import client_of
from gateway.landing.zone import Part
from gateway.uploads.groups import MOST, Groups
from gateway.uploads.intake import Intake
from gateway.uploads.receive import receive
from gateway.uploads.small import Ready, Small, write_all

GROUP_BYTES = 4 * 1024**2
# One turn of a thread for so many files; and so few turns that other senders find threads free.
TURN_FILES = 32
TURNS = 4

Turn = asyncio.Task[list[Ready]]


class Bundle:
    """Takes small files; each that ``finish`` returns is durable, published and written down."""

    def __init__(self, intake: Intake, groups: Groups) -> None:
        self._intake = intake
        self._groups = groups
        self._free = asyncio.Semaphore(TURNS)
        self._waiting: list[Small] = []
        self._turns: list[Turn] = []
        self._files = self._size_bytes = 0
        self._storing: asyncio.Task[None] | None = None
        self._listed: list[ListedFile] = []

    async def add(self, small: Small) -> None:
        """Take one more file.

        Raises
        ------
        GatewayError
            What became of this one, or of one before it.
        """
        self._waiting.append(small)
        self._files += 1
        self._size_bytes += sum(map(len, small.content))
        if len(self._waiting) >= TURN_FILES:
            await self._write()
        if self._files >= MOST or self._size_bytes >= GROUP_BYTES:
            await self._close_group()

    async def finish(self) -> list[ListedFile]:
        """Store what is left, and return all.

        Raises
        ------
        GatewayError
            As ``add``.
        """
        await self._close_group()
        if self._storing is not None:
            await self._storing
        return self._listed

    async def abandon(self) -> None:
        """Wait for what is under way, and remove what nobody stored."""
        if self._storing is not None:
            await asyncio.wait([self._storing])
            with contextlib.suppress(asyncio.CancelledError):
                self._storing.exception()
        await _remove(self._intake, self._turns)

    async def _write(self) -> None:
        await self._free.acquire()
        files, self._waiting = self._waiting, []
        turn = asyncio.create_task(self._intake.run(partial(_written, self._intake, files)))
        turn.add_done_callback(lambda _: self._free.release())
        self._turns.append(turn)

    async def _close_group(self) -> None:
        if self._waiting:
            await self._write()
        if self._storing is not None:
            await self._storing
        turns, self._turns = self._turns, []
        self._files = self._size_bytes = 0
        self._storing = asyncio.create_task(self._store(turns))

    async def _store(self, turns: Sequence[Turn]) -> None:
        try:
            files = [file for turn in turns for file in await turn]
        except BaseException:
            await _remove(self._intake, turns)
            raise
        if not files:
            return
        client = client_of(files[0].small.principal)
        views = await self._intake.run(partial(self._groups.store, client, files))
        for file, view in zip(files, views, strict=True):
            found = view or await self._alone(file.small)
            listed = {"name": found.name, "size_bytes": found.size_bytes, "sha256": found.sha256}
            self._listed.append(ListedFile.model_validate(listed))

    async def _alone(self, small: Small) -> ListedFile:
        """Send a file that its group left out the way of a single one, which says what is wrong."""
        content = _again(small.content)
        said = small.announced
        received = await receive(
            self._intake, small.principal, small.batch_id, small.name, said, content
        )
        file = received.file
        return ListedFile(name=file.name, size_bytes=file.size_bytes, sha256=file.sha256)


def _written(intake: Intake, files: Sequence[Small]) -> list[Ready]:
    found = write_all(intake.zone, files)
    ready = [each for each in found if isinstance(each, Ready)]
    for each in found:
        if isinstance(each, Exception):
            _abort([file.part for file in ready])
            raise each
    return ready


async def _remove(intake: Intake, turns: Sequence[Turn]) -> None:
    """Remove what was written in turns; those that failed have done so themselves."""
    found = await asyncio.gather(*turns, return_exceptions=True)
    parts = [file.part for files in found if isinstance(files, list) for file in files]
    if parts:
        await intake.run(partial(_abort, parts))


def _abort(parts: Sequence[Part]) -> None:
    for part in parts:
        part.abort()


async def _again(content: Sequence[Chunk]) -> AsyncIterator[Chunk]:
    for chunk in content:
        yield chunk
