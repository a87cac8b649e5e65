"""How much may be delivered: data, per client and per project.

A project's limits only narrow its client's. What one object may be (a file, a batch) is bounded by
the narrower of the two; what there may be at a time or on a day is counted twice, for the client
as a whole and for the project alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.clients.registry import Client, Project

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a client or project; sizes in bytes.

    ``bytes_per_day`` counts what was received on a day (UTC); None does not limit it.
    """

    file_bytes: int = 50 * GIB
    batch_bytes: int = 500 * GIB
    files_per_batch: int = 10_000
    open_batches: int = 20
    uploads_in_flight: int = 16
    requests_per_second: int = 100
    bytes_per_day: int | None = None


def of(client: Client) -> Limits:
    """Return the limits in force for ``client``: what was applied, else the defaults."""
    return Limits(**client.limits)


def for_project(client: Client, project: Project) -> Limits:
    """Return the limits in force for one of the client's projects: the narrower of both.

    Notes
    -----
    ``open_batches``, ``uploads_in_flight`` and ``bytes_per_day`` hold for what the project has
    alone. The client's own (``of``) hold for all its projects together: check both.
    """
    held = of(client)
    narrower = {
        name: value if (most := getattr(held, name)) is None else min(value, most)
        for name, value in project.limits.items()
    }
    return replace(held, **narrower)
