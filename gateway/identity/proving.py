"""Passwords are proven in one place: throttled, recorded, the same for tokens and for the page."""

from __future__ import annotations

import time
from dataclasses import dataclass

from gateway.audit import actions, trail
from gateway.identity import throttle
from gateway.identity.access import Access
from gateway.identity.accounts import Account, Kind, WrongCredentialsError
from gateway.identity.requests import (
    InvalidClientError,
    InvalidGrantError,
    Login,
    TokenRefusedError,
)

UNKNOWN = "unknown"
WRONG = "Wrong name or password."


@dataclass(frozen=True, slots=True)
class Prover:
    """Asks the directory whose password something is."""

    access: Access

    def prove(self, login: Login, address: str) -> Account:
        """Return the account whose name and password these are.

        Raises
        ------
        TokenRefusedError
            The name or the password is wrong.
        TooManyAttemptsError
            After too many failures, whether this was one or not.
        DirectoryUnavailableError
            Nobody can be signed in at present.
        """
        self._check_throttle(login.name, address)
        asked_at = time.monotonic()
        try:
            account = self._proven(login)
        except WrongCredentialsError as error:
            self._failed(login, error.account, address)
            raise _wrong(login.kind) from None
        self._check_throttle(account.name, address)
        self.access.membership.learn(account.name, account, asked_at)
        return account

    def record_refusal(self, account: Account, reason: str, address: str) -> None:
        """Keep that somebody who is who they say was refused all the same."""
        with self.access.database.begin() as session:
            trail.record(
                session,
                actor=account.name,
                action=actions.LOGIN_FAILED,
                subject=account.name,
                client=None,
                details={"kind": account.kind, "address": address, "reason": reason},
            )

    def _check_throttle(self, name: str, address: str) -> None:
        counters = throttle.Counters.of(name, address)
        with self.access.database.begin() as session:
            throttle.check(session, self.access.config.throttle, counters)

    def _proven(self, login: Login) -> Account:
        known = None
        for name, password in login.readings:
            try:
                return self.access.directory.authenticate(name, password, login.kind)
            except WrongCredentialsError as error:
                known = known or error.account
        raise WrongCredentialsError(known)

    def _failed(self, login: Login, known: str | None, address: str) -> None:
        counters = throttle.Counters.of(known or login.name, address)
        with self.access.database.begin() as session:
            throttle.count_failure(session, self.access.config.throttle, counters)
            trail.record(
                session,
                # What was typed as a name may be a password: an unknown one is not kept.
                actor=known or UNKNOWN,
                action=actions.LOGIN_FAILED,
                subject=known or UNKNOWN,
                client=None,
                details={"kind": login.kind, "address": address},
            )


def _wrong(kind: Kind) -> TokenRefusedError:
    return InvalidClientError(WRONG) if kind == "service" else InvalidGrantError(WRONG)
