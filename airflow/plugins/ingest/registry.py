"""Which DAG and which pool belong to which client: the registry file that onboarding writes.

The file is the only authority. A DAG id that merely begins with a client's name belongs to nobody.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

log = logging.getLogger(__name__)

_VERSION = 1


@dataclass(frozen=True)
class Ownership:
    """One reading of the registry."""

    client_by_dag: dict[str, str] = field(default_factory=dict)
    client_by_pool: dict[str, str] = field(default_factory=dict)
    dag_by_project: dict[tuple[str, str], str] = field(default_factory=dict)

    def dag_ids(self, client: str | None) -> frozenset[str]:
        """Return the DAG ids of one client; none for nobody."""
        return frozenset(dag for dag, owner in self.client_by_dag.items() if owner == client)

    def dag_of(self, client: str, project: str) -> str | None:
        """Return the DAG of a client's project, where there is one, undisputed."""
        dag_id = self.dag_by_project.get((client, project))
        return dag_id if dag_id and self.client_by_dag.get(dag_id) == client else None

    def projects(self, client: str) -> frozenset[str]:
        """Return the names of a client's projects."""
        return frozenset(name for owner, name in self.dag_by_project if owner == client)


class Registry:
    """The registry file, read again whenever onboarding has replaced it.

    Notes
    -----
    A missing or broken file grants nothing. It is replaced by an atomic rename, so inode, size and
    time together tell a new file from the old one for the price of one ``stat``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reading: tuple[tuple[int, int, int] | None, Ownership] = (None, Ownership())

    def current(self) -> Ownership:
        """Return what the file says now."""
        stamp = self._stamp()
        known, ownership = self._reading
        if stamp != known:
            ownership = self._read() if stamp else Ownership()
            self._reading = (stamp, ownership)
        return ownership

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return (status.st_ino, status.st_size, status.st_mtime_ns)

    def _read(self) -> Ownership:
        try:
            document = json.loads(self._path.read_bytes())
            if document["version"] != _VERSION:
                log.error("The registry has an unknown version; it grants nothing")
                return Ownership()
            return _ownership(document["projects"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            log.exception("The registry cannot be read; it grants nothing")
            return Ownership()


def _ownership(projects: list[dict[str, Any]]) -> Ownership:
    return Ownership(
        client_by_dag=_undisputed((entry["dag_id"], entry["client"]) for entry in projects),
        client_by_pool=_undisputed(
            (entry["pool"], entry["client"]) for entry in projects if entry.get("pool")
        ),
        dag_by_project={
            (entry["client"], entry["project"]): entry["dag_id"]
            for entry in projects
            if "project" in entry
        },
    )


def _undisputed(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Map names to clients; a name that two clients claim belongs to neither."""
    owners: dict[str, set[str]] = {}
    for name, client in pairs:
        owners.setdefault(name, set()).add(client)
    return {name: next(iter(clients)) for name, clients in owners.items() if len(clients) == 1}
