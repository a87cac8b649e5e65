"""Where the directory is, and that nobody but it can be talked to there."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, urlsplit

from gateway import settings
from gateway.settings import SettingsError

PORTS = {"ldap": 389, "ldaps": 636}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address, and the TLS that every connection to it uses.

    ``tls_first`` tells ldaps (TLS before LDAP) from StartTLS (TLS after the first message).
    """

    host: str
    port: int
    tls_first: bool
    context: ssl.SSLContext

    @classmethod
    def of(cls, config: settings.Ldap) -> Self:
        """Read the settings.

        Raises
        ------
        SettingsError
            Passwords would cross the wire unencrypted, or nothing could ever be asked.
        """
        url = _url(config.url)
        if (url.scheme == "ldaps") == config.start_tls:
            raise SettingsError(
                "GATEWAY_LDAP_URL: must be encrypted in one way: ldaps://, or ldap:// with"
                " GATEWAY_LDAP_START_TLS=true"
            )
        if not (config.bind_dn and config.bind_password.get_secret_value()):
            raise SettingsError("GATEWAY_LDAP_BIND_DN, GATEWAY_LDAP_BIND_PASSWORD: must be set")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", config.login_attribute):
            raise SettingsError("GATEWAY_LDAP_LOGIN_ATTRIBUTE: is not the name of an attribute")
        port = url.port or PORTS[url.scheme]
        return cls(url.hostname or "", port, url.scheme == "ldaps", _context(config))


def _url(text: str) -> SplitResult:
    try:
        url = urlsplit(text)
        if url.hostname and url.scheme in PORTS and url.port != 0:
            return url
    except ValueError:
        pass
    raise SettingsError("GATEWAY_LDAP_URL: must be ldaps://host:port or ldap://host:port")


def _context(config: settings.Ldap) -> ssl.SSLContext:
    try:
        # Requires a certificate, checks the host name, takes TLS 1.2 or later.
        return ssl.create_default_context(cafile=config.ca_path)
    except OSError:
        raise SettingsError("GATEWAY_LDAP_CA_PATH: is not a readable PEM bundle") from None
