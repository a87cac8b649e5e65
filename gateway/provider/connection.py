"""What a connection of Airflow says, as the SDK takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self
from urllib.parse import quote

from gateway.sdk import journal
from gateway.sdk.client import GatewayClient
from gateway.sdk.login import Account, Kind
from gateway.sdk.transport import RetryPolicy
from gateway.sdk.watching import Address, JobWatch

_KINDS: dict[str, Kind] = {"": "service", "service": "service", "person": "person"}
_YES: set[object] = {True, "true", "True", "1"}


class Given(Protocol):
    """The parts of Airflow's ``Connection`` that are read."""

    conn_id: str
    host: str | None
    port: int | None
    schema: str | None
    login: str | None
    password: str | None

    @property
    def extra_dejson(self) -> Mapping[str, Any]:
        """The form's own fields."""


@dataclass(frozen=True, slots=True)
class Way:
    """The way to a gateway: where it is, and who goes there.

    Parameters
    ----------
    page
        Where people see a job: an address with ``{job}``; empty: nobody said.
    """

    address: Address
    account: Account
    page: str = ""

    @classmethod
    def of(cls, given: Given) -> Self:
        """Read a connection.

        Raises
        ------
        ValueError
            Something is missing, or makes no sense.
        """
        extra = given.extra_dejson
        kind = _KINDS.get(str(extra.get("account") or ""))
        if kind is None:
            raise ValueError(f"{given.conn_id}: the kind of account is service or person")
        if not given.login or not given.password:
            raise ValueError(f"{given.conn_id} has no account, or no password for it")
        ca_file = extra.get("ca_file")
        if ca_file and not Path(ca_file).is_file():
            raise ValueError(f"{given.conn_id}: there is no file {ca_file} with authorities here")
        return cls(
            Address(
                _url(given),
                Path(ca_file) if ca_file else None,
                allow_http=extra.get("allow_http") in _YES,
            ),
            Account(given.login, given.password, kind, str(extra.get("client") or "")),
            str(extra.get("page") or ""),
        )

    def open(self, policy: RetryPolicy | None = None) -> GatewayClient:
        """Return a client of the gateway.

        Raises
        ------
        ValueError
            The address is not one, or not safe.
        """
        return GatewayClient(
            self.address.url,
            self.account.user,
            self.account.password,
            self.address.ca,
            kind=self.account.kind,
            client=self.account.client,
            policy=policy,
            allow_http=self.address.allow_http,
        )

    def watch(self) -> JobWatch:
        """Return what waits for jobs in an event loop."""
        return JobWatch(self.address, self.account)

    def notes_of(self, project: str, reference: str) -> Path | None:
        """Return where this machine notes how far a delivery has come.

        Notes
        -----
        The same place as that of ``gateway send``: either goes on where the other stopped.
        """
        who = (self.account.kind, self.account.user, self.account.client)
        return journal.place_of(self.address.url.rstrip("/"), *who, project, reference)

    def page_of(self, job_id: str) -> str:
        """Return where people see a job; empty when nobody said."""
        return self.page.replace("{job}", quote(job_id, safe=""))


def _url(given: Given) -> str:
    """Return the address: a URL as the host, or what a connection's own URI was taken apart to."""
    host = given.host or ""
    if "://" in host:
        return host
    scheme: Literal["http", "https"] = "http" if given.schema == "http" else "https"
    return f"{scheme}://{host}:{given.port}" if given.port else f"{scheme}://{host}"
