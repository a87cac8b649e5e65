"""Every door of Airflow's API is decided about, and what is not open is closed to everything."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.routing import APIRoute

from ingest import doors, rights
from ingest.users import PEOPLE, Kind
from tests.auth_manager import other_worlds, questions
from tests.auth_manager.world import FLIGHTS, FLIGHTS_RUN, HOTELS, ORDERS, ORDERS_RUN

if TYPE_CHECKING:
    from httpx import Response

    from tests.auth_manager.world import World

API = "/api/v2"
KINDS = ("trigger", "cancel", "watcher", "pools", "viewer", "operator", "auditor")
# They ask for no sign-in.
PUBLIC = {
    f"GET {API}/{name}" for name in ("monitor/health", "version", "auth/login", "auth/logout")
}
ENTRY = {"dag_run_id": FLIGHTS_RUN, "dag_id": FLIGHTS}
# Calls whose bodies Airflow judges before it asks: these are good ones.
GOOD: dict[str, Any] = {
    f"POST {API}/connections/enqueue-test": {
        "connection_id": "globex-db",
        "conn_type": "generic",
    },
    f"PATCH {API}/connections": {"actions": [{"action": "delete", "entities": ["globex-db"]}]},
    f"PATCH {API}/variables": {"actions": [{"action": "delete", "entities": ["globex-variable"]}]},
    f"PATCH {API}/pools": {"actions": [{"action": "delete", "entities": ["client-acme"]}]},
    f"PATCH {API}/dags/{{dag_id}}/dagRuns": {
        "actions": [{"action": "delete", "entities": [FLIGHTS_RUN]}]
    },
    f"POST {API}/dags/{{dag_id}}/clearDagRuns": {"dag_runs": [ENTRY], "dry_run": False},
}


def test_every_door_of_this_airflow_has_been_decided_about(world: World) -> None:
    undecided = set(questions.routes(world)) - set(doors.guests())
    assert not undecided, "say in doors.txt who may come to these"
    gone = set(doors.guests()) - set(questions.routes(world))
    assert not gone, "this Airflow does not have these"


def test_nothing_but_plain_routes_lies_behind_the_two_prefixes(world: World) -> None:
    every = [route for route in questions.flat(world.app.routes) if not isinstance(route, APIRoute)]
    assert [route for route in every if route.path.startswith(("/api/v2", "/ui"))] == []
    mounted = {
        route.path
        for route in world.app.routes
        if hasattr(route, "app") and not hasattr(route, "methods")
    }
    names = "/static/i18n/locales"  # of the views, in Airflow's menu: everybody may read them
    assert mounted == {"/auth", "/execution", "/static", names}, mounted


def test_doors_and_table_agree_on_who_only_looks() -> None:
    for door, kinds in doors.guests().items():
        if not questions.reads(door) and "favorite" not in door and door != "POST /ui/auth/token":
            assert not kinds & {Kind.VIEWER, Kind.AUDITOR, Kind.WATCHER}, door
    for (_, act), row in rights.TABLE.items():
        for kind in (Kind.VIEWER, Kind.AUDITOR, Kind.WATCHER):
            if act not in {"GET", "BOOKMARK"}:
                assert not row[rights.COLUMNS.index(kind)], act


def test_the_watcher_comes_to_three_doors() -> None:
    runs = f"GET {API}/dags/{{dag_id}}/dagRuns"
    found = {door for door, kinds in doors.guests().items() if Kind.WATCHER in kinds}
    assert found == {runs, f"{runs}/{{dag_run_id}}", f"{runs}/{{dag_run_id}}/taskInstances"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_door_is_closed_to_everything(world: World, kind: str) -> None:
    token = world.gateway.token(kind)
    before = other_worlds.everything()
    closed = [door for door, kinds in doors.guests().items() if Kind(kind) not in kinds]
    for door in set(closed) - PUBLIC:
        method = door.split(" ")[0]
        # Refused for what they are: nobody has read the body, which is no good.
        body = b"{" if method != "GET" else None
        answer = world.call(method, questions.own(door), token, content=body)
        assert answer.status_code == 403, (door, answer.text)
    assert len(closed) > 70
    assert other_worlds.everything() == before


@pytest.mark.parametrize("kind", sorted(kind.value for kind in PEOPLE - {Kind.ADMIN}))
def test_a_session_in_a_cookie_opens_no_more(world: World, kind: str) -> None:
    session, token_of_file = session_of(world, kind), file_token(world)
    # Airflow itself writes down what was tried.
    before = other_worlds.everything(but="log")
    for door, kinds in doors.guests().items():
        if Kind(kind) in kinds or door in PUBLIC:
            continue
        body = GOOD.get(door, {})
        path = questions.own(door).replace("parseDagFile/1", f"parseDagFile/{token_of_file}")
        answer = by_cookie(world, session, door.split(" ")[0], path, body)
        assert answer.status_code in {403, 404}, (door, answer.status_code, answer.text)
        if answer.status_code == 404:
            assert "backfills" in door or "enqueue-test" in door, door
    assert other_worlds.everything(but="log") == before


def session_of(world: World, kind: str) -> str:
    made = world.as_kind(kind, "POST", "/ui/auth/token", json={"token_type": "api"})
    assert made.status_code == 200, made.text
    return str(made.json()["access_token"])


def by_cookie(world: World, session: str, method: str, path: str, body: Any) -> Response:
    world.http.cookies.clear()
    world.http.cookies.set("_token", session)
    try:
        headers = {"Airflow-Connection-Test-Token": "none"}
        json = None if method == "GET" else body
        return world.http.request(method, path, json=json, headers=headers)
    finally:
        world.http.cookies.clear()


def file_token(world: World) -> str:
    dag = world.as_kind("admin", "GET", f"{API}/dags/{FLIGHTS}")
    return str(dag.json()["file_token"])


# What an operator may do.


def started(world: World, kind: str, dag_id: str, **body: Any) -> Response:
    given = {"logical_date": None, **body}
    return world.as_kind(kind, "POST", f"{API}/dags/{dag_id}/dagRuns", json=given)


def test_an_operator_starts_a_run_of_its_own_dag_by_hand(world: World) -> None:
    answer = started(world, "operator", HOTELS)
    assert answer.status_code == 200, answer.text
    assert answer.json()["triggering_user_name"] == "acme-operator"
    named = started(world, "operator", HOTELS, dag_run_id=f"again-{uuid.uuid4().hex}")
    assert named.status_code == 200, named.text


def test_nobody_starts_a_run_by_a_name_of_the_gateways_or_of_another_client(world: World) -> None:
    before = other_worlds.everything()
    for kind in ("viewer", "auditor", "watcher", "cancel", "pools"):
        assert started(world, kind, FLIGHTS).status_code == 403
    assert started(world, "operator", ORDERS).status_code == 403
    assert started(world, "operator", "~").status_code == 403
    assert started(world, "operator", FLIGHTS, dag_run_id="gw.job_squatted").status_code == 403
    assert started(world, "trigger", FLIGHTS, dag_run_id="by-hand").status_code == 403
    assert other_worlds.everything() == before


@pytest.mark.parametrize(
    "body",
    [
        b'{"logical_date": null, "dag_run_id": "mine", "dag_run_id": "gw.job_1"}',
        '{"logical_date": null, "dag_run_id": "gw.job_1"}'.encode("utf-16"),
        b'{"logical_date": null, "dag_run_id": "\\u0067w.job_1"}',
        b'{"logical_date": null, "dag_run_id": ["mine"]}',
        b'{"logical_date": null, "conf": {"a": "' + b"a" * doors.MAX_BODY_BYTES + b'"}}',
        b'["dag_run_id"]',
        b"{",
        b"",
        b"[" * 50_000,
    ],
)
def test_a_body_in_which_no_name_can_be_read_starts_nothing(world: World, body: bytes) -> None:
    path = f"{API}/dags/{FLIGHTS}/dagRuns"
    token = world.gateway.token("operator")
    answer = world.call("POST", path, token, content=body)
    assert answer.status_code in {403, 422}, answer.text
    assert world.as_kind("admin", "GET", f"{path}/gw.job_1").status_code == 404


def run_of(world: World, dag_id: str) -> str:
    answer = started(world, "admin", dag_id)
    path = f"{API}/dags/{dag_id}/dagRuns/{answer.json()['dag_run_id']}"
    ended = world.as_kind("admin", "PATCH", path, json={"state": "failed"})
    assert ended.status_code == 200, ended.text
    return path


def test_an_operator_clears_its_own_runs_and_tasks(world: World) -> None:
    for way in ("run", "tasks"):
        run = run_of(world, HOTELS)
        if way == "run":
            path, body = f"{run}/clear", {"dry_run": False, "only_failed": False}
        else:
            path = f"{API}/dags/{HOTELS}/clearTaskInstances"
            body = {"dry_run": False, "only_failed": False, "dag_run_id": run.rsplit("/", 1)[1]}
        before = other_worlds.everything()
        for kind in set(KINDS) - {"operator"}:
            assert world.as_kind(kind, "POST", path, json=body).status_code == 403, kind
        assert other_worlds.everything() == before
        cleared = world.as_kind("operator", "POST", path, json=body)
        assert cleared.status_code == 200, cleared.text
        assert world.as_kind("admin", "GET", run).json()["state"] == "queued"


def test_an_operator_declares_nothing_successful_and_clears_nobody_elses(world: World) -> None:
    run, theirs = run_of(world, HOTELS), f"{API}/dags/{ORDERS}/dagRuns/{ORDERS_RUN}"
    whole = {"dry_run": False, "only_failed": False}
    # Airflow may log what somebody tried.
    before = other_worlds.everything(but="log")
    for method, path, body in (
        ("PATCH", run, {"state": "success"}),
        ("PATCH", run, {"state": "queued"}),
        ("PATCH", run, {"note": "mine"}),
        ("PATCH", f"{run}/taskInstances/process", {"new_state": "success"}),
        ("PATCH", f"{run}/taskInstances/process/dry_run", {"new_state": "success"}),
        ("PATCH", f"{run}/taskGroupInstances/process", {"new_state": "success"}),
        ("POST", f"{theirs}/clear", whole),
        ("POST", f"{API}/dags/~/dagRuns/{ORDERS_RUN}/clear", whole),
        ("POST", f"{API}/dags/{ORDERS}/clearTaskInstances", {**whole, "dag_run_id": ORDERS_RUN}),
        ("POST", f"{API}/dags/~/clearTaskInstances", {**whole, "dag_run_id": ORDERS_RUN}),
        ("POST", f"{API}/dags/{HOTELS}/clearDagRuns", {"dag_runs": [ENTRY], "dry_run": False}),
        ("POST", f"{API}/dags/{HOTELS}/clearPartitions", {"partition_key": "x"}),
    ):
        assert world.as_kind("operator", method, path, json=body).status_code == 403, path
    assert other_worlds.everything(but="log") == before


def test_outside_a_request_to_the_api_nothing_is_told_apart() -> None:
    assert doors.here() is None
    assert doors.act("PUT") == "PUT"
    assert doors.act("POST") == "POST"


def test_a_door_nobody_has_decided_about_is_for_admins(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    listed = {**doors.guests()}
    del listed[f"GET {API}/dags"], listed["GET /ui/config"]
    monkeypatch.setattr(doors, "guests", lambda: listed)
    for path in (f"{API}/dags", "/ui/config"):
        for kind in KINDS:
            assert world.as_kind(kind, "GET", path).status_code == 403, kind
        assert world.as_kind("admin", "GET", path).status_code == 200


def test_stars_are_everybodys_own(world: World) -> None:
    star = f"{API}/dags/{FLIGHTS}/favorite"
    for kind in ("viewer", "operator"):
        assert world.as_kind(kind, "POST", star).status_code == 204
        starred = world.as_kind(kind, "GET", "/ui/dags?is_favorite=true").json()
        assert [dag["dag_id"] for dag in starred["dags"]] == [FLIGHTS]
        assert world.as_kind(kind, "POST", f"{API}/dags/{ORDERS}/favorite").status_code == 403
        assert world.as_kind(kind, "POST", star.replace("fav", "unfav")).status_code == 204


def test_menus_hold_what_would_not_only_answer_403(world: World) -> None:
    for kind, items in (
        ("viewer", ["Dags", "XComs"]),
        ("operator", ["Dags", "XComs"]),
        ("auditor", ["Audit Log", "Dags", "Pools"]),
    ):
        found = world.as_kind(kind, "GET", "/ui/auth/menus").json()
        assert found["authorized_menu_items"] == items
