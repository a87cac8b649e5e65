"""A few of each client's requests at a time, where each is much work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class _Line:
    places: asyncio.Semaphore
    users: int = 0


class Turns:
    """Lets so many of one client's through side by side; its others wait, and hold up nobody else.

    They wait on the event loop, in the order in which they came, without a thread or a connection.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._lines: dict[tuple[asyncio.AbstractEventLoop, str], _Line] = {}

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Wait for a place, and hold it."""
        key = (asyncio.get_running_loop(), client)
        line = self._lines.setdefault(key, _Line(asyncio.Semaphore(self._width)))
        line.users += 1
        try:
            async with line.places:
                yield
        finally:
            line.users -= 1
            if not line.users:
                del self._lines[key]
