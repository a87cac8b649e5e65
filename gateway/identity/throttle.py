"""Guessing passwords costs time: failures are counted for each account and each address.

A limit of k means that at most k guesses in a window are told apart from right ones. Every
further answer is the same, right or wrong, known account or not; also for guesses that were
under way when the limit was reached.
"""

from __future__ import annotations

import hashlib
import ipaddress
import unicodedata
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from gateway import database, settings
from gateway.errors import GatewayError
from gateway.identity.model import FailedLogin

IPV6_PREFIX = 64


class TooManyAttemptsError(GatewayError):
    """Too many wrong passwords for this account or from this address; nothing was tried."""

    slug = "rate-limited"
    status = 429
    title = "Too many attempts"
    retryable = True

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("Wait before trying again.")
        self.headers["Retry-After"] = str(retry_after_seconds)


@dataclass(frozen=True, slots=True)
class Counters:
    """The digests under which an attempt is counted.

    Before the directory was asked the name is as it was given, afterwards the account's own:
    the directory takes more spellings for one than can be foreseen here.
    """

    account: str
    address: str

    @classmethod
    def of(cls, name: str, address: str) -> Counters:
        """Return the counters of one attempt.

        One household or host has a whole /64 of IPv6 addresses: they count as one.
        """
        return cls(_digest("account", _spelling(name)), _digest("address", _network(address)))


def check(session: Session, config: settings.Throttle, counters: Counters) -> None:
    """Do nothing while another attempt is allowed.

    Raises
    ------
    TooManyAttemptsError
        It is not; says how long to wait.
    """
    limits = {
        counters.account: config.account_failures,
        counters.address: config.address_failures,
    }
    window = timedelta(seconds=config.window_seconds)
    for key, limit in limits.items():
        # The limit-th newest failure is the one that has to leave the window first.
        age = session.scalar(
            select(func.clock_timestamp() - FailedLogin.at)
            .where(FailedLogin.key == key, FailedLogin.at > func.clock_timestamp() - window)
            .order_by(FailedLogin.at.desc())
            .offset(limit - 1)
            .limit(1)
        )
        if age is not None:
            raise TooManyAttemptsError(max(1, int((window - age).total_seconds()) + 1))


def count_failure(session: Session, config: settings.Throttle, counters: Counters) -> None:
    """Count a wrong password.

    Raises
    ------
    TooManyAttemptsError
        The limit was reached while this attempt was under way; it must not be told apart.
    """
    keys = sorted((counters.account, counters.address))
    for key in keys:
        # Parallel guesses at one account are counted one after the other.
        number = int.from_bytes(bytes.fromhex(key[:16]), "big", signed=True)
        session.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})
    check(session, config, counters)
    at = database.now(session)
    session.add_all(FailedLogin(id=database.new_id("fail"), key=key, at=at) for key in keys)


def sweep(session: Session, config: settings.Throttle) -> int:
    """Forget failures that no longer count; return how many."""
    window = timedelta(seconds=config.window_seconds)
    old = FailedLogin.at < func.clock_timestamp() - window
    forgotten = session.execute(delete(FailedLogin).where(old))
    return int(getattr(forgotten, "rowcount", 0))


def _spelling(name: str) -> str:
    shown = (sign for sign in name if unicodedata.category(sign) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", "".join(shown)).casefold().split())


def _network(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, IPV6_PREFIX), strict=False))
    return str(ip)


def _digest(kind: str, value: str) -> str:
    return hashlib.sha256(f"{kind}\0{value}".encode()).hexdigest()
