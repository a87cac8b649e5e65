"""What a platform can do for projects besides what every platform can: a spec that asks for more is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Offer:
    """What projects may ask for.

    Attributes
    ----------
    engines
        What a project's ``engine`` may be.
    databases
        Whether clients' tasks are lent databases of their own, into which rows can be loaded.
    """

    engines: frozenset[str]
    databases: bool

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return what a platform of these settings offers."""
        engines = frozenset(settings.pipeline.known_engines())
        return cls(engines, databases=settings.leases.postgres_url is not None)


LEAST = Offer(frozenset({"local"}), databases=False)
