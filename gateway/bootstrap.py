"""The composition root: settings in, working parts out. Used by app, worker and commands."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from gateway import database, logs
from gateway.identity.access import Access
from gateway.identity.directory import Directory
from gateway.identity.tokens import KeyRing
from gateway.landing import opening
from gateway.landing.zone import StorageUnavailableError, Zone
from gateway.leases import resources
from gateway.leases.resources import Resources
from gateway.settings import Settings, SettingsError
from gateway.uploads.groups import Groups
from gateway.uploads.switchboard import Switchboard

if TYPE_CHECKING:
    from gateway.dispatch.airflow_api import AirflowApi


@dataclass(frozen=True)
class Services:
    """The gateway's parts, built once for a process."""

    settings: Settings
    engine: Engine
    sessions: sessionmaker[Session]
    zone: Zone
    directory: Directory
    keys: KeyRing
    access: Access
    writers: ThreadPoolExecutor
    groups: Groups
    switchboard: Switchboard
    resources: Resources

    @cached_property
    def airflow_api(self) -> AirflowApi:
        """The connection to Airflow, for the worker.

        Its library takes two seconds and 57 MB to import, which no API process should pay.
        """
        from gateway.dispatch.airflow_api import AirflowApi  # noqa: PLC0415

        return AirflowApi(self.settings.airflow)

    def close(self) -> None:
        """Give threads and connections back."""
        self.writers.shutdown(cancel_futures=True)
        self.groups.close()
        self.directory.close()
        self.engine.dispose()
        self.zone.close()


def build(config: Settings) -> Services:
    """Build every part.

    Raises
    ------
    SettingsError
        The configuration is weak or unusable; the text has one line for each cause.
    """
    _refuse_weak(config)
    logs.configure(config.log.level)
    engine = database.connect(config.database)
    sessions = database.sessions(engine)
    keys = KeyRing.load(config.tokens.keys_dir)
    directory = Directory(config.ldap, config.roles)
    zone = _zone(config)
    return Services(
        settings=config,
        engine=engine,
        sessions=sessions,
        zone=zone,
        directory=directory,
        keys=keys,
        access=Access(config, sessions, directory, keys),
        writers=ThreadPoolExecutor(config.landing.writers, thread_name_prefix="writer"),
        groups=Groups(sessions, zone),
        switchboard=Switchboard(),
        resources=resources.build(config, sessions),
    )


def _zone(config: Settings) -> Zone:
    try:
        return opening.open_zone(config.landing)
    except StorageUnavailableError:
        name = opening.ROOT if config.landing.root is not None else opening.URL
        raise SettingsError(f"{name}: the landing zone does not answer") from None


def _refuse_weak(config: Settings) -> None:
    causes = []
    if not config.ldap.url.startswith("ldaps://") and not config.ldap.start_tls:
        causes.append("GATEWAY_LDAP_URL: use ldaps://, or set GATEWAY_LDAP_START_TLS")
    causes += opening.faults(config.landing)
    causes += resources.faults(config)
    if causes:
        raise SettingsError("\n".join(causes))
