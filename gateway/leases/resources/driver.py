"""What every data system's driver does, so that the ledger need not know any of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from gateway import logs
from gateway.errors import UnavailableError

# Callers who speak to one system at a time, in one process; the others are told to come again.
SLOTS = 8
SLOT_SECONDS = 2.0

log = logs.get("leases")


class ResourceUnavailableError(UnavailableError):
    """The data system does not answer, or does not do what it was asked."""

    title = "The data system is not available"

    def __init__(self, kind: str = "") -> None:
        super().__init__(headers={"Retry-After": "5"})
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Purpose:
    """For which batch of whom a lease is made."""

    lease: str
    client: str
    project: str
    batch: str


@dataclass(frozen=True, slots=True)
class Connection:
    """A credential, as Airflow writes connections."""

    conn_type: str
    host: str | None = None
    port: int | None = None
    schema: str | None = None
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    extra: dict[str, Any] = field(default_factory=dict, repr=False)


class Driver(Protocol):
    """Makes, prolongs and ends credentials of one data system. Its methods block, in bounded time.

    Raises
    ------
    ResourceUnavailableError
        From every method but ``handle``.
    """

    @property
    def name(self) -> str:
        """What the ledger calls it: a lease is revoked by the driver that issued it."""

    def handle(self, purpose: Purpose) -> dict[str, Any]:
        """Return what revoking needs: it follows from the purpose alone, and is no secret."""

    def issue(self, purpose: Purpose, seconds: float) -> Connection:
        """Make a credential that takes no new sign-in after so long, by the system's own clock."""

    def renew(self, handle: dict[str, Any], seconds: float) -> None:
        """Let it live so long from now on."""

    def revoke(self, handle: dict[str, Any]) -> None:
        """End it: no new sign-in, and no session that goes on. What is absent is no error."""


@runtime_checkable
class Listing(Protocol):
    """What a driver can do besides whose system can say which leases it holds."""

    def held(self) -> list[str]:
        """Return the ids of the leases of which there is something in the system."""


class Gate:
    """The way to one data system: so many callers at a time, and one kind of failure.

    Parameters
    ----------
    describe
        Names a failure in a word or two for the ledger; never its text, which is not ours.
    """

    def __init__(self, system: str, describe: Callable[[Exception], str]) -> None:
        self._system = system
        self._describe = describe
        self._slots = threading.BoundedSemaphore(SLOTS)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Pass through."""
        if not self._slots.acquire(timeout=SLOT_SECONDS):
            raise ResourceUnavailableError("busy")
        try:
            yield
        except ResourceUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the system did not do it
            kind = f"{type(error).__name__} {self._describe(error)}".strip()
            log.warning("resource_unavailable", resource=self._system, kind=kind)
            raise ResourceUnavailableError(kind) from None
        finally:
            self._slots.release()
