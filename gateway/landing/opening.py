"""Which landing zone the settings ask for, and why one would be refused."""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from gateway.landing.disk import DiskZone
from gateway.landing.zone import Zone
from gateway.settings import Landing

ROOT, URL = "GATEWAY_LANDING_ROOT", "GATEWAY_LANDING_S3_URL"


def faults(config: Landing) -> Iterator[str]:
    """Yield a line for everything that makes the configuration weak or unusable."""
    if (config.root is None) == (config.s3_url is None):
        yield f"{ROOT}: give either it or {URL}"
    elif config.root is not None:
        yield from _faults_of_directory(config.root)
    else:
        yield from _faults_of_bucket(config)


def _faults_of_directory(root: Path) -> Iterator[str]:
    if not root.is_dir():
        yield f"{ROOT}: is not a directory"
    elif root.stat().st_mode & stat.S_IWOTH:
        yield f"{ROOT}: anybody may write there"


def _faults_of_bucket(config: Landing) -> Iterator[str]:
    if not config.s3_access_key_id:
        yield "GATEWAY_LANDING_S3_ACCESS_KEY_ID: must be set"
    if config.s3_secret_access_key is None or not config.s3_secret_access_key.get_secret_value():
        yield "GATEWAY_LANDING_S3_SECRET_ACCESS_KEY: must be set"
    endpoint = urlsplit(config.s3_endpoint or "https://")
    if endpoint.scheme != "https" and not _is_loopback(endpoint.hostname or ""):
        yield "GATEWAY_LANDING_S3_ENDPOINT: use https://"
    if config.s3_ca_path is not None and not config.s3_ca_path.is_file():
        yield "GATEWAY_LANDING_S3_CA_PATH: is not a file"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_zone(config: Landing) -> Zone:
    """Open the landing zone of a configuration without faults.

    Raises
    ------
    StorageUnavailableError
        The directory cannot be used, or the bucket not be listed.
    """
    if config.root is not None:
        return DiskZone(config.root, config.min_free_bytes)
    return _open_bucket(config)


def _open_bucket(config: Landing) -> Zone:
    # Here: whoever keeps a landing zone on a disk does not pay for the store's library.
    from gateway.landing.s3.settings import S3Settings  # noqa: PLC0415
    from gateway.landing.s3.zone import S3Zone  # noqa: PLC0415

    address = urlsplit(config.s3_url or "")
    secret = config.s3_secret_access_key
    settings = S3Settings(
        bucket=address.netloc,
        prefix=address.path.strip("/"),
        endpoint=config.s3_endpoint or f"https://s3.{config.s3_region}.amazonaws.com",
        region=config.s3_region,
        access_key_id=config.s3_access_key_id or "",
        secret_access_key="" if secret is None else secret.get_secret_value(),
        ca_path=config.s3_ca_path,
        lease_seconds=config.s3_lease_seconds,
    )
    return S3Zone(settings)
