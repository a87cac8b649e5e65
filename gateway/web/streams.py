"""The bodies of uploads, piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import Request

Chunk = bytes | bytearray | memoryview


def body(request: Request) -> AsyncIterator[Chunk]:
    """Return an upload's body as it arrives; empty pieces may be among them.

    Raises
    ------
    RequestTimeoutError
        The sender is silent, or slower than any line.
    ClientDisconnect
        The sender is gone before the end.
    """
    return request.stream()
