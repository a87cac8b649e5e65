"""Every published file below a landing root."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import astuple

from gateway.landing import posix
from gateway.landing.zone import COMPONENT, FILES, BatchPath, Landed


def landed(root: int) -> Iterator[Landed]:
    """Yield published files; strangers among the directories are passed over."""
    for client in _names(root):
        for project in _names(root, client):
            for batch in _names(root, client, project):
                with contextlib.suppress(ValueError):
                    yield from _of_batch(root, BatchPath(client, project, batch))


def _of_batch(root: int, batch: BatchPath) -> Iterator[Landed]:
    passed = contextlib.suppress(FileNotFoundError, NotADirectoryError)
    with passed, posix.chain(root, [*astuple(batch), FILES]) as files:
        for name in sorted(os.listdir(files)):
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=files, follow_symlinks=False)
                yield Landed(batch, name, found.st_size)


def _names(root: int, *path: str) -> list[str]:
    with contextlib.suppress(OSError), posix.chain(root, list(path)) as fd:
        return sorted(name for name in os.listdir(fd) if COMPONENT.fullmatch(name))
    return []
