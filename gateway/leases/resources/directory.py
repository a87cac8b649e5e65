"""The directory: an account that may read what concerns its client, and is gone at its time."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Any

from gateway import settings
from gateway.identity.accounts import DirectoryUnavailableError
from gateway.identity.entries import Entries
from gateway.leases.resources.driver import Connection, Gate, Purpose

SALT_BYTES = 16


class DirectoryAccounts:
    """Leases in the directory. What an account may read, the directory's own rules say."""

    name = "directory"

    def __init__(self, config: settings.Ldap, leases: settings.Leases) -> None:
        secret = leases.directory_bind_password
        base = f"{leases.directory_rdn},{config.base_dn}"
        password = secret.get_secret_value() if secret else ""
        self._entries = Entries(config, leases.directory_bind_dn or "", password, base)
        self._config = config
        self._gate = Gate(self.name, _cause)

    def handle(self, purpose: Purpose) -> dict[str, Any]:
        """Return the account's DN."""
        return {"dn": self._entries.dn(purpose.client, purpose.lease)}

    def issue(self, purpose: Purpose, seconds: float) -> Connection:
        """Add the account, which the directory removes after so long."""
        password = secrets.token_urlsafe(32)
        with self._gate():
            self._entries.add(purpose.client, purpose.lease, _salted(password), seconds)
        address = self._entries.endpoint
        return Connection(
            "ldap",
            host=address.host,
            port=address.port,
            login=self._entries.dn(purpose.client, purpose.lease),
            password=password,
            extra={
                "use_ssl": address.tls_first,
                "start_tls": not address.tls_first,
                "base": self._config.base_dn,
                "groups": f"{self._config.groups_rdn},{self._config.base_dn}",
            },
        )

    def renew(self, handle: dict[str, Any], seconds: float) -> None:
        """Prolong the account's life."""
        with self._gate():
            self._entries.prolong(handle["dn"], seconds)

    def revoke(self, handle: dict[str, Any]) -> None:
        """Remove the account: what is bound as it can read nothing any more."""
        with self._gate():
            self._entries.remove(handle["dn"])

    def held(self) -> list[str]:
        """Return the ids of the leases that have an account."""
        with self._gate():
            return [name for name in self._entries.names() if name.startswith("lea_")]


def _salted(password: str) -> str:
    """Hash a password as directories store it; it is as long as the digest, so nobody guesses it."""
    salt = secrets.token_bytes(SALT_BYTES)
    digest = hashlib.sha1(password.encode() + salt, usedforsecurity=False).digest()
    return "{SSHA}" + base64.b64encode(digest + salt).decode()


def _cause(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, DirectoryUnavailableError) else None
    return type(cause).__name__ if cause else ""
