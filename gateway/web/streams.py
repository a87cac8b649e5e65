"""The bodies of uploads, piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import Request

from gateway.chunks import Chunk

# In ASGI's ``extensions``: where a reader agrees that what it gets is only lent to it.
LENDING = "gateway.lending"


def body(request: Request) -> AsyncIterator[Chunk]:
    """Return an upload's body as it arrives; empty pieces may be among them.

    Pieces may be views of buffers that are used again as soon as no view of them is left: let go
    of them, or at most three are received ahead and memory grows with what is kept.

    Raises
    ------
    RequestTimeoutError
        The sender is silent, or slower than any line.
    ClientDisconnect
        The sender is gone before the end.
    """
    terms = request.scope.get("extensions", {}).get(LENDING)
    if terms is not None:
        terms["agreed"] = True
    return request.stream()
