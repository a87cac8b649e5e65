"""Rights of this moment: doors, group changes, revocation, refresh, a directory that is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from deploy.local import directory as local_directory
from deploy.local.directory import Directory as DirectoryServer
from tests.identity.conftest import DirectoryAdmin, Start
from tests.identity.test_signing_in import ask, person, refused
from tests.parts import free_port

OPEN = {
    "acme-uploader": {"anyone", "reader", "writer"},
    "acme-viewer": {"anyone", "reader"},
    "acme-operator": {"anyone", "reader", "writer", "operator"},
    "auditor": {"anyone", "auditor"},
    "admin": {"anyone", "auditor", "admin"},
    "svc-airflow": {"anyone", "platform"},
    "svc-airflow-api": {"anyone", "lessor"},
}
DOORS = ("anyone", "reader", "writer", "operator", "auditor", "admin", "platform", "lessor")


def knock(client: TestClient, token: str, door: str = "anyone") -> Any:
    return client.get(f"/doors/{door}", headers={"Authorization": f"Bearer {token}"})


def problem(answer: Any, status: int, slug: str) -> None:
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}"), answer.text


@pytest.mark.parametrize("name", OPEN)
def test_each_account_opens_its_doors_and_no_other(
    client: TestClient, token: Callable[[str], str], name: str
) -> None:
    mine = token(name)
    for door in DOORS:
        answer = knock(client, mine, door)
        if door in OPEN[name]:
            assert answer.status_code == 200, (door, answer.text)
        else:
            problem(answer, 403, "forbidden")


@pytest.mark.parametrize("door", DOORS)
def test_every_door_wants_a_bearer_token(client: TestClient, door: str) -> None:
    for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer"}):
        answer = client.get(f"/doors/{door}", headers=headers)
        problem(answer, 401, "not-authenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_narrowed_token_opens_only_what_it_names(
    client: TestClient, token: Callable[..., str]
) -> None:
    narrow = token("acme-operator", scope="batches:read")
    assert knock(client, narrow, "reader").status_code == 200
    answer = knock(client, narrow, "writer")
    problem(answer, 403, "forbidden")
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


def test_tokens_for_airflow_open_no_door_here(
    client: TestClient, token: Callable[..., str]
) -> None:
    for_airflow = token("acme-operator", audience="airflow")
    for door in DOORS:
        problem(knock(client, for_airflow, door), 401, "invalid-token")


def test_who_leaves_a_group_loses_its_rights_within_the_cache_time(
    start: Start, directory_server: DirectoryServer, directory_admin: DirectoryAdmin
) -> None:
    client = start(LDAP_CACHE_SECONDS=1)
    member = directory_admin.person("leaver")
    directory_admin.add_member("acme-operators", member)
    directory_admin.add_member("acme-viewers", member)
    body = ask(client, grant_type="password", username="leaver", password="right password").json()
    token = body["access_token"]
    assert knock(client, token, "operator").status_code == 200
    directory_admin.remove_member("acme-operators", member)
    time.sleep(1.1)
    problem(knock(client, token, "operator"), 403, "forbidden")
    assert knock(client, token, "reader").status_code == 200
    directory_admin.remove_member("acme-viewers", member)
    time.sleep(1.1)
    problem(knock(client, token, "anyone"), 403, "forbidden")


def test_membership_is_believed_for_the_cache_time(
    start: Start, directory_admin: DirectoryAdmin
) -> None:
    client = start(LDAP_CACHE_SECONDS=60)
    member = directory_admin.person("stayer")
    directory_admin.add_member("acme-viewers", member)
    body = ask(client, grant_type="password", username="stayer", password="right password").json()
    directory_admin.remove_member("acme-viewers", member)
    assert knock(client, body["access_token"], "reader").status_code == 200


def test_a_deleted_account_opens_nothing(start: Start, directory_admin: DirectoryAdmin) -> None:
    client = start(LDAP_CACHE_SECONDS=0)
    dn = directory_admin.person("gone")
    directory_admin.add_member("acme-viewers", dn)
    body = ask(client, grant_type="password", username="gone", password="right password").json()
    assert knock(client, body["access_token"], "reader").status_code == 200
    directory_admin.delete(dn)
    problem(knock(client, body["access_token"], "reader"), 401, "invalid-token")
    again = ask(client, grant_type="refresh_token", refresh_token=body["refresh_token"])
    refused(again, 400, "invalid_grant")


def test_a_suspended_client_may_look_and_not_deliver(
    client: TestClient,
    token: Callable[..., str],
    set_client_state: Callable[[str, str], None],
) -> None:
    mine = token("acme-uploader")
    assert knock(client, mine, "writer").status_code == 200
    set_client_state("acme", "suspended")
    assert knock(client, mine, "reader").status_code == 200
    problem(knock(client, mine, "writer"), 403, "forbidden")
    assert knock(client, token("globex-uploader"), "writer").status_code == 200
    set_client_state("acme", "active")
    assert knock(client, mine, "writer").status_code == 200
    set_client_state("acme", "gone")
    problem(knock(client, mine, "reader"), 403, "forbidden")


def test_a_revoked_access_token_opens_nothing(
    client: TestClient, token: Callable[..., str]
) -> None:
    mine, other = token("acme-uploader"), token("acme-uploader")
    assert knock(client, mine).status_code == 200
    answer = client.post("/v1/token/revoke", data={"token": mine, "token_type_hint": "what"})
    assert (answer.status_code, answer.content) == (200, b"")
    problem(knock(client, mine), 401, "invalid-token")
    assert knock(client, other).status_code == 200
    assert client.post("/v1/token/revoke", data={"token": mine}).status_code == 200


@pytest.mark.parametrize("unknown", ["x", "gwr_x", "a.b.c", "é", "." * 9000])
def test_revoking_what_is_no_token_is_answered_alike(client: TestClient, unknown: str) -> None:
    assert client.post("/v1/token/revoke", data={"token": unknown}).status_code == 200


def test_revoking_nothing_is_refused(client: TestClient) -> None:
    refused(client.post("/v1/token/revoke", data={"token": ""}), 400, "invalid_request")


def test_a_refresh_token_rotates(client: TestClient, directory_server: DirectoryServer) -> None:
    first = person(client, directory_server, "acme-operator").json()
    second = ask(client, grant_type="refresh_token", refresh_token=first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert second["scope"] == first["scope"]
    assert knock(client, second["access_token"], "operator").status_code == 200
    narrow = ask(
        client,
        grant_type="refresh_token",
        refresh_token=second["refresh_token"],
        scope="batches:read",
    ).json()
    assert narrow["scope"] == "batches:read"


def test_reuse_of_a_refresh_token_ends_the_whole_family(
    client: TestClient, directory_server: DirectoryServer
) -> None:
    first = person(client, directory_server, "acme-operator").json()
    second = ask(client, grant_type="refresh_token", refresh_token=first["refresh_token"]).json()
    other = person(client, directory_server, "acme-operator").json()
    again = ask(client, grant_type="refresh_token", refresh_token=first["refresh_token"])
    refused(again, 400, "invalid_grant")
    for body in (first, second):
        problem(knock(client, body["access_token"]), 401, "invalid-token")
    after = ask(client, grant_type="refresh_token", refresh_token=second["refresh_token"])
    refused(after, 400, "invalid_grant")
    assert knock(client, other["access_token"]).status_code == 200


def test_of_two_renewals_at_once_one_wins_and_the_family_ends(
    client: TestClient, directory_server: DirectoryServer
) -> None:
    first = person(client, directory_server, "acme-operator").json()

    def renew(_: int) -> Any:
        return ask(client, grant_type="refresh_token", refresh_token=first["refresh_token"])

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(renew, range(4)))
    won = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(won) == 1
    problem(knock(client, won[0]["access_token"]), 401, "invalid-token")


def test_revoking_a_refresh_token_ends_its_access_tokens(
    client: TestClient, directory_server: DirectoryServer
) -> None:
    body = person(client, directory_server, "acme-operator").json()
    client.post("/v1/token/revoke", data={"token": body["refresh_token"]})
    problem(knock(client, body["access_token"]), 401, "invalid-token")
    again = ask(client, grant_type="refresh_token", refresh_token=body["refresh_token"])
    refused(again, 400, "invalid_grant")


def test_a_refresh_cannot_widen_what_was_granted(
    client: TestClient, directory_server: DirectoryServer
) -> None:
    body = person(client, directory_server, "acme-operator", scope="batches:read").json()
    for wish, error in (
        ({"scope": "batches:read jobs:write"}, "invalid_scope"),
        ({"client": "globex"}, "invalid_grant"),
        ({"audience": "airflow"}, "invalid_target"),
    ):
        answer = ask(
            client, grant_type="refresh_token", refresh_token=body["refresh_token"], **wish
        )
        refused(answer, 400, error)
    again = ask(client, grant_type="refresh_token", refresh_token=body["refresh_token"])
    assert again.json()["scope"] == "batches:read"


def test_a_refresh_follows_the_groups(client: TestClient, directory_admin: DirectoryAdmin) -> None:
    member = directory_admin.person("mover")
    directory_admin.add_member("acme-operators", member)
    body = ask(client, grant_type="password", username="mover", password="right password").json()
    directory_admin.remove_member("acme-operators", member)
    directory_admin.add_member("acme-viewers", member)
    again = ask(client, grant_type="refresh_token", refresh_token=body["refresh_token"]).json()
    assert again["scope"] == "batches:read"


@pytest.fixture
def own_directory(tmp_path: Path) -> Iterator[DirectoryServer]:
    server = local_directory.start(tmp_path / "directory", free_port())
    yield server
    server.stop()


def at(server: DirectoryServer, **more: object) -> dict[str, object]:
    return {
        "LDAP_URL": server.url,
        "LDAP_CA_PATH": server.ca_path,
        "LDAP_BIND_PASSWORD": server.bind_password,
        **more,
    }


def test_while_the_directory_is_away_nobody_gets_or_keeps_rights(
    start: Start, own_directory: DirectoryServer, tmp_path: Path
) -> None:
    client = start(**at(own_directory, LDAP_CACHE_SECONDS=0))
    body = person(client, own_directory, "acme-operator").json()
    assert knock(client, body["access_token"], "operator").status_code == 200
    own_directory.kill()
    away = knock(client, body["access_token"], "operator")
    problem(away, 503, "unavailable")
    assert int(away.headers["retry-after"]) >= 1
    refused(person(client, own_directory, "acme-operator"), 503, "temporarily_unavailable")
    refresh = {"grant_type": "refresh_token", "refresh_token": body["refresh_token"]}
    refused(ask(client, **refresh), 503, "temporarily_unavailable")
    port = int(own_directory.url.rpartition(":")[2])
    with local_directory.start(tmp_path / "directory", port):
        assert knock(client, body["access_token"], "operator").status_code == 200
        # The refresh that failed has cost nothing.
        assert ask(client, **refresh).status_code == 200


def test_what_is_remembered_outlives_the_directory_for_the_cache_time_only(
    start: Start, own_directory: DirectoryServer
) -> None:
    client = start(**at(own_directory, LDAP_CACHE_SECONDS=1))
    token = person(client, own_directory, "acme-operator").json()["access_token"]
    own_directory.kill()
    assert knock(client, token, "operator").status_code == 200
    time.sleep(1.1)
    problem(knock(client, token, "operator"), 503, "unavailable")


def test_a_silent_directory_costs_a_bounded_time(
    start: Start, own_directory: DirectoryServer
) -> None:
    client = start(**at(own_directory, LDAP_CACHE_SECONDS=0, LDAP_TIMEOUT_SECONDS=1))
    token = person(client, own_directory, "acme-operator").json()["access_token"]
    own_directory.pause()
    try:
        for _ in range(2):
            started = time.monotonic()
            problem(knock(client, token, "operator"), 503, "unavailable")
            assert time.monotonic() - started < 4
        refused(person(client, own_directory, "acme-operator"), 503, "temporarily_unavailable")
    finally:
        own_directory.resume()
    assert knock(client, token, "operator").status_code == 200
