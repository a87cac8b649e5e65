"""What each kind of caller gets from Airflow's real API."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from ingest import rights
from ingest.users import Kind
from tests.auth_manager import minting
from tests.auth_manager.world import (
    FLIGHTS,
    FLIGHTS_RUN,
    HOTELS,
    HOTELS_RUN,
    ORDERS,
    ORDERS_RUN,
    STRAY,
)

if TYPE_CHECKING:
    from tests.auth_manager.world import World

API = "/api/v2"


def run_body() -> dict[str, Any]:
    job = f"job_{uuid.uuid4().hex}"
    conf = json.loads((minting.ROOT / "airflow/contract/dag_run_conf.json").read_text())
    return {"dag_run_id": f"gw.{job}", "logical_date": None, "conf": {**conf, "job_id": job}}


def ids(world: World, kind: str, path: str, key: str, field: str) -> set[str]:
    answer = world.as_kind(kind, "GET", path)
    assert answer.status_code == 200, answer.text
    return {item[field] for item in answer.json()[key]}


# The trigger token.


def test_trigger_starts_a_run_of_its_dag_and_reads_it_back(world: World) -> None:
    body = run_body()
    started = world.as_kind("trigger", "POST", f"{API}/dags/{FLIGHTS}/dagRuns", json=body)
    assert started.status_code == 200, started.text
    run = f"{API}/dags/{FLIGHTS}/dagRuns/{body['dag_run_id']}"
    read = world.as_kind("trigger", "GET", run)
    assert read.status_code == 200
    assert read.json()["conf"] == body["conf"]
    tasks = world.as_kind("admin", "GET", f"{run}/taskInstances")
    assert tasks.json()["total_entries"] == 2
    again = world.as_kind("trigger", "POST", f"{API}/dags/{FLIGHTS}/dagRuns", json=body)
    assert again.status_code == 409


def test_trigger_may_look_at_its_dag_only(world: World) -> None:
    assert world.as_kind("trigger", "GET", f"{API}/dags/{FLIGHTS}").status_code == 200
    for path in ("dags", f"dags/{FLIGHTS}/dagRuns", "dags/~/dagRuns", f"dags/{FLIGHTS}/details"):
        assert world.as_kind("trigger", "GET", f"{API}/{path}").status_code == 403, path


@pytest.mark.parametrize("dag_id", [HOTELS, ORDERS, STRAY, "acme__unknown"])
def test_trigger_cannot_touch_a_sibling_or_another_clients_dag(world: World, dag_id: str) -> None:
    before = world.as_kind("admin", "GET", f"{API}/dags/~/dagRuns").json()["total_entries"]
    for method, path, body in (
        ("GET", f"{API}/dags/{dag_id}", None),
        ("GET", f"{API}/dags/{dag_id}/dagRuns", None),
        ("GET", f"{API}/dags/{dag_id}/dagRuns/{ORDERS_RUN}", None),
        ("GET", f"{API}/dags/{dag_id}/dagRuns/{HOTELS_RUN}/taskInstances", None),
        ("POST", f"{API}/dags/{dag_id}/dagRuns", run_body()),
    ):
        assert world.as_kind("trigger", method, path, json=body).status_code == 403, path
    after = world.as_kind("admin", "GET", f"{API}/dags/~/dagRuns").json()["total_entries"]
    assert before == after


@pytest.mark.parametrize(
    "dags", [[ORDERS], [STRAY], ["acme__unknown"], [f"{FLIGHTS}.."], [ORDERS, STRAY]]
)
def test_dags_claim_gives_nothing_the_registry_does_not_give_the_client(
    world: World, dags: list[str]
) -> None:
    token = world.gateway.token("trigger", dags=dags)
    for dag_id in dags:
        path = f"{API}/dags/{dag_id}/dagRuns"
        assert world.call("POST", path, token, json=run_body()).status_code == 403
        assert world.call("GET", f"{API}/dags/{dag_id}", token).status_code == 403


RUN = f"{API}/dags/{FLIGHTS}/dagRuns/{FLIGHTS_RUN}"
BY_HAND = {"dag_run_id": "by-hand", "logical_date": None}
BEYOND_A_TRIGGER: list[tuple[str, str, dict[str, Any] | None]] = [
    ("POST", f"{API}/dags/{FLIGHTS}/dagRuns", BY_HAND),
    ("GET", f"{RUN}/taskInstances", None),
    ("PATCH", f"{API}/dags/{FLIGHTS}", {"is_paused": True}),
    ("DELETE", f"{API}/dags/{FLIGHTS}", None),
    ("PATCH", RUN, {"state": "success"}),
    ("DELETE", RUN, None),
    ("POST", f"{RUN}/clear", {"dry_run": False}),
    ("POST", f"{API}/dags/{FLIGHTS}/clearTaskInstances", {"dry_run": False}),
    ("PATCH", f"{RUN}/taskInstances/process", {"new_state": "success"}),
    ("GET", f"{RUN}/taskInstances/process/logs/1", None),
    ("GET", f"{RUN}/taskInstances/process/xcomEntries", None),
    ("GET", f"{RUN}/wait?interval=1&result=process", None),
    ("GET", f"{API}/dags/{FLIGHTS}/tasks", None),
    ("GET", f"{API}/dagSources/{FLIGHTS}", None),
    ("GET", f"{API}/pools", None),
    ("GET", f"{API}/connections", None),
    ("GET", f"{API}/variables", None),
    ("GET", f"{API}/config", None),
    ("GET", f"{API}/eventLogs", None),
    ("GET", f"{API}/jobs", None),
    ("GET", f"{API}/importErrors", None),
    ("GET", f"{API}/assets", None),
    ("POST", "/ui/auth/token", {"token_type": "api"}),
    ("POST", "/ui/auth/token", {"token_type": "cli"}),
]


@pytest.mark.parametrize(("method", "path", "body"), BEYOND_A_TRIGGER)
def test_trigger_grants_nothing_else(
    world: World, method: str, path: str, body: dict[str, Any] | None
) -> None:
    assert world.as_kind("trigger", method, path, json=body).status_code == 403


# Tokens that are not right.


def wrong_tokens(world: World) -> dict[str, tuple[str, int]]:
    key, stranger = world.gateway.key, minting.new_key()
    long_ago = int(time.time()) - 3600
    mint = world.gateway.token
    unsigned = {"alg": "none", "typ": "at+jwt", "kid": key.kid}
    payload = minting.b64(json.dumps(minting.claims("admin")).encode())
    return {
        "expired": (minting.sign(key, minting.claims("trigger", now=long_ago)), 401),
        "wrong key": (minting.sign(stranger, minting.claims("trigger"), kid=key.kid), 403),
        "unknown key id": (minting.sign(stranger, minting.claims("trigger")), 403),
        "wrong audience": (mint("trigger", aud="apache-airflow"), 403),
        "wrong issuer": (mint("trigger", iss="https://evil.example"), 403),
        "two clients": (mint("trigger", client=["acme", "globex"]), 403),
        "too long a life": (mint("trigger", exp=int(time.time()) + 301), 403),
        "alg none": (f"{minting.b64(json.dumps(unsigned).encode())}.{payload}.", 403),
        "too long": ("a" * 5000, 403),
        "nonsense": ("nonsense", 403),
    }


def test_wrong_tokens_are_refused_with_401_when_expired_and_403_otherwise(world: World) -> None:
    for name, (token, status) in wrong_tokens(world).items():
        answer = world.call("GET", f"{API}/dags", token)
        assert answer.status_code == status, name
    assert world.call("GET", f"{API}/dags", None).status_code == 401


def test_execution_api_refuses_the_gateways_tokens(world: World) -> None:
    task_instance = uuid.uuid4()
    for kind in minting.GOLDEN:
        for path in ("connections/globex-db", "variables/globex-variable"):
            answer = world.as_kind(kind, "GET", f"/execution/{path}")
            assert answer.status_code in {401, 403}, answer.text
        run = f"/execution/task-instances/{task_instance}/run"
        assert world.as_kind(kind, "PATCH", run, json={}).status_code in {401, 403}


def test_without_keys_a_token_is_neither_taken_nor_refused(world: World) -> None:
    manager = world.app.state.auth_manager
    known = manager.__dict__.pop("_keys", None)
    world.gateway.fault = (503, {}, b"{}")
    try:
        answer = world.as_kind("trigger", "GET", f"{API}/dags")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    finally:
        world.gateway.fault = None
        manager.__dict__["_keys"] = known


# The token that cancels.


def test_cancel_token_ends_a_run_of_its_dag(world: World) -> None:
    body = run_body()
    runs = f"{API}/dags/{FLIGHTS}/dagRuns"
    assert world.as_kind("trigger", "POST", runs, json=body).status_code == 200
    run = f"{runs}/{body['dag_run_id']}?update_mask=state"
    ended = world.as_kind("cancel", "PATCH", run, json={"state": "failed"})
    assert ended.status_code == 200, ended.text
    assert world.as_kind("cancel", "GET", run).json()["state"] == "failed"


def test_cancel_token_can_do_nothing_else(world: World) -> None:
    failed = {"state": "failed"}
    runs = f"{API}/dags/{FLIGHTS}/dagRuns"
    for method, path, body in (
        ("POST", runs, run_body()),
        ("DELETE", RUN, None),
        ("GET", f"{RUN}/taskInstances", None),
        ("PATCH", f"{RUN}/taskInstances/process", {"new_state": "success"}),
        ("PATCH", f"{API}/dags/{FLIGHTS}", {"is_paused": True}),
        ("PATCH", f"{API}/dags/{HOTELS}/dagRuns/{HOTELS_RUN}", failed),
        ("PATCH", f"{API}/dags/{ORDERS}/dagRuns/{ORDERS_RUN}", failed),
        ("PATCH", f"{API}/dags/~/dagRuns/{ORDERS_RUN}", failed),
        ("GET", f"{API}/dags/{ORDERS}/dagRuns/{ORDERS_RUN}", None),
        ("GET", f"{API}/dags/{FLIGHTS}", None),
    ):
        assert world.as_kind("cancel", method, path, json=body).status_code == 403, path


# The watcher and the pools token.


def test_watcher_sees_runs_and_task_instances_of_all_dags(world: World) -> None:
    seen = ids(world, "watcher", f"{API}/dags/~/dagRuns", "dag_runs", "dag_id")
    assert {FLIGHTS, HOTELS, ORDERS} <= seen
    path = f"{API}/dags/{ORDERS}/dagRuns/{ORDERS_RUN}"
    assert world.as_kind("watcher", "GET", path).status_code == 200
    assert world.as_kind("watcher", "GET", f"{path}/taskInstances").status_code == 200
    tasks = world.as_kind("watcher", "GET", f"{API}/dags/~/dagRuns/~/taskInstances")
    assert ORDERS in tasks.text


def test_watcher_can_do_nothing_else(world: World) -> None:
    path = f"{API}/dags/{ORDERS}/dagRuns"
    for method, url, body in (
        ("GET", f"{API}/dags", None),
        ("GET", f"{API}/dags/{FLIGHTS}", None),
        ("POST", path, run_body()),
        ("POST", f"{API}/dags/~/dagRuns/list", {}),
        ("PATCH", f"{path}/{ORDERS_RUN}", {"state": "failed"}),
        ("GET", f"{path}/{ORDERS_RUN}/taskInstances/globex_process/xcomEntries", None),
        ("GET", f"{path}/{ORDERS_RUN}/taskInstances/globex_process/logs/1", None),
        ("GET", f"{API}/pools", None),
        ("GET", f"{API}/eventLogs", None),
    ):
        assert world.as_kind("watcher", method, url, json=body).status_code == 403, url


def bulk_pool(name: str, slots: int) -> dict[str, Any]:
    entity = {"name": name, "slots": slots}
    create = {"action": "create", "entities": [entity], "action_on_existence": "overwrite"}
    return {"actions": [create]}


def test_pools_token_makes_and_changes_the_pool_of_its_client(world: World) -> None:
    made = world.as_kind("pools", "PATCH", f"{API}/pools", json=bulk_pool("client-acme", 16))
    assert made.status_code == 200, made.text
    assert made.json()["create"]["success"] == ["client-acme"]
    pool = f"{API}/pools/client-acme"
    assert world.as_kind("admin", "GET", pool).json()["slots"] == 16


def test_pools_token_cannot_touch_any_other_pool(world: World) -> None:
    both = bulk_pool("client-acme", 1)
    both["actions"] += bulk_pool("client-globex", 1)["actions"]
    delete = {"actions": [{"action": "delete", "entities": ["client-acme"]}]}
    before = world.as_kind("admin", "GET", f"{API}/pools").json()
    for method, path, body in (
        ("PATCH", f"{API}/pools", bulk_pool("client-globex", 1)),
        ("PATCH", f"{API}/pools", bulk_pool("client-new", 1)),
        ("PATCH", f"{API}/pools", both),
        ("PATCH", f"{API}/pools", delete),
        ("PATCH", f"{API}/pools", {"actions": []}),
        ("POST", f"{API}/pools", {"name": "client-new", "slots": 1}),
        ("PATCH", f"{API}/pools/client-globex", {"slots": 1}),
        ("PATCH", f"{API}/pools/default_pool?update_mask=slots", {"slots": 1}),
        ("DELETE", f"{API}/pools/client-acme", None),
        ("GET", f"{API}/pools/client-globex", None),
        ("GET", f"{API}/pools/client-acme", None),
        ("GET", f"{API}/dags", None),
    ):
        assert world.as_kind("pools", method, path, json=body).status_code == 403, path
    assert world.as_kind("admin", "GET", f"{API}/pools").json() == before


# People.


def test_person_sees_only_the_clients_own_dags(world: World) -> None:
    assert ids(world, "operator", f"{API}/dags", "dags", "dag_id") == {FLIGHTS, HOTELS}
    assert ids(world, "operator", "/ui/dags", "dags", "dag_id") == {FLIGHTS, HOTELS}
    listed = ids(world, "operator", f"{API}/dags/~/dagRuns", "dag_runs", "dag_id")
    assert listed == {FLIGHTS, HOTELS}
    for path in (RUN, f"{RUN}/taskInstances", f"{RUN}/taskInstances/process/xcomEntries"):
        assert world.as_kind("operator", "GET", path).status_code == 200
    for dag_id in (ORDERS, STRAY, "acme__unknown"):
        assert world.as_kind("operator", "GET", f"{API}/dags/{dag_id}").status_code == 403


def test_pages_of_the_interface_answer_a_person(world: World) -> None:
    for path in (
        "/ui/config",
        "/ui/auth/menus",
        "/ui/auth/me",
        "/ui/dags",
        f"/ui/grid/runs/{FLIGHTS}",
        f"/ui/grid/structure/{FLIGHTS}",
        f"/ui/structure/structure_data?dag_id={FLIGHTS}",
        f"/ui/dags/{FLIGHTS}/latest_run",
        "/ui/dashboard/dag_stats",
        f"{API}/dags/{FLIGHTS}/details",
        f"{API}/dags/{FLIGHTS}/dagVersions",
        f"{API}/dagWarnings",
        f"{API}/version",
    ):
        answer = world.as_kind("operator", "GET", path)
        assert answer.status_code == 200, (path, answer.text)
    menu = world.as_kind("operator", "GET", "/ui/auth/menus").json()
    assert menu["authorized_menu_items"] == ["Dags", "XComs"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        entry
        for entry in BEYOND_A_TRIGGER
        if entry[0] != "GET"
        and "/ui/auth" not in entry[1]
        and "clear" not in entry[1]
        and entry[2] != BY_HAND
    ]
    + [
        ("POST", f"{API}/dags/{FLIGHTS}/dagRuns", run_body()),
        ("PATCH", f"{API}/dags/~/dagRuns", {"actions": []}),
        ("POST", f"{API}/dags/~/clearDagRuns", {"dag_runs": [], "partition_key": "x"}),
        ("PATCH", f"{API}/dags?dag_id_pattern=~", {"is_paused": True}),
        ("POST", f"{API}/backfills", {"dag_id": FLIGHTS}),
        ("PATCH", f"{API}/connections", {"actions": []}),
        ("PATCH", f"{API}/variables", {"actions": []}),
    ],
)
def test_operators_change_nothing_but_by_starting_and_clearing(
    world: World, method: str, path: str, body: dict[str, Any] | None
) -> None:
    assert world.as_kind("operator", method, path, json=body).status_code == 403


def test_admin_sees_every_dag_even_those_no_client_has(world: World) -> None:
    seen = ids(world, "admin", f"{API}/dags", "dags", "dag_id")
    assert seen == {FLIGHTS, HOTELS, ORDERS, STRAY}
    for path in ("connections", "variables", "pools", "config", "eventLogs", "jobs", "plugins"):
        assert world.as_kind("admin", "GET", f"{API}/{path}").status_code == 200, path


def test_token_made_from_a_token_does_not_outlive_it(world: World) -> None:
    bearer = world.gateway.token("operator")
    answer = world.call("POST", "/ui/auth/token", bearer, json={"token_type": "api"})
    made = answer.json()["access_token"]
    assert minting.claims_of(made)["exp"] <= minting.claims_of(bearer)["exp"]
    assert world.call("GET", f"{API}/dags/{ORDERS}", made).status_code == 403
    assert world.call("GET", f"{API}/dags/{FLIGHTS}", made).status_code == 200


def test_signing_out_ends_the_token_that_was_presented(world: World) -> None:
    family_and_own = "01kaz3v4e8m3w5q9r7t2y6x0bf.01kaz3v4e8m3w5q9r7t2y6x0bg"
    bearer = world.gateway.token("operator", jti=family_and_own)
    assert world.call("GET", f"{API}/dags", bearer).status_code == 200
    assert world.call("GET", f"{API}/auth/logout", bearer).status_code == 307
    assert world.call("GET", f"{API}/dags", bearer).status_code == 403


def test_every_row_of_the_table_names_something_airflow_asks_about() -> None:
    from airflow.api_fastapi.auth.managers.models.resource_details import (
        AccessView,
        DagAccessEntity,
    )
    from airflow.api_fastapi.common.types import MenuItem

    known = {"dag", "pool", "team", "connection", "variable", "configuration", "asset"}
    known |= {"asset_alias", *(f"dag.{entity.value}" for entity in DagAccessEntity)}
    known |= {f"menu.{item.value}" for item in MenuItem}
    known |= {f"view.{view.value}" for view in AccessView}
    named = {resource for resource, _ in rights.TABLE if not resource.startswith("custom.")}
    assert named <= known
    acts = {"GET", "POST", "PUT", "DELETE", "START", "CLEAR", "BOOKMARK"}
    assert {act for _, act in rights.TABLE} <= acts
    assert set(rights.COLUMNS) == set(Kind)
    assert all(len(row) == len(rights.COLUMNS) for row in rights.TABLE.values())
