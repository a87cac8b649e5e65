"""Blocking work, done in a thread for a request on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

Result = TypeVar("Result")


async def run(work: Callable[[], Result], executor: Executor | None = None) -> Result:
    """Do blocking work in a thread, with this request's context; default: the loop's own threads.

    A thread cannot be stopped: when the request is canceled, this ends only with the work, so that
    nothing is taken away that the work still uses.
    """
    context = contextvars.copy_context()
    job = asyncio.get_running_loop().run_in_executor(executor, context.run, work)
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        await ended(job)
        raise


async def ended(job: asyncio.Future[Any]) -> None:
    """Wait for the end of something, however often this itself is canceled."""
    while not job.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([job])
