"""Short-lived entries of the directory: added, prolonged and removed by an account for that alone.

Such an entry is a ``dynamicObject`` (RFC 2589): the directory removes it by itself when its time is
up, and with it everything that it may do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ldap3 import LEVEL
from ldap3.utils.dn import escape_rdn

from gateway import settings
from gateway.identity.accounts import DirectoryUnavailableError
from gateway.identity.binding import Binder, drop

REFRESH = "1.3.6.1.4.1.1466.101.119.1"
CLASSES = ["account", "simpleSecurityObject", "dynamicObject"]
_SUCCESS, _NO_SUCH_OBJECT, _EXISTS = 0, 32, 68


class Entries:
    """Accounts ``uid=<name>,ou=<client>,<base>`` that live for a while.

    Parameters
    ----------
    config
        Where the directory is; its own account is not used here.
    bind_dn, password
        The account that may write below ``base``.
    """

    def __init__(self, config: settings.Ldap, bind_dn: str, password: str, base: str) -> None:
        self._binder = Binder(config)
        self.endpoint = self._binder.endpoint
        self._account = (bind_dn, password)
        self._base = base

    def dn(self, client: str, name: str) -> str:
        """Return the DN of an account."""
        return f"uid={escape_rdn(name)},ou={escape_rdn(client)},{self._base}"

    def add(self, client: str, name: str, password_hash: str, seconds: float) -> None:
        """Add an account that lives for so long.

        Raises
        ------
        DirectoryUnavailableError
            It could not be added, or not be given its time.
        """
        home = f"ou={escape_rdn(client)},{self._base}"
        values = {"uid": name, "ou": client, "userPassword": password_hash}
        with self._connected() as connection:
            unit = connection.add(home, "organizationalUnit", {"ou": client})
            _require(unit, _SUCCESS, _EXISTS)
            dn = self.dn(client, name)
            _require(connection.add(dn, CLASSES, values), _SUCCESS)
            _require(_refresh(connection, dn, seconds), _SUCCESS)

    def prolong(self, dn: str, seconds: float) -> None:
        """Let an account live so long from now on.

        Raises
        ------
        DirectoryUnavailableError
            It could not be done; or there is none any more.
        """
        with self._connected() as connection:
            _require(_refresh(connection, dn, seconds), _SUCCESS)

    def remove(self, dn: str) -> None:
        """Remove an account; an absent one is no error.

        Raises
        ------
        DirectoryUnavailableError
            It could not be done.
        """
        with self._connected() as connection:
            _require(connection.delete(dn), _SUCCESS, _NO_SUCH_OBJECT)

    def names(self) -> list[str]:
        """Return the names of the accounts there are.

        Raises
        ------
        DirectoryUnavailableError
            They could not be asked for.
        """
        found = []
        with self._connected() as connection:
            for unit in _children(connection, self._base, "(objectClass=organizationalUnit)"):
                accounts = _children(connection, unit["dn"], "(objectClass=dynamicObject)")
                found += [each["attributes"]["uid"][0] for each in accounts]
        return [name.decode() if isinstance(name, bytes) else str(name) for name in found]

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        connection = None
        try:
            connection, code = self._binder.connect(*self._account, is_read_only=False)
            _accept(code, _SUCCESS)
            yield connection
        except DirectoryUnavailableError:
            raise
        except Exception as error:
            # ldap3 also lets TypeError and others out when a server goes away halfway.
            raise DirectoryUnavailableError from error
        finally:
            if connection is not None:
                drop(connection)


def _children(connection: Any, base: str, what: str) -> list[dict[str, Any]]:
    answer = connection.search(base, what, LEVEL, attributes=["uid"])
    _require(answer, _SUCCESS)
    return [each for each in answer[2] or [] if each["type"] == "searchResEntry"]


def _refresh(connection: Any, dn: str, seconds: float) -> Any:
    return connection.extended(REFRESH, _refresh_request(dn, max(1, int(seconds))))


def _refresh_request(dn: str, seconds: int) -> bytes:
    """Write ``SEQUENCE { entryName [0] OCTET STRING, requestTtl [1] INTEGER }`` in BER."""
    number = seconds.to_bytes(seconds.bit_length() // 8 + 1, "big")
    return _element(0x30, _element(0x80, dn.encode()) + _element(0x81, number))


def _element(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length >= 0x80:  # noqa: PLR2004 - the long form of a length begins here
        octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
        return bytes([tag, 0x80 | len(octets)]) + octets + content
    return bytes([tag, length]) + content


def _require(answer: Any, *accepted: int) -> None:
    _accept(answer[1]["result"], *accepted)


def _accept(code: int, *accepted: int) -> None:
    if code not in accepted:
        raise DirectoryUnavailableError
