"""Issuing, renewing and revoking: the ledger and a data system, one after the other.

No transaction is open while a data system is spoken to. What fails in between leaves a row that the
reaper finds.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from gateway import logs, settings
from gateway.errors import Fault, GatewayError, InvalidRequestError
from gateway.leases import due, ledger
from gateway.leases.model import Lease
from gateway.leases.resources import Resources
from gateway.leases.resources.driver import Connection, Driver, ResourceUnavailableError
from gateway.leases.views import LeaseRequest

NOT_CONFIGURED = "not-configured"

log = logs.get("leases")


@dataclass(frozen=True)
class Lending:
    """The ledger and the data systems."""

    config: settings.Leases
    sessions: sessionmaker[Session]
    resources: Resources

    def issue(self, wanted: LeaseRequest, *, actor: str) -> tuple[Lease, Connection]:
        """Give a running task a credential of its own; one more, when it asks again.

        Raises
        ------
        InvalidRequestError
            There is no such data system here.
        NotFoundError, JobNotStartedError, JobFinishedError, TooManyLeasesError
            The task may have none.
        ResourceUnavailableError
            The data system did not make it. Nothing usable is left; asking again is harmless.
        """
        driver = self.resources.offered.get(wanted.resource)
        if driver is None:
            fault = Fault("resource", "is not offered here", "unknown-resource")
            raise InvalidRequestError(errors=[fault])
        with self.sessions.begin() as session:
            lease, purpose = ledger.intend(session, self.config, wanted, driver, actor=actor)
        try:
            connection = driver.issue(purpose, self.config.ttl_seconds)
            with self.sessions.begin() as session:
                issued = ledger.confirm(session, lease.id, actor=actor)
        except BaseException:
            self._give_up(lease)
            raise
        if issued is None:
            # It took so long that the reaper believed us dead, and revoked what was not there yet.
            self._undo(driver, lease)
            raise ResourceUnavailableError("late")
        return issued, connection

    def renew(self, lease_id: str, *, actor: str) -> Lease:
        """Let a lease in force live on, while its job runs and up to its longest life.

        Raises
        ------
        NotFoundError, LeaseEndedError, JobNotStartedError, JobFinishedError
            It may not.
        ResourceUnavailableError
            The data system did not prolong it; it ends when it would have.
        """
        with self.sessions.begin() as session:
            lease, seconds = ledger.renewable(session, self.config, lease_id)
        return self.prolong(lease, seconds, actor=actor)

    def prolong(self, lease: Lease, seconds: float, *, actor: str) -> Lease:
        """Let a lease live so long from now on.

        Raises
        ------
        LeaseEndedError
            It ended while this was tried.
        ResourceUnavailableError
            The data system did not prolong it.
        """
        driver = self.resources.known.get(lease.driver)
        if driver is None:
            raise ResourceUnavailableError(NOT_CONFIGURED)
        driver.renew(lease.handle, seconds)
        with self.sessions.begin() as session:
            renewed = ledger.renewed(session, lease.id, seconds, actor=actor)
        if renewed is None:
            raise ledger.LeaseEndedError
        return renewed

    def revoke(self, lease_id: str, *, reason: str, actor: str) -> Lease:
        """End a lease now. Where the data system does not follow at once, the reaper goes on.

        Raises
        ------
        NotFoundError
            There is no such lease.
        """
        with self.sessions.begin() as session:
            ledger.find(session, lease_id)
            ledger.end(session, lease_id, reason=reason, actor=actor)
            claimed = due.take(session, lease_id)
        if claimed is not None:
            self.carry_out(claimed)
        with self.sessions.begin() as session:
            return ledger.find(session, lease_id)

    def carry_out(self, lease: Lease) -> bool:
        """Revoke a lease that was claimed for it, and note what came of it."""
        driver = self.resources.known.get(lease.driver)
        try:
            if driver is None:
                raise ResourceUnavailableError(NOT_CONFIGURED)  # noqa: TRY301 - noted like others
            driver.revoke(lease.handle)
        except ResourceUnavailableError as error:
            self._failed(lease, error.kind)
            return False
        with self.sessions.begin() as session:
            ledger.revoked(session, lease.id)
        return True

    def _failed(self, lease: Lease, kind: str) -> None:
        with self.sessions.begin() as session:
            given_up = ledger.not_revoked(session, self.config, lease, kind)
            due.put_off(session, lease, is_irrevocable=given_up)
        if given_up:
            log.error("lease_irrevocable", lease=lease.id, resource=lease.resource, kind=kind)

    def _give_up(self, lease: Lease) -> None:
        # Should this not be written, the intent is found when it is old.
        with suppress(SQLAlchemyError), self.sessions.begin() as session:
            ledger.end(session, lease.id, reason="never-issued")

    def _undo(self, driver: Driver, lease: Lease) -> None:
        with suppress(GatewayError):
            driver.revoke(lease.handle)
            return
        with self.sessions.begin() as session:
            ledger.end_again(session, lease.id, reason="never-issued")
