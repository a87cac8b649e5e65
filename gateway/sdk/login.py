"""Access tokens: fetched when first needed, renewed before they lapse or when refused."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Literal

from gateway.sdk import records
from gateway.sdk.transport import Exchange, Transport

Kind = Literal["service", "person"]

# A token is not used in its last seconds: a refusal halfway through a large body is costly.
SPARE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Account:
    """Who logs in.

    Parameters
    ----------
    kind
        ``service`` (RFC 6749 client credentials) or ``person`` (password grant).
    client
        Needed only when the account belongs to several clients.
    """

    user: str
    password: str = field(repr=False)
    kind: Kind = "service"
    client: str = ""

    def as_form(self) -> dict[str, str]:
        """Return the form for the token endpoint."""
        if self.kind == "person":
            form = {"grant_type": "password", "username": self.user, "password": self.password}
        else:
            form = {
                "grant_type": "client_credentials",
                "client_id": self.user,
                "client_secret": self.password,
            }
        return form | ({"client": self.client} if self.client else {})


class Login:
    """Keeps one valid access token for an account; safe to share between threads.

    Notes
    -----
    Refresh tokens are not used: they rotate, and a lost answer would make the next use of the
    old one look like theft. The password is at hand anyway.
    """

    def __init__(self, transport: Transport, account: Account) -> None:
        self._transport = transport
        self._account = account
        self._lock = threading.Lock()
        self._token = ""
        self._good_until = 0.0

    def token(self) -> str:
        """Return a token that will be valid for a while."""
        with self._lock:
            if not self._token or time.monotonic() >= self._good_until:
                self._fetch()
            return self._token

    def renewed(self, refused: str) -> str:
        """Return another token than the refused one; many threads may be refused at once."""
        with self._lock:
            if self._token == refused:
                self._fetch()
            return self._token

    def _fetch(self) -> None:
        asked_at = time.monotonic()
        form = self._account.as_form()
        body = self._transport.call(Exchange("POST", "v1/token", form=form)).json()
        self._token = records.required(body, "access_token")
        ttl_seconds = float(body.get("expires_in") or 0.0)
        self._good_until = asked_at + max(ttl_seconds - SPARE_SECONDS, ttl_seconds / 2)
