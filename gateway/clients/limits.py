"""How much a client may deliver: data, per client."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.clients.registry import Client

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Limits:
    """A client's limits; sizes in bytes."""

    file_bytes: int = 50 * GIB
    batch_bytes: int = 500 * GIB
    files_per_batch: int = 10_000
    open_batches: int = 20
    uploads_in_flight: int = 16
    requests_per_second: int = 100


def of(client: Client) -> Limits:
    """Return the limits in force for ``client``: what was applied, else the defaults."""
    return Limits(**client.limits)
