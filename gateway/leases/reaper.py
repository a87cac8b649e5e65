"""What goes on beside the doors: renewing what is in use, revoking what is over, looking for strays."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from gateway import logs
from gateway.errors import GatewayError
from gateway.identity.lookup import RESERVED_NAME as GATEWAY
from gateway.leases import due, ledger
from gateway.leases.lending import Lending
from gateway.leases.resources.driver import Driver, Listing, ResourceUnavailableError

# Of one data system in one turn: the others have theirs too.
REVOCATIONS = 50
RENEWALS = 50

log = logs.get("leases")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of the reaper did."""

    ended: int
    revoked: int
    renewed: int


def turn(lending: Lending) -> Turn:
    """End what is over, revoke what was ended, renew what is in use."""
    with lending.sessions.begin() as session:
        ended = due.end_overdue(session)
    with lending.sessions.begin() as session:
        names = due.drivers(session)
    revoked = sum(_revoke_some(lending, name) for name in names)
    return Turn(ended, revoked, _renew_some(lending))


def _revoke_some(lending: Lending, driver: str) -> int:
    for done in range(REVOCATIONS):
        with lending.sessions.begin() as session:
            lease = due.claim(session, driver)
        # Whoever does not answer once is not waited for again in this turn.
        if lease is None or not lending.carry_out(lease):
            return done
    return REVOCATIONS


def _renew_some(lending: Lending) -> int:
    renewed = 0
    for _ in range(RENEWALS):
        with lending.sessions.begin() as session:
            claimed = due.claim_renewal(session, lending.config)
        if claimed is None:
            break
        # What fails is tried again half a minute later, before its time is over.
        with suppress(GatewayError):
            lending.prolong(*claimed, actor=GATEWAY)
            renewed += 1
    return renewed


def find_strays(lending: Lending) -> int:
    """Compare what the data systems hold with the ledger, and end again what should be gone.

    That happens to a process that was stopped between its intent and the outside change, and went
    on after the reaper. What no ledger of ours knows is another's, and stays.
    """
    return sum(_strays_of(lending, driver) for driver in lending.resources.known.values())


def _strays_of(lending: Lending, driver: Driver) -> int:
    if not isinstance(driver, Listing):
        return 0
    try:
        held = driver.held()
    except ResourceUnavailableError:
        return 0
    with lending.sessions.begin() as session:
        strays = due.wrongly_held(session, held)
        for lease_id in strays:
            ledger.end_again(session, lease_id, reason="stray")
    if strays:
        log.error("leases_strayed", driver=driver.name, count=len(strays))
    return len(strays)
