"""The data systems that tasks are given credentials for: one small driver each, behind one Protocol.

What comes next (HDFS, Hive, Spark, Jupyter, MongoDB) is one more module here and one more line below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session, sessionmaker

from gateway.leases.resources.directory import DirectoryAccounts
from gateway.leases.resources.driver import Driver
from gateway.leases.resources.landing import LandingPass, LandingPath
from gateway.leases.resources.postgres import Postgres
from gateway.settings import Leases, Settings

LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@dataclass(frozen=True)
class Resources:
    """The drivers: by the resource a task may name, and by the name the ledger knows."""

    offered: Mapping[str, Driver]
    known: Mapping[str, Driver]


def build(config: Settings, sessions: sessionmaker[Session]) -> Resources:
    """Build the drivers of what is configured. Nothing is connected yet."""
    landing_pass = LandingPass(sessions, config.tokens.issuer)
    offered: dict[str, Driver] = {}
    if config.leases.landing == "path" and config.landing.root is not None:
        offered["landing"] = LandingPath(config.landing.root)
    elif config.leases.landing == "url":
        offered["landing"] = landing_pass
    if config.leases.postgres_url is not None:
        url = config.leases.postgres_url.get_secret_value()
        offered["postgres"] = Postgres(url, config.leases.postgres_template)
    if config.leases.directory_bind_dn:
        offered["directory"] = DirectoryAccounts(config.ldap, config.leases)
    if config.leases.s3_bucket:
        # Here: whoever has no object store does not pay for its library.
        from gateway.leases.resources.s3 import S3Roles  # noqa: PLC0415

        offered["s3"] = S3Roles(config.leases)
    # What was issued under an earlier configuration of the landing zone has to be revoked too.
    known = {landing_pass.name: landing_pass} | {each.name: each for each in offered.values()}
    return Resources(offered, known)


def faults(config: Settings) -> Iterator[str]:
    """Yield a line for everything that makes the configuration weak or unusable."""
    leases = config.leases
    if leases.landing == "path" and config.landing.root is None:
        yield "GATEWAY_LEASES_LANDING: path needs GATEWAY_LANDING_ROOT"
    if bool(leases.directory_bind_dn) != bool(leases.directory_bind_password):
        yield "GATEWAY_LEASES_DIRECTORY_BIND_DN: needs GATEWAY_LEASES_DIRECTORY_BIND_PASSWORD"
    yield from _faults_of_postgres(leases)
    yield from _faults_of_s3(leases)


def _faults_of_postgres(config: Leases) -> Iterator[str]:
    if config.postgres_url is None:
        return
    try:
        address = make_url(config.postgres_url.get_secret_value())
        is_whole = bool(address.host and address.username and address.password)
    except (ArgumentError, ValueError):
        is_whole = False
    if not is_whole:
        yield "GATEWAY_LEASES_POSTGRES_URL: must be postgresql://user:password@host:port/name"


def _faults_of_s3(config: Leases) -> Iterator[str]:
    secret = config.s3_secret_access_key
    given = {
        "S3_ENDPOINT": config.s3_endpoint,
        "S3_ACCESS_KEY_ID": config.s3_access_key_id,
        "S3_SECRET_ACCESS_KEY": secret.get_secret_value() if secret else None,
    }
    if not config.s3_bucket:
        return
    yield from (f"GATEWAY_LEASES_{name}: must be set" for name, value in given.items() if not value)
    address = urlsplit(config.s3_endpoint or "https://")
    if address.scheme != "https" and address.hostname not in LOOPBACK:
        yield "GATEWAY_LEASES_S3_ENDPOINT: use https://"
