"""Connections to the directory, over verified TLS and in bounded time, each bound as one account.

With ``directory`` and ``entries`` the only module that imports ldap3. What ldap3 2.9 does by itself
and must not do here: bind anonymously for an empty name, reuse a connection's password for another
name, follow referrals with the service password, skip TLS verification, wait for ever.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any

from ldap3 import NONE, SAFE_SYNC, SIMPLE, Connection, Server, Tls
from ldap3.core.exceptions import LDAPException

from gateway import settings
from gateway.identity.endpoint import Endpoint


class Binder:
    """Makes connections to one directory."""

    def __init__(self, config: settings.Ldap) -> None:
        """Prepare; nothing is connected yet.

        Raises
        ------
        SettingsError
            The connection would not be encrypted and verified.
        """
        self.endpoint = Endpoint.of(config)
        self.seconds = max(1, int(config.timeout_seconds))
        self._tls = _VerifiedTls(self.endpoint)

    def connect(
        self, dn: str, password: str, *, is_read_only: bool = True
    ) -> tuple[Connection, int]:
        """Open a connection and bind it.

        Returns
        -------
        Connection
            For the caller to ``drop``.
        int
            The result of the bind (RFC 4511 §4.1.9).

        Raises
        ------
        Exception
            The directory is away: ldap3's own errors, ``OSError``, and at times ``TypeError``.
        """
        # Bytes are sent as they are; text ldap3 would prepare a second time.
        secret: Any = password.encode()
        if not (dn and secret):
            message = "such a bind would be anonymous"
            raise ValueError(message)
        connection = Connection(
            self._server(),
            user=dn,
            password=secret,
            authentication=SIMPLE,
            client_strategy=SAFE_SYNC,
            auto_referrals=False,
            check_names=False,
            read_only=is_read_only,
            receive_timeout=self.seconds,
        )
        try:
            connection.open(read_server_info=False)
            if not self.endpoint.tls_first:
                connection.start_tls(read_server_info=False)
            _, result, _, _ = connection.bind(read_server_info=False)
        except BaseException:
            drop(connection)
            raise
        return connection, result["result"]

    def _server(self) -> Server:
        # A new one each time: after a failure ldap3 takes a shared one for dead for seconds.
        return Server(
            self.endpoint.host,
            port=self.endpoint.port,
            use_ssl=self.endpoint.tls_first,
            tls=self._tls,
            get_info=NONE,
            connect_timeout=self.seconds,
        )


class _VerifiedTls(Tls):
    """Wraps sockets by a context of the standard library, which checks chain and host name.

    ldap3's own builds a context for every connection (tens of milliseconds) and sends no SNI.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self._endpoint = endpoint

    def wrap_socket(
        self,
        connection: Connection,
        do_handshake: bool = False,  # noqa: FBT001, FBT002 - ldap3's signature
    ) -> None:
        """Start TLS on a connection's socket; ldap3 calls this for ldaps and for StartTLS."""
        connection.socket = self._endpoint.context.wrap_socket(
            connection.socket,
            server_hostname=self._endpoint.host,
            do_handshake_on_connect=do_handshake,
        )


def drop(connection: Connection) -> None:
    """Close a connection, whatever state it is in."""
    with suppress(LDAPException, OSError):
        connection.unbind()
    if connection.socket is not None:
        connection.socket.close()
