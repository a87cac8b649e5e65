"""A running stack as those see it who use it: a client at the gateway, an admin at Airflow."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from deploy.local.programs import StackError
from deploy.local.stack import Stack

CONTENT = b"id,note\n1,one\n"
TOKEN_SECONDS = 300
WAIT_SECONDS = 120
PAGE = 100
_names = itertools.count(1)


@dataclass(frozen=True)
class Sealed:
    """A sealed batch's job, and when its seal was asked for (Unix seconds)."""

    job: str
    dag: str
    at: float

    @property
    def run(self) -> str:
        """Return the id of its run."""
        return f"gw.{self.job}"


@dataclass(frozen=True)
class Run:
    """A DAG run's moments (Unix seconds, by Airflow's clock)."""

    queued_at: float
    ended_at: float


class _Caller:
    """Somebody with a token, who signs in again before it ends."""

    def __init__(self, url: str, sign_in: Callable[[httpx.Client], str]) -> None:
        limits = httpx.Limits(max_connections=32, max_keepalive_connections=32)
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False, limits=limits)
        self._sign_in = sign_in
        self._token, self._since = "", float("-inf")

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Call a door and return the answer's document.

        Raises
        ------
        StackError
            It was refused.
        """
        if time.monotonic() - self._since > TOKEN_SECONDS:
            self._token, self._since = self._sign_in(self._http), time.monotonic()
        headers = {"Authorization": f"Bearer {self._token}"}
        answer = self._http.request(method, path, headers=headers, **options)
        if answer.is_error:
            message = f"{method} {path} answered {answer.status_code}: {answer.text[:300]}"
            raise StackError(message)
        return answer.json() if answer.content else None


class Client:
    """A client's machine."""

    def __init__(self, stack: Stack, account: str, project: str) -> None:
        self._project = project
        self._dag = f"{account.partition('-')[0]}__{project}"
        secret = (account, stack.credentials(account))

        def sign_in(http: httpx.Client) -> str:
            form = {"grant_type": "client_credentials"}
            return str(http.post("/v1/token", data=form, auth=secret).json()["access_token"])

        self._gateway = _Caller(stack.ports.gateway_url, sign_in)

    def filled(self) -> str:
        """Open a batch with one small file in it, and return its id."""
        wanted = {"project": self._project, "reference": f"bench-{next(_names)}"}
        batch = str(self._gateway.ask("POST", "/v1/batches", json=wanted)["id"])
        self._gateway.ask("PUT", f"/v1/batches/{batch}/files/rows.csv", content=CONTENT)
        return batch

    def seal(self, batch: str) -> Sealed:
        """Seal a batch."""
        at = time.time()
        job = self._gateway.ask("POST", f"/v1/batches/{batch}/seal")["job"]["id"]
        return Sealed(str(job), self._dag, at)

    def wait(self, sealed: Sealed, is_there: Callable[[Any], bool], pause: float) -> float:
        """Ask for a job until it is there, and return when that was (Unix seconds).

        Raises
        ------
        StackError
            It takes too long.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while not is_there(job := self._gateway.ask("GET", f"/v1/jobs/{sealed.job}")):
            if time.monotonic() > deadline:
                message = f"{sealed.job} is still {job['state']}"
                raise StackError(message)
            time.sleep(pause)
        return time.time()


class Airflow:
    """Airflow's own API, for an admin."""

    def __init__(self, stack: Stack) -> None:
        secret = {"username": "admin", "password": stack.credentials("admin")}

        def sign_in(http: httpx.Client) -> str:
            return str(http.post("/auth/token", json=secret).json()["access_token"])

        self._api = _Caller(stack.ports.airflow_url, sign_in)

    def pause(self, dag: str) -> None:
        """Have a DAG's runs wait."""
        self._api.ask("PATCH", f"/api/v2/dags/{dag}", json={"is_paused": True})

    def trigger(self, dag: str, name: str) -> None:
        """Make a run."""
        body: dict[str, Any] = {"dag_run_id": name, "logical_date": None, "conf": {}}
        self._api.ask("POST", f"/api/v2/dags/{dag}/dagRuns", json=body)

    def run(self, sealed: Sealed) -> Run:
        """Return a job's run."""
        found = self._api.ask("GET", f"/api/v2/dags/{sealed.dag}/dagRuns/{sealed.run}")
        return Run(_seconds(found["queued_at"]), _seconds(found["end_date"]))

    def made_at(self, sealed: Sealed) -> float:
        """Return when a job's run was made."""
        found = self._api.ask("GET", f"/api/v2/dags/{sealed.dag}/dagRuns/{sealed.run}")
        return _seconds(found["queued_at"])

    def tasks(self, sealed: Sealed) -> list[tuple[float, float]]:
        """Return when each task of a job's run began and ended, in order of beginning."""
        path = f"/api/v2/dags/{sealed.dag}/dagRuns/{sealed.run}/taskInstances"
        found = self._api.ask("GET", path)["task_instances"]
        return sorted((_seconds(each["start_date"]), _seconds(each["end_date"])) for each in found)

    def queued(self, dag: str, prefix: str) -> list[float]:
        """Return when the runs were made whose names begin so."""
        return [_seconds(each["queued_at"]) for each in self._runs(dag, prefix)]

    def queued_of(self, sealed: Sequence[Sealed]) -> list[float]:
        """Return when these jobs' runs were made."""
        wanted = {each.run for each in sealed}
        found = self._runs(sealed[0].dag, "gw.")
        return [_seconds(each["queued_at"]) for each in found if each["dag_run_id"] in wanted]

    def _runs(self, dag: str, prefix: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        query = {"run_id_prefix_pattern": prefix, "limit": PAGE}
        while True:
            asked = {**query, "offset": len(found)}
            page = self._api.ask("GET", f"/api/v2/dags/{dag}/dagRuns", params=asked)["dag_runs"]
            found += page
            if len(page) < PAGE:
                return found


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
