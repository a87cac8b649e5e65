"""Speaks LDAP: searches on a few kept connections, each password on a connection of its own.

``binding`` says how each is made.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from ldap3 import BASE, DEREF_NEVER, LEVEL, SUBTREE, Connection
from ldap3.core.exceptions import LDAPSASLPrepError
from ldap3.protocol.sasl.sasl import sasl_prep
from ldap3.utils.conv import escape_filter_chars

from gateway import logs, settings
from gateway.identity import scopes
from gateway.identity.accounts import DirectoryUnavailableError
from gateway.identity.binding import Binder, drop
from gateway.identity.lookup import Found, Lookup, Search

_SUCCESS, _SIZE_LIMIT, _NO_SUCH_OBJECT = 0, 4, 32
# constraintViolation (a lock-out policy), noSuchObject, invalidDNSyntax,
# inappropriateAuthentication, invalidCredentials, insufficientAccess, unwillingToPerform
_REFUSED = frozenset({19, 32, 34, 48, 49, 50, 53})
_DEPTHS: dict[str, Literal["BASE", "LEVEL", "SUBTREE"]] = {
    "itself": BASE,
    "children": LEVEL,
    "below": SUBTREE,
}

log = logs.get("identity")


class Directory(Lookup):
    """The directory, over TLS, in bounded time and with a bounded number of connections."""

    def __init__(self, config: settings.Ldap, roles: settings.Roles) -> None:
        """Prepare; nothing is connected yet.

        Raises
        ------
        SettingsError
            The connection would not be encrypted and verified or could never work, or the names
            of groups would not tell clients apart.
        """
        super().__init__(config)
        scopes.check(roles)
        self._binder = Binder(config)
        self._slots = threading.BoundedSemaphore(config.pool_size)
        self._idle: deque[Connection] = deque()

    def check(self) -> None:
        """Do nothing when the directory answers a search.

        Raises
        ------
        DirectoryUnavailableError
            It does not.
        """
        if not self.ask(Search(self.config.base_dn, "itself", "objectClass", "top")):
            log.error("directory_lacks_base_dn")
            raise DirectoryUnavailableError

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            drop(self._idle.pop())

    def bind(self, dn: str, password: str) -> bool:
        """Say whether the directory takes a password, on a connection made for this alone."""
        with self._slot():
            connection, code = self._binder.connect(dn, password)
            drop(connection)
        if code != _SUCCESS and code not in _REFUSED:
            log.warning("directory_bind_failed", code=code)
            raise DirectoryUnavailableError
        return code == _SUCCESS

    def ask(self, search: Search) -> list[Found]:
        """Return what is found, on a connection of the gateway's own account."""
        with self._slot():
            started = time.monotonic()
            if connection := self._idle_connection():
                try:
                    return self._search(connection, search)
                except Exception:
                    # Cut while idle, as the others then are too. A silent server is not asked
                    # twice: the caller would wait twice.
                    self.close()
                    if time.monotonic() - started >= self._binder.seconds:
                        raise
            return self._search(self._searcher(), search)

    def prepared(self, text: str, limit: int) -> str:
        """Return ``text`` after SASLprep (RFC 4513 §5.1.3), or nothing when it cannot be used."""
        prepare: Any = sasl_prep
        if not text.strip() or len(text) > limit:
            return ""
        try:
            found: str = prepare(text)
        except LDAPSASLPrepError:
            return ""
        return found if found.strip() else ""

    # --- connections ------------------------------------------------------------------------

    def _search(self, connection: Connection, search: Search) -> list[Found]:
        try:
            _, result, entries, _ = connection.search(
                search.base,
                f"({search.attribute}={escape_filter_chars(search.value)})",
                _DEPTHS[search.depth],
                dereference_aliases=DEREF_NEVER,
                attributes=list(search.wanted),
                size_limit=search.limit,
                time_limit=self._binder.seconds,
            )
        except BaseException:
            drop(connection)
            raise
        self._idle.append(connection)
        if result["result"] == _NO_SUCH_OBJECT:
            return []
        if result["result"] not in {_SUCCESS, _SIZE_LIMIT if search.limit else _SUCCESS}:
            log.warning("directory_search_failed", code=result["result"])
            raise DirectoryUnavailableError
        return [
            Found(entry["dn"], _values(entry["raw_attributes"]))
            for entry in entries
            if entry["type"] == "searchResEntry"
        ]

    def _idle_connection(self) -> Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _searcher(self) -> Connection:
        password = self.config.bind_password.get_secret_value()
        connection, code = self._binder.connect(self.config.bind_dn, password)
        if code != _SUCCESS:
            drop(connection)
            log.error("directory_refuses_bind_dn", code=code)
            raise DirectoryUnavailableError
        return connection

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._slots.acquire(timeout=self._binder.seconds / 2):
            log.warning("directory_busy")
            raise DirectoryUnavailableError
        try:
            yield
        except DirectoryUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001
            # ldap3 also lets TypeError and others out when a server goes away halfway.
            log.warning("directory_unavailable", kind=type(error).__name__)
            raise DirectoryUnavailableError from None
        finally:
            self._slots.release()


def _values(raw: Mapping[str, Sequence[bytes]]) -> dict[str, list[str]]:
    return {
        name.lower(): [value.decode("utf-8", "replace") for value in found]
        for name, found in raw.items()
    }
