"""What the messenger carries: the gateway's parts, and the narrow tokens made for each errand."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy.orm import Session, sessionmaker

from gateway.dispatch.airflow_api import RUN_PREFIX, AirflowApi, AirflowError
from gateway.identity import tokens
from gateway.identity.tokens import KeyRing
from gateway.landing.zone import Zone
from gateway.settings import Settings

# While a DAG is known to be missing or broken, it is tried about this often for all its jobs.
HOLD_SECONDS = 1.0


def run_id(job_id: str) -> str:
    """Return the id of a job's only DAG run."""
    return f"{RUN_PREFIX}{job_id}"


def dag_id(client: str, project: str) -> str:
    """Return the id of a project's DAG."""
    return f"{client}__{project}"


@dataclass(frozen=True, slots=True)
class Hold:
    """Until when a DAG is not tried again, and what was wrong with it."""

    until: float
    cause: type[AirflowError]


@dataclass(frozen=True, slots=True)
class Messenger:
    """The parts that errands to Airflow need."""

    settings: Settings
    sessions: sessionmaker[Session]
    zone: Zone
    keys: KeyRing
    airflow_api: AirflowApi
    hold_seconds: float = HOLD_SECONDS
    holds: dict[str, Hold] = field(default_factory=dict)

    def trigger_token(self, client: str, dag: str) -> str:
        """Mint a token that starts, and looks at, runs of one DAG."""
        return tokens.mint_trigger(
            self.keys, self.settings.tokens, self.settings.airflow.audience, client, dag
        )

    def cancel_token(self, client: str, dag: str) -> str:
        """Mint a token that ends, and looks at, runs of one DAG."""
        return tokens.mint_trigger(
            self.keys,
            self.settings.tokens,
            self.settings.airflow.audience,
            client,
            dag,
            scope="dags:cancel",
        )

    def watcher_token(self) -> str:
        """Mint a token that looks at every run and changes none."""
        return tokens.mint_watcher(self.keys, self.settings.tokens, self.settings.airflow.audience)

    def pools_token(self, client: str) -> str:
        """Mint a token that sets the size of one client's pool."""
        return tokens.mint_pools(
            self.keys, self.settings.tokens, self.settings.airflow.audience, client
        )
