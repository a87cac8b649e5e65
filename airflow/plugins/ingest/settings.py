"""What the deployment tells Airflow about the gateway, read once from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping


class SettingsError(ValueError):
    """The environment is incomplete or unsafe; the message names the variable."""


@dataclass(frozen=True)
class Settings:
    """Where the gateway is, how it and this Airflow name themselves, and where its registry lies.

    Attributes
    ----------
    issuer
        The gateway's public address: in its tokens, and where browsers are sent to sign in.
    """

    gateway_url: str
    issuer: str
    registry_path: Path
    application_id: str
    application_secret: str = field(repr=False)

    @property
    def application(self) -> tuple[str, str]:
        """What this Airflow proves itself to the gateway by."""
        return self.application_id, self.application_secret


def from_environment(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the ``INGEST_*`` variables the auth manager needs.

    Raises
    ------
    SettingsError
        A variable is missing, or passwords would travel over plain HTTP.
    """
    allow_http = environ.get("INGEST_GATEWAY_ALLOW_HTTP") == "1"
    return Settings(
        gateway_url=_safe_url(_required(environ, "INGEST_GATEWAY_URL"), allow_http=allow_http),
        issuer=_required(environ, "INGEST_GATEWAY_ISSUER"),
        registry_path=Path(_required(environ, "INGEST_REGISTRY_PATH")),
        application_id=environ.get("INGEST_SIGNON_CLIENT_ID", "").strip() or "airflow",
        application_secret=_secret(environ, "INGEST_SIGNON_SECRET_FILE"),
    )


def _secret(environ: Mapping[str, str], name: str) -> str:
    try:
        secret = Path(_required(environ, name)).read_text().strip()
    except (OSError, ValueError) as error:
        if isinstance(error, SettingsError):
            raise
        message = f"{name} must name a readable file"
        raise SettingsError(message) from error
    if not secret:
        message = f"{name} must name a file that holds the secret"
        raise SettingsError(message)
    return secret


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "").strip()
    if not value:
        message = f"{name} must be set"
        raise SettingsError(message)
    return value


def _safe_url(url: str, *, allow_http: bool) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
        message = "INGEST_GATEWAY_URL must be an http(s) URL without credentials"
        raise SettingsError(message)
    if parts.scheme == "http" and not allow_http and not _is_loopback(parts.hostname):
        message = (
            "INGEST_GATEWAY_URL must use https, because people's passwords travel over it "
            "(INGEST_GATEWAY_ALLOW_HTTP=1 accepts http inside a network you trust)"
        )
        raise SettingsError(message)
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
