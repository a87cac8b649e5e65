"""A running task gets its client's connections through the execution API, and nothing else."""

from __future__ import annotations

import base64
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from airflow.api_fastapi.auth.tokens import JWTGenerator
from airflow.api_fastapi.execution_api.app import _jwt_generator
from airflow.configuration import ensure_secrets_loaded
from airflow.exceptions import AirflowNotFoundException
from airflow.models.connection import Connection
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import select, update

from ingest import asking
from ingest.lease_api import Account, LeaseApi
from ingest.secrets_backend import ClientConnections
from ingest.settings import SettingsError
from tests.auth_manager.lease_gateway import GOLDEN, LeaseGateway
from tests.auth_manager.world import FLIGHTS, FLIGHTS_RUN, STRAY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from httpx import Response

    from tests.auth_manager.world import World

OTHER_SECRET = "another-secret-" * 6


@pytest.fixture
def backend(world: World) -> ClientConnections:
    found = [each for each in ensure_secrets_loaded() if isinstance(each, ClientConnections)]
    assert len(found) == 1
    return found[0]


@pytest.fixture
def gateway(backend: ClientConnections, tmp_path: Path) -> Iterator[LeaseGateway]:
    """The backend speaks to this one for the length of a test."""
    path = tmp_path / "password"
    path.write_text("not-told\n")
    account = Account("svc-airflow-api", path, frozenset({"shared-db"}))
    with LeaseGateway() as running:
        vars(backend)["_account"] = account
        vars(backend)["_gateway"] = LeaseApi(running.url, account)
        yield running
        del vars(backend)["_account"], vars(backend)["_gateway"]


@contextmanager
def task(dag_id: str, state: str | None = "running") -> Iterator[UUID]:
    """Have the first task of a DAG's oldest run in this state."""
    with create_session() as session:
        query = (
            select(TaskInstance.id)
            .where(TaskInstance.dag_id == dag_id, TaskInstance.task_id == "process")
            .order_by(TaskInstance.run_id != FLIGHTS_RUN, TaskInstance.id)
            .limit(1)
        )
        found = session.scalars(query).one()
        _set(session, found, state, 1)
    try:
        yield found
    finally:
        with create_session() as session:
            _set(session, found, None, 0)


def _set(session: Any, found: UUID, state: str | None, tried: int) -> None:
    values = {"state": state, "try_number": tried}
    session.execute(update(TaskInstance).where(TaskInstance.id == found).values(**values))


def get(world: World, subject: object, conn_id: str, **claims: Any) -> Response:
    token = _jwt_generator().generate({"sub": str(subject), **claims})
    return world.call("GET", f"/execution/connections/{conn_id}", token)


@pytest.mark.parametrize("resource", ["postgres", "landing", "landing_path", "directory", "s3"])
def test_a_running_task_gets_the_connection_that_the_gateway_answers(
    world: World, gateway: LeaseGateway, resource: str
) -> None:
    golden = GOLDEN[resource]
    gateway.answers = [(201, golden)]
    name = resource.partition("_")[0]
    with task(FLIGHTS) as running:
        answer = get(world, running, f"client_{name}")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    for key in ("conn_type", "host", "port", "schema", "login", "password"):
        assert found[key] == golden[key], key
    assert json.loads(found["extra"] or "{}") == golden["extra"]
    assert gateway.asked == [
        {
            "resource": name,
            "dag_id": FLIGHTS,
            "run_id": FLIGHTS_RUN,
            "task_id": "process",
            "map_index": -1,
            "try_number": 1,
        }
    ]
    assert gateway.asked[0].keys() == GOLDEN["request"].keys()
    basic = base64.b64encode(b"svc-airflow-api:not-told").decode()
    assert gateway.sign_ins == [f"Basic {basic}"]
    assert gateway.tokens == ["Bearer token-1"]


@pytest.mark.parametrize("state", [None, "queued", "success", "failed", "up_for_retry", "deferred"])
def test_a_task_that_does_not_run_gets_nothing(
    world: World, gateway: LeaseGateway, state: str | None
) -> None:
    with task(FLIGHTS, state) as ended:
        assert get(world, ended, "client_postgres").status_code == 403
    assert get(world, uuid4(), "client_postgres").status_code == 403
    assert gateway.asked == []


def test_a_dag_that_only_bears_a_clients_prefix_gets_nothing(
    world: World, gateway: LeaseGateway
) -> None:
    run = {"logical_date": None, "dag_run_id": "gw.job_stray"}
    made = world.as_kind("admin", "POST", f"/api/v2/dags/{STRAY}/dagRuns", json=run)
    assert made.status_code == 200, made.text
    try:
        with task(STRAY) as spoofing:
            assert get(world, spoofing, "client_postgres").status_code == 403
    finally:
        world.as_kind("admin", "DELETE", f"/api/v2/dags/{STRAY}/dagRuns/gw.job_stray")
    assert gateway.asked == []


def test_a_task_gets_no_other_connection_though_airflow_has_it(
    world: World, gateway: LeaseGateway
) -> None:
    shared = {"connection_id": "shared-db", "conn_type": "generic", "host": "for-all"}
    made = world.as_kind("admin", "POST", "/api/v2/connections", json=shared)
    assert made.status_code < 300, made.text
    with task(FLIGHTS) as running:
        assert get(world, running, "globex-db").status_code == 403
        assert get(world, running, "shared-db").json()["host"] == "for-all"
    assert world.as_kind("admin", "GET", "/api/v2/connections/globex-db").status_code == 200
    assert gateway.asked == []


@pytest.mark.parametrize("forged", ["signature", "audience", "workload", "none"])
def test_a_token_that_airflow_did_not_make_for_a_task_gets_nothing(
    world: World, gateway: LeaseGateway, forged: str
) -> None:
    with task(FLIGHTS) as running:
        claims = {"sub": str(running)}
        if forged == "workload":
            answer = get(world, running, "client_postgres", scope="workload")
        else:
            secret = OTHER_SECRET if forged == "signature" else None
            token = _forged(claims, forged, secret)
            answer = world.call("GET", "/execution/connections/client_postgres", token)
    assert answer.status_code in {401, 403}
    assert gateway.asked == []


def _forged(claims: dict[str, Any], how: str, secret: str | None) -> str | None:
    if how == "none":
        parts = [{"alg": "none"}, claims]
        coded = [base64.urlsafe_b64encode(json.dumps(each).encode()).decode() for each in parts]
        return ".".join(part.rstrip("=") for part in coded) + "."
    real = _jwt_generator()
    audience = "apis.example" if how == "audience" else real.audience
    options = {"valid_for": 60, "audience": audience, "algorithm": "HS512"}
    made = JWTGenerator(secret_key=secret or real._secret_key, **options)
    token: str = made.generate(claims)
    return token


def test_nobody_but_a_task_is_given_a_lease(world: World, gateway: LeaseGateway) -> None:
    path = "/api/v2/connections/client_postgres"
    assert world.as_kind("admin", "GET", path).status_code == 404
    with pytest.raises(AirflowNotFoundException):
        Connection.get_connection_from_secrets("client_postgres")
    with task(FLIGHTS) as running:
        bearer = _jwt_generator().generate({"sub": str(running)})
        assert world.call("GET", path, bearer).status_code in {401, 403}
    assert gateway.asked == []
    assert asking.task_instance.get() is None


@pytest.mark.parametrize(
    ("answers", "status", "asked"),
    [
        ([(404, {"type": "/problems/not-found"})], 403, 1),
        ([(422, {"type": "/problems/invalid-request"})], 403, 1),
        ([(409, {"type": "/problems/job-finished", "retryable": False})], 403, 1),
        ([(409, {"type": "/problems/job-not-started", "retryable": True})], 200, 2),
        ([(401, {"type": "/problems/invalid-token"})], 200, 2),
        ([(429, {"type": "/problems/rate-limited"})], 503, 1),
        ([(503, {"type": "/problems/unavailable"})], 503, 1),
        ([(201, {"lease_id": "lea_1"})], 503, 1),
        ([(201, GOLDEN["postgres"] | {"surprise": 1})], 503, 1),
    ],
)
def test_what_the_gateway_says_decides_whether_the_task_asks_again(
    world: World,
    gateway: LeaseGateway,
    answers: list[tuple[int, dict[str, Any]]],
    status: int,
    asked: int,
) -> None:
    gateway.answers = list(answers)
    with task(FLIGHTS) as running:
        assert get(world, running, "client_postgres").status_code == status
    assert len(gateway.asked) == asked


def test_without_its_gateway_a_task_gets_nothing_from_elsewhere(
    world: World, gateway: LeaseGateway
) -> None:
    bait = {"connection_id": "client_postgres", "conn_type": "generic", "host": "xq-bait"}
    assert world.as_kind("admin", "POST", "/api/v2/connections", json=bait).status_code < 300
    try:
        assert gateway.server is not None
        gateway.server.server_close()
        with task(FLIGHTS) as running:
            answer = get(world, running, "client_postgres")
        assert answer.status_code == 503
        assert "xq-bait" not in answer.text
    finally:
        world.as_kind("admin", "DELETE", "/api/v2/connections/client_postgres")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Bearer",
        b"Basic YTpi",
        b"Bearer a.b",
        b"Bearer a.b.c",
        b"Bearer a.e30.c",
        b"Bearer a.W10.c",
        b"Bearer a.eyJzdWIiOjF9.c",
        b"Bearer a.eyJzdWIiOiJ4In0.c",
        b"Bearer " + b"a" * 9000,
        b"Bearer \xff.\xff.\xff",
    ],
)
def test_what_is_no_task_instances_token_names_nobody(value: bytes) -> None:
    assert asking.subject_of([(b"authorization", value)]) is None


def test_two_tokens_name_nobody_and_one_names_its_subject() -> None:
    subject = uuid4()
    payload = base64.urlsafe_b64encode(json.dumps({"sub": str(subject)}).encode()).rstrip(b"=")
    header = (b"Authorization", b"Bearer a." + payload + b".c")
    assert asking.subject_of([header]) == subject
    assert asking.subject_of([header, header]) is None
    assert asking.subject_of([]) is None


def test_an_api_server_without_its_account_says_which_variable_is_missing() -> None:
    with pytest.raises(SettingsError, match="INGEST_LEASES_USER"):
        Account.from_environment({})
    read = Account.from_environment(
        {
            "INGEST_LEASES_USER": "u",
            "INGEST_LEASES_PASSWORD_FILE": "/p",
            "INGEST_SHARED_CONNECTIONS": " a, b,,",
        }
    )
    assert read.shared == {"a", "b"}
    assert str(read.password_file) == "/p"
