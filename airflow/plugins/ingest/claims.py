"""What tokens of the gateway may say: one closed model for each kind.

A claim that is not in its model refuses the token, because it might be there to narrow it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Client = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,30}\z")]
DagId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,250}\z")]
Scope = Annotated[str, Field(pattern=r"^[a-z:]+( [a-z:]+)*\z", max_length=500)]
Seconds = Annotated[int, Field(ge=0, le=2**53)]


class Claims(BaseModel):
    """What every token says (RFC 9068, section 2.2)."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    iss: str
    aud: Literal["airflow"]
    sub: Annotated[str, Field(min_length=1, max_length=255)]
    jti: Annotated[str, Field(min_length=1, max_length=128)]
    iat: Seconds
    nbf: Seconds
    exp: Seconds
    scope: Scope


class TriggerClaims(Claims):
    """The gateway starting runs of one client's DAGs."""

    sub: Literal["gateway"]
    scope: Literal["dags:trigger"]
    client: Client
    dags: Annotated[list[DagId], Field(min_length=1, max_length=100)]


class CancelClaims(Claims):
    """The gateway ending a run of one client's DAG."""

    sub: Literal["gateway"]
    scope: Literal["dags:cancel"]
    client: Client
    dags: Annotated[list[DagId], Field(min_length=1, max_length=100)]


class WatcherClaims(Claims):
    """The gateway looking how runs are doing."""

    sub: Literal["gateway"]
    scope: Literal["dags:watch"]


class PoolsClaims(Claims):
    """The gateway setting up one client's pool."""

    sub: Literal["gateway"]
    scope: Literal["pools:write"]
    client: Client


class PersonClaims(Claims):
    """Somebody of a client."""

    client: Client


class PlatformClaims(Claims):
    """An admin or auditor, who may belong to a client as well."""

    client: Client | None = None


class IdentityClaims(BaseModel):
    """Who signed on, and in answer to which question (OpenID Connect Core, section 2)."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    iss: str
    aud: str
    sub: Annotated[str, Field(min_length=1, max_length=255)]
    iat: Seconds
    exp: Seconds
    auth_time: Seconds
    nonce: Annotated[str, Field(min_length=16, max_length=255)]
