"""The people and services that come to Airflow, as Airflow sees them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser


class Kind(Enum):
    """Which column of the rights table applies to a user."""

    TRIGGER = "trigger"
    CANCEL = "cancel"
    WATCHER = "watcher"
    POOLS = "pools"
    VIEWER = "viewer"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    ADMIN = "admin"


# Only people get a session of Airflow's own; the gateway's services bring a fresh token each time.
PEOPLE = frozenset({Kind.VIEWER, Kind.OPERATOR, Kind.AUDITOR, Kind.ADMIN})
# They act for one client; the others may belong to one as well, and it adds nothing.
CLIENTS_PEOPLE = frozenset({Kind.VIEWER, Kind.OPERATOR})


@dataclass(frozen=True)
class GatewayUser(BaseUser):
    """One authenticated caller.

    Attributes
    ----------
    sub
        The login name, or ``gateway`` for its services.
    client
        The one client this caller acts for; ``None`` for watchers, most auditors and admins.
    dags
        Only for triggering and canceling: the DAG ids the token was minted for.
    expires_at
        Unix seconds. No session made from this user may outlive it.
    session
        By which the gateway knows this sign-on; only people have one.
    confirmed_until
        Unix seconds: how far the gateway's last answer lets the session go on.
    """

    sub: str
    kind: Kind
    expires_at: int
    client: str | None = None
    scopes: frozenset[str] = field(default_factory=frozenset)
    dags: frozenset[str] = field(default_factory=frozenset)
    session: str | None = None
    confirmed_until: int = 0

    def get_id(self) -> str:
        """Return the name Airflow writes into its event log."""
        return self.sub

    def get_name(self) -> str:
        """Return the name shown in Airflow's interface."""
        return self.sub
