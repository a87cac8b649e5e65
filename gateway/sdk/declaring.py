"""Asks for many small files at once which of them a batch has, just before they are sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from gateway.sdk import files
from gateway.sdk.client import GatewayClient
from gateway.sdk.files import LocalFile
from gateway.sdk.problems import GatewayProblem

# Fewer are not worth a question.
MANY = 8
# One question; short enough that the first of them is not long in coming.
BLOCK_FILES = 500
BLOCK_BYTES = 64 * 1024 * 1024


@dataclass
class _Block:
    """Files that are asked for together, by whoever comes first."""

    paths: list[Path]
    lock: threading.Lock = field(default_factory=threading.Lock)
    found: dict[Path, LocalFile] = field(default_factory=dict)
    present: frozenset[str] = frozenset()
    is_known: bool = False


class Declaration:
    """The small files of a delivery; safe to share between threads.

    Parameters
    ----------
    inspect
        Reads a file once.
    """

    def __init__(
        self,
        gateway: GatewayClient,
        batch_id: str,
        paths: Sequence[Path],
        inspect: Callable[[Path], LocalFile],
    ) -> None:
        self._gateway = gateway
        self._batch = batch_id
        self._inspect = inspect
        small = [path for path in paths if path.stat().st_size <= files.LARGE_BYTES]
        blocks = _blocks(small) if len(small) >= MANY else ()
        self._blocks = {path: block for block in blocks for path in block.paths}

    def look(self, path: Path) -> tuple[LocalFile, bool]:
        """Return a file with its digest, and whether the batch is known to have it."""
        block = self._blocks.get(path)
        if block is None:
            return self._inspect(path), False
        with block.lock:
            if not block.is_known:
                self._ask(block)
        file = block.found[path]
        return file, file.name in block.present

    def _ask(self, block: _Block) -> None:
        block.found = {path: self._inspect(path) for path in block.paths}
        try:
            block.present = self._gateway.declare(self._batch, list(block.found.values()))
        except GatewayProblem as problem:
            if problem.status not in {httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED}:
                raise
            # An older gateway: what it has it finds out when it is sent.
        block.is_known = True


def _blocks(paths: Sequence[Path]) -> Iterator[_Block]:
    block, size_bytes = _Block([]), 0
    for path in paths:
        block.paths.append(path)
        size_bytes += path.stat().st_size
        if len(block.paths) == BLOCK_FILES or size_bytes >= BLOCK_BYTES:
            yield block
            block, size_bytes = _Block([]), 0
    if block.paths:
        yield block
