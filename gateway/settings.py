"""Every setting of the gateway, read once from ``GATEWAY_*`` environment variables.

``GATEWAY_<SECTION>_<FIELD>`` names a field; a secret may also be given as
``GATEWAY_<SECTION>_<FIELD>_FILE``, the path of a file that holds it. A variable
nobody knows is refused: a misspelt limit must not silently be no limit.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

PREFIX = "GATEWAY_"
_WEB = r"^https?://\S+$"
_BUCKET = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$"


class SettingsError(Exception):
    """The configuration is unusable; the text has one line for each cause."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Database(_Section):
    """Postgres: one database for the gateway."""

    url: SecretStr = Field(description="postgresql+psycopg2://user:password@host:port/name")
    pool_size: int = Field(20, ge=2, le=200)
    pool_timeout_seconds: float = Field(5.0, gt=0, le=30)
    statement_timeout_seconds: float = Field(15.0, gt=0, le=300)


class Ldap(_Section):
    """The directory in which people, service accounts and groups live."""

    url: str = Field(description="ldaps://host:port, or ldap://host:port with START_TLS=true")
    ca_path: Path | None = Field(None, description="PEM bundle that signs the directory's cert")
    start_tls: bool = False
    bind_dn: str = Field(description="account used for searches only")
    bind_password: SecretStr
    base_dn: str
    people_rdn: str = "ou=people"
    services_rdn: str = "ou=services"
    groups_rdn: str = "ou=groups"
    login_attribute: str = "uid"
    timeout_seconds: float = Field(5.0, gt=0, le=5)
    pool_size: int = Field(8, ge=1, le=64)
    cache_seconds: int = Field(60, ge=0, le=60, description="how long group membership is believed")


class Roles(_Section):
    """Names of the groups that give roles; ``{client}`` stands for the client's name."""

    uploaders: str = "{client}-uploaders"
    viewers: str = "{client}-viewers"
    operators: str = "{client}-operators"
    auditors: str = "gateway-auditors"
    admins: str = "gateway-admins"
    platform: str = Field("gateway-platform", description="the accounts of Airflow's tasks")
    lessors: str = Field(
        "gateway-lessors", description="the account of Airflow's API server, which no task has"
    )


class Tokens(_Section):
    """Signing keys and the life of what they sign."""

    issuer: str = Field(pattern=_WEB, description="the gateway's public base URL")
    audience: str = "gateway"
    keys_dir: Path = Field(description="directory of EC P-256 private keys, mode 0700")
    access_seconds: int = Field(900, ge=30, le=900)
    refresh_seconds: int = Field(43_200, ge=60, le=2_592_000)
    trigger_seconds: int = Field(60, ge=10, le=300)
    publish_seconds: int = Field(
        60, ge=0, le=86_400, description="a new key is published for so long before it signs"
    )


class Signon(_Section):
    """People's one sign-on to applications, by the gateway's own page."""

    applications: SecretStr | None = Field(
        None, description="JSON list of {client_id, name, audience, secret, redirect_uris}"
    )
    session_seconds: int = Field(28_800, ge=60, le=86_400, description="then a person is asked")
    code_seconds: int = Field(60, ge=5, le=60, description="an authorization code's life")


class Throttle(_Section):
    """How many wrong passwords are taken before an account or address has to wait."""

    account_failures: int = Field(10, ge=1)
    address_failures: int = Field(50, ge=1)
    window_seconds: int = Field(300, ge=1)


class Landing(_Section):
    """The landing zone: a directory or a bucket, one of ROOT and S3_URL."""

    root: Path | None = Field(None, description="directory of it; .parts/ lies inside")
    s3_url: str | None = Field(None, pattern=_BUCKET, description="s3://bucket/prefix")
    s3_endpoint: str | None = Field(
        None, pattern=_WEB, description="where the store answers; default: AWS in that region"
    )
    s3_region: str = Field("us-east-1", pattern=r"^[a-z0-9-]+$")
    s3_access_key_id: str | None = None
    s3_secret_access_key: SecretStr | None = None
    s3_ca_path: Path | None = Field(None, description="PEM bundle that signs the store's cert")
    s3_lease_seconds: float = Field(
        15.0, ge=2, le=300, description="a process silent for longer has let go of its uploads"
    )
    min_free_bytes: int = Field(
        64 * 1024**2, ge=0, description="kept free on a disk; less answers 507"
    )
    part_max_age_seconds: int = Field(86_400, ge=60)
    writers: int = Field(16, ge=1, le=256, description="threads that write and hash")


class Airflow(_Section):
    """The Airflow deployment behind the gateway."""

    url: str = Field(pattern=_WEB, description="base URL of the Airflow API server")
    ui_url: str | None = Field(
        None, pattern=_WEB, description="what people open in a browser; default: url"
    )
    audience: str = "airflow"
    registry_path: Path = Field(description="file the DAG factory reads; written by onboarding")
    timeout_seconds: float = Field(5.0, gt=0, le=30)


class Batches(_Section):
    """Life of a batch."""

    open_max_age_seconds: int = Field(7 * 86_400, ge=60, description="then an open batch expires")
    idempotency_seconds: int = Field(86_400, ge=60)


class Uploads(_Section):
    """Resumable uploads."""

    idle_seconds: int = Field(
        86_400, ge=5, description="an upload that rests for longer has expired"
    )


class Leases(_Section):
    """Credentials for running tasks; a data system is offered where it is configured."""

    ttl_seconds: int = Field(900, ge=60, le=3600, description="renewed while the job runs")
    max_seconds: int = Field(43_200, ge=900, le=43_200, description="then none is renewed")
    per_client: int = Field(200, ge=1)
    per_task: int = Field(8, ge=1, description="live ones of one task for one data system")
    attempts: int = Field(12, ge=1, le=30, description="to revoke; then it is irrevocable")
    reap_seconds: float = Field(1.0, gt=0, le=60)
    landing: Literal["off", "path", "url"] = Field(
        "url", description="path: where Airflow's workers share the gateway's disk"
    )
    postgres_url: SecretStr | None = Field(
        None, description="of an account with CREATEROLE and CREATEDB; deploy/postgres says how"
    )
    postgres_template: str = Field("client_template", pattern=r"^[a-z][a-z0-9_]{0,62}$")
    directory_bind_dn: str | None = Field(
        None, description="may write below DIRECTORY_RDN in the directory"
    )
    directory_bind_password: SecretStr | None = None
    directory_rdn: str = "ou=leases"
    s3_bucket: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    s3_endpoint: str | None = Field(None, pattern=_WEB)
    s3_region: str = Field("us-east-1", pattern=r"^[a-z0-9-]+$")
    s3_access_key_id: str | None = Field(
        None, description="of a RADOS Gateway account with the caps users=*;roles=*"
    )
    s3_secret_access_key: SecretStr | None = None
    s3_ca_path: Path | None = Field(None, description="PEM bundle that signs the store's cert")


class Server(_Section):
    """The HTTP server."""

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65_535)
    workers: int = Field(1, ge=1, le=64)
    json_body_bytes: int = Field(1024**2, ge=1024)
    body_idle_seconds: float = Field(30.0, gt=0, description="a body silent for longer is dropped")
    cors_origins: str = Field(
        "", description="comma-separated origins whose pages may call the API, or nothing"
    )
    header_seconds: float = Field(10.0, gt=0, le=300, description="for a request's headers to come")
    protocol: Literal["fast", "stock"] = Field(
        "fast", description="stock is uvicorn's own: slower, and without limits on headers' time"
    )
    trusted_proxies: str = Field("", description="comma-separated addresses whose X-Forwarded-For")


class Worker(_Section):
    """The background loop."""

    poll_seconds: float = Field(2.0, gt=0, description="fallback where LISTEN/NOTIFY is silent")
    watch_seconds: float = Field(
        2.0, gt=0, description="between two looks at active runs, besides those Airflow asks for"
    )
    lane_width: int = Field(
        4, ge=1, description="messages of one client carried at a time, at most"
    )
    claim_seconds: int = Field(30, ge=5)
    max_attempts: int = Field(50, ge=1, description="then a message is quarantined")
    sweep_seconds: float = Field(60.0, gt=0)


class Pipeline(_Section):
    """The pipeline's own programs, for retention of its layers and for rebuilding tables."""

    command: str = Field(
        "",
        description="starts `python -m pipeline` in Airflow's environment; without it, staged and"
        " curated rows are kept, and `gateway rebuild` is refused",
    )
    timeout_seconds: float = Field(3600.0, gt=0)
    engines: str = Field(
        "local",
        pattern=r"^(local|spark)(,(local|spark))*$",
        description="comma-separated: what a project's `engine` may be, `local` or `spark` as well",
    )

    def known_engines(self) -> list[str]:
        """Return each engine by itself."""
        return self.engines.split(",")


class Log(_Section):
    """Logging."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(_Section):
    """All settings; built once, in ``gateway.bootstrap``."""

    secrets: ClassVar[frozenset[str]] = frozenset(
        {
            "DATABASE_URL",
            "LDAP_BIND_PASSWORD",
            "LANDING_S3_SECRET_ACCESS_KEY",
            "LEASES_POSTGRES_URL",
            "LEASES_DIRECTORY_BIND_PASSWORD",
            "LEASES_S3_SECRET_ACCESS_KEY",
            "SIGNON_APPLICATIONS",
        }
    )

    database: Database
    ldap: Ldap
    roles: Roles = Roles()
    tokens: Tokens
    signon: Signon = Signon()
    throttle: Throttle = Throttle()
    landing: Landing
    airflow: Airflow
    batches: Batches = Batches()
    uploads: Uploads = Uploads()
    leases: Leases = Leases()
    server: Server = Server()
    worker: Worker = Worker()
    pipeline: Pipeline = Pipeline()
    log: Log = Log()


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Parameters
    ----------
    environment
        Defaults to the process's own.

    Raises
    ------
    SettingsError
        A variable is missing, unknown, unreadable or out of its bounds.
    """
    given = os.environ if environment is None else environment
    sections: dict[str, dict[str, Any]] = {}
    for name, text in sorted(given.items()):
        if name.startswith(PREFIX) and name not in CLIENT_VARIABLES:
            section, field, value = _variable(name, text)
            sections.setdefault(section, {})[field] = value
    for name, info in Settings.model_fields.items():
        if info.is_required():
            sections.setdefault(name, {})
    try:
        return Settings.model_validate(sections)
    except ValidationError as error:
        raise SettingsError("\n".join(_line(each) for each in error.errors())) from None


def database(environment: Mapping[str, str] | None = None) -> Database:
    """Read the database's settings alone: all that a migration needs.

    Raises
    ------
    SettingsError
        As ``load``.
    """
    given = os.environ if environment is None else environment
    fields = {}
    for name in sorted(each for each in given if each.startswith(f"{PREFIX}DATABASE_")):
        _, field, value = _variable(name, given[name])
        fields[field] = value
    try:
        return Database.model_validate(fields)
    except ValidationError as error:
        found = [{**each, "loc": ("database", *each["loc"])} for each in error.errors()]
        raise SettingsError("\n".join(_line(each) for each in found)) from None


# Read by the client commands, which may run in the same shell as the operators'.
CLIENT_VARIABLES = frozenset(
    {
        "GATEWAY_URL",
        "GATEWAY_USER",
        "GATEWAY_PASSWORD",
        "GATEWAY_PASSWORD_FILE",
        "GATEWAY_CA_FILE",
        "GATEWAY_ACCOUNT",
        "GATEWAY_CLIENT",
        "GATEWAY_ALLOW_HTTP",
    }
)


def names() -> list[str]:
    """Return every variable's name, secrets' ``_FILE`` forms not included."""
    return [
        f"{PREFIX}{section}_{field}".upper()
        for section, info in Settings.model_fields.items()
        for field in _fields(info.annotation)
    ]


def _fields(section: object) -> list[str]:
    return list(section.model_fields) if isinstance(section, type(BaseModel)) else []


def _variable(name: str, text: str) -> tuple[str, str, str]:
    key = name.removeprefix(PREFIX)
    if key.endswith("_FILE") and key.removesuffix("_FILE") in Settings.secrets:
        key, text = key.removesuffix("_FILE"), _secret_from(name, Path(text))
    section, _, field = key.lower().partition("_")
    if section not in Settings.model_fields or not field:
        message = f"{name}: no such setting"
        raise SettingsError(message)
    return section, field, text


def _secret_from(name: str, path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        message = f"{name}: cannot be read ({error.strerror})"
        raise SettingsError(message) from None


def _line(error: Any) -> str:
    name = PREFIX + "_".join(str(part) for part in error["loc"]).upper()
    if error["type"] == "missing":
        return f"{name}: must be set"
    if error["type"] == "extra_forbidden":
        return f"{name}: no such setting"
    return f"{name}: {error['msg']}"
