"""The views inside Airflow: who sees what, as whom it is asked for, and what is never shown."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import airflow
from ingest import view_api
from tests.auth_manager.gateway_fake import Account
from tests.auth_manager.view_fake import (
    ACME_BATCH,
    ACME_JOB,
    GLOBEX_BATCH,
    GLOBEX_JOB,
    GOLDEN,
    NO_BATCH,
    NO_JOB,
    Shown,
)
from tests.auth_manager.world import FLIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from httpx import Response

    from tests.auth_manager.world import World

VIEWS = "/auth/views"
DELIVERY, JOB = f"/deliveries/{ACME_BATCH}", f"/jobs/{ACME_JOB}"
ADMINS = ("/gateway", "/gateway/jobs", "/gateway/leases", "/audit")
EVERY = ("/deliveries", DELIVERY, JOB, *ADMINS)
SERVICES = ("trigger", "cancel", "watcher", "pools")


@pytest.fixture(autouse=True)
def nothing_changed(world: World) -> Iterator[None]:
    world.gateway.shown = Shown()
    yield
    world.gateway.fault = None
    world.gateway.shown = Shown()
    world.app.state.auth_manager.__dict__.pop("_standing", None)


def look(world: World, who: str, path: str, **options: Any) -> Response:
    """Open a view as one of the golden kinds, as the other client's person, or as nobody."""
    if who == "nobody":
        return world.call("GET", VIEWS + path, None, **options)
    other = {"client": "globex", "sub": "globex-operator"}
    token = world.gateway.token("viewer", **other) if who == "other" else world.gateway.token(who)
    return world.call("GET", VIEWS + path, token, **options)


def expected(who: str, path: str) -> int:
    if who == "nobody":
        return 401
    if who in SERVICES:
        return 403
    if who == "admin":
        return 200 if path in {JOB, *ADMINS} else 403
    if path in ADMINS:
        return 403
    return 404 if who == "other" and path != "/deliveries" else 200


@pytest.mark.parametrize("who", ["viewer", "other", "admin", "nobody", *SERVICES])
def test_each_sees_the_views_that_are_theirs(world: World, who: str) -> None:
    for path in EVERY:
        answer = look(world, who, path)
        assert answer.status_code == expected(who, path), (path, answer.text)
        assert answer.headers["content-type"].startswith("text/html")
        if who == "viewer":
            assert "globex" not in answer.text, path
        elif who != "admin":
            assert "flights" not in answer.text, path
        if who in {"nobody", *SERVICES}:
            assert not world.gateway.shown.asked, path


def test_an_auditor_sees_the_audit_trail_and_nothing_else(world: World) -> None:
    for path in EVERY:
        assert look(world, "auditor", path).status_code == (200 if path == "/audit" else 403), path


def test_anothers_object_answers_exactly_as_an_absent_one(world: World) -> None:
    for path, foreign, absent in (
        ("/deliveries/", GLOBEX_BATCH, NO_BATCH),
        ("/jobs/", GLOBEX_JOB, NO_JOB),
        ("/deliveries/", GLOBEX_BATCH, "bat_' or 1=1"),
        ("/jobs/", GLOBEX_JOB, "x" * 300),
    ):
        theirs, nobodys = (look(world, "viewer", path + each) for each in (foreign, absent))
        assert (theirs.status_code, theirs.text) == (404, nobodys.text)
        kept = [{**answer.headers, "date": ""} for answer in (theirs, nobodys)]
        assert kept[0] == kept[1]


def test_a_delivery_shows_its_files_jobs_and_rejects(world: World) -> None:
    page = look(world, "viewer", DELIVERY).text
    for said in ("2013", "station 7", "flights_2013_01.csv", "1.0 MB", "dag paused", "81,012"):
        assert said in page, said
    run = f"/dags/{FLIGHTS}/runs/gw.{ACME_JOB}"
    assert f'href="{run}" target="_top"' in page
    page = look(world, "viewer", JOB).text
    for said in ("502", "month", "maximum", "13", "3 of 12", f"{VIEWS}{DELIVERY}", run):
        assert said in page, said
    for said in (
        "1 file in 12 chunks for 12 tasks",
        "utf-8",
        "26.1 MB",
        "16 gone",
        "81,011 loaded",
    ):
        assert said in page, said
    page = look(world, "admin", JOB).text
    for said in ("1 file in 12 chunks for 12 tasks", "16 gone"):
        assert said in page, said


def test_the_gateway_shows_what_wants_looking_after(world: World) -> None:
    page = look(world, "admin", "/gateway").text
    for said in ("Acme Air", "unavailable", "irrevocable", "dag paused", "the server is away"):
        assert said in page, said
    states = [query.get("state") for path, query in world.gateway.shown.asked if "jobs" in path]
    assert states == ["blocked", "queued"]


def test_filters_and_positions_are_the_gateways(world: World) -> None:
    world.gateway.shown.following = "MTo3"
    query = {"state": "sealed", "project": "flights", "reference": "a&b", "cursor": "MTo5"}
    page = look(world, "viewer", "/deliveries", params=query).text
    assert world.gateway.shown.asked[-1] == ("/v1/batches", {**query, "limit": "50"})
    assert "cursor=MTo3" in page
    assert "reference=a%26b" in page
    assert '<option value="sealed" selected>' in page


# With whose rights the gateway is asked.


@pytest.mark.parametrize(
    ("who", "path", "scope"),
    [
        ("viewer", "/deliveries", "batches:read"),
        ("viewer", DELIVERY, "batches:read"),
        ("admin", "/gateway", "admin:read"),
        ("admin", "/audit", "admin:read"),
        ("admin", JOB, "admin:read"),
    ],
)
def test_the_gateway_is_asked_as_the_viewer_and_for_looking_only(
    world: World, who: str, path: str, scope: str
) -> None:
    del world.gateway.asked[:]
    look(world, who, path)
    (form,) = [form for asked, form in world.gateway.asked if asked == "/v1/token"]
    golden = GOLDEN["exchange"]["form"]
    assert form == {**golden, "subject_token": form["subject_token"], "scope": scope}
    assert form["subject_token"] in world.gateway.sessions


def test_rights_that_were_lost_at_the_gateway_are_lost_here(world: World) -> None:
    token = world.gateway.token("admin")
    assert world.call("GET", f"{VIEWS}/gateway", token).status_code == 200
    session = next(reversed(world.gateway.sessions))
    world.gateway.scopes[session] = "batches:read"
    world.app.state.auth_manager.__dict__.pop("_standing", None)
    assert world.call("GET", f"{VIEWS}/gateway", token).status_code == 401
    world.gateway.ended.add(session)
    world.app.state.auth_manager.__dict__.pop("_standing", None)
    assert world.call("GET", f"{VIEWS}/gateway", token).status_code == 401


def test_a_scripts_session_has_no_page(world: World) -> None:
    world.gateway.accounts = {"acme-operator": Account("right", {"sub": "acme-operator"})}
    login = {"username": "acme-operator", "password": "right"}
    token = world.call("POST", "/auth/token", None, json=login).json()["access_token"]
    assert world.call("GET", "/api/v2/dags", token).status_code == 200
    answer = world.call("GET", f"{VIEWS}/deliveries", token)
    assert answer.status_code == 403
    assert "not for you" in answer.text


# What is away or makes no sense.

AWAY = {
    "away": (503, {}, b'{"type": "/problems/unavailable"}'),
    "html": (200, {}, b"<html>hello</html>"),
    "a list": (200, {}, b"[]"),
    "nothing in it": (200, {}, b"{}"),
    "a wrong secret": (401, {}, b'{"error": "invalid_client"}'),
    "a redirect": (307, {"Location": "http://127.0.0.1:9/"}, b"{}"),
}


@pytest.mark.parametrize("fault", AWAY.values(), ids=AWAY.keys())
def test_without_the_gateway_the_page_says_so_and_nothing_else_breaks(
    world: World, fault: tuple[int, dict[str, str], bytes]
) -> None:
    token = world.gateway.token("viewer")
    assert world.call("GET", "/api/v2/dags", token).status_code == 200
    world.gateway.fault = fault
    answer = world.call("GET", f"{VIEWS}/deliveries", token)
    assert answer.status_code in {307, 503}, answer.text
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert "does not answer at the moment" in answer.text
    assert world.call("GET", "/api/v2/dags", token).status_code == 200
    assert world.call("GET", "/ui/auth/menus", token).status_code == 200


def test_an_answer_that_is_cut_off_shows_what_came(world: World) -> None:
    value = "v" * 1000
    rejected = [{**GOLDEN["reject"], "value": value} for _ in range(2000)]
    world.gateway.shown.rejects = rejected
    page = look(world, "viewer", JOB).text
    assert page.count(value) == view_api.REJECTS_SHOWN
    assert "These are the first 500." in page
    world.gateway.shown.rejects = []
    assert "No row was rejected" in look(world, "viewer", JOB).text


def test_long_lists_of_files_come_in_pages(world: World) -> None:
    file = GOLDEN["batch"]["files"][0]
    files = [{**file, "name": f"part-{number:05}.csv"} for number in range(450)]
    world.gateway.shown.batches["acme"]["files"] = files
    page = look(world, "viewer", f"{DELIVERY}?files=200").text
    assert page.count("part-") == 200
    assert '"?files=0"' in page
    assert '"?files=400"' in page
    for wrong in ("-1", "x", "9" * 30):
        assert look(world, "viewer", f"{DELIVERY}?files={wrong}").status_code == 400


# What names may not do.

HOSTILE = "\"><img src=x onerror=alert(1)><script>alert(2)</script>' onload=x {{7*7}} javascript:x"


class Tags(HTMLParser):
    """Collects what a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_harmless(text: str) -> None:
    for tag, attributes in Tags(text).found:
        assert tag not in {"img", "iframe", "object", "style", "base"}, tag
        assert not any(name.startswith("on") or name == "style" for name in attributes), attributes
        for name in ("href", "src", "action"):
            address = attributes.get(name, "/") or "/"
            assert address[0] in "/?", address
            assert not address.startswith("//"), address
        if tag == "script":
            assert (attributes.get("src") or "").startswith(f"{VIEWS}/static/")
    assert "49" not in text.replace("{{7*7}}", "")


def test_names_are_shown_and_do_nothing(world: World) -> None:
    shown = world.gateway.shown
    batch = shown.batches["acme"]
    (job,), (file,) = batch["jobs"], batch["files"]
    batch.update(reference=HOSTILE, created_by=HOSTILE, metadata={HOSTILE: [HOSTILE]})
    batch.update(period={"start": HOSTILE, "end": HOSTILE}, supersedes=HOSTILE)
    file.update(name=HOSTILE, sha256=HOSTILE, state=HOSTILE)
    job.update(waiting_reason=HOSTILE, error={"code": HOSTILE, "detail": HOSTILE}, cause=HOSTILE)
    job["steps"][0].update(name=HOSTILE, state=HOSTILE)
    job["plan"]["files"][0].update(
        dict.fromkeys(("file", "format", "encoding", "delimiter", "refusal"), HOSTILE), table=None
    )
    job["changes"].update(earlier_job=HOSTILE)
    job["changes"]["files"][0].update(file=HOSTILE)
    shown.rejects = [dict.fromkeys(("file", "column", "rule", "value"), HOSTILE) | {"line": None}]
    query = dict.fromkeys(("state", "project", "reference", "cursor"), HOSTILE)
    pages = [
        look(world, "viewer", "/deliveries", params=query),
        look(world, "viewer", DELIVERY),
        look(world, "viewer", JOB),
        *(look(world, "admin", path) for path in (*ADMINS, JOB)),
        look(world, "admin", "/audit", params=dict.fromkeys(("actor", "subject"), HOSTILE)),
    ]
    for page in pages:
        assert page.status_code == 200, page.text
        assert_harmless(page.text)
    assert sum("onerror=alert" in page.text for page in pages) >= 5, "they are shown"
    anonymous = look(world, "nobody", "/deliveries", params=query)
    assert anonymous.status_code == 401
    assert_harmless(anonymous.text)


@pytest.mark.parametrize("who", ["viewer", "nobody"])
def test_pages_load_nothing_are_kept_nowhere_and_framed_by_airflow_alone(
    world: World, who: str
) -> None:
    headers = look(world, who, "/deliveries").headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'self'" in policy
    assert "unsafe" not in policy
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "SAMEORIGIN"


def test_views_are_for_looking_only(world: World) -> None:
    token = world.gateway.token("viewer")
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in EVERY:
            assert world.call(method, VIEWS + path, token).status_code == 405


def test_what_lies_beside_the_pages_can_be_kept_and_nothing_else_lies_there(world: World) -> None:
    page = look(world, "viewer", "/deliveries").text
    addresses = [each["href"] for tag, each in Tags(page).found if tag == "link"]
    addresses += [each["src"] for tag, each in Tags(page).found if tag == "script"]
    assert len(addresses) == 2
    for address in addresses:
        answer = world.call("GET", str(address), None)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    for name in ("views.css", "view.html", "..%2fviews.css", "x.css"):
        assert world.call("GET", f"{VIEWS}/static/{name}", None).status_code == 404


# Where they are shown.


@pytest.mark.parametrize(
    ("who", "items"), [("viewer", ["Deliveries"]), ("admin", ["Gateway", "Audit"])]
)
def test_the_menu_has_what_its_reader_may_see(world: World, who: str, items: list[str]) -> None:
    found = world.as_kind(who, "GET", "/ui/auth/menus").json()["extra_menu_items"]
    assert [each["text"] for each in found] == items
    for each in found:
        # Airflow's frame takes no other addresses.
        assert each["href"].startswith("/auth/")
        assert world.as_kind(who, "GET", each["href"]).status_code == 200


def test_the_menu_calls_them_by_their_names_in_every_language(world: World) -> None:
    for language in ("en", "de", "ar", "zh-CN"):
        path = f"/static/i18n/locales/{language}/common.json"
        words = world.call("GET", path, None).json()
        assert words["security"]["deliveries"] == "Deliveries"
        assert words["nav"]["security"] == "Gateway"
        kept = json.loads((Path(str(airflow.__file__)).parent / "ui/dist" / path[8:]).read_text())
        assert words.keys() == kept.keys()
        assert words["nav"].keys() == kept["nav"].keys()
    path = "/static/i18n/locales/en/dags.json"
    plain = Path(str(airflow.__file__)).parent / "ui/dist" / path[8:]
    assert world.call("GET", path, None).content == plain.read_bytes()
    for absent in ("/xx/common.json", "/../common.json", "/%2e%2e/%2e%2e/index.html"):
        answer = world.call("GET", f"/static/i18n/locales{absent}", None)
        assert "security" not in answer.text


@pytest.mark.parametrize(
    ("who", "path", "item"),
    [
        ("viewer", "/deliveries?state=open", "deliveries"),
        ("viewer", JOB, "deliveries"),
        ("admin", JOB, "gateway"),
        ("admin", "/audit", "audit"),
    ],
)
def test_a_view_that_is_opened_by_itself_is_led_into_airflows_page(
    world: World, who: str, path: str, item: str
) -> None:
    token = world.gateway.token(who)
    world.http.cookies.clear()
    headers = {"Authorization": f"Bearer {token}", "Sec-Fetch-Dest": "document"}
    answer = world.http.get(VIEWS + path, headers=headers)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/security/{item}{VIEWS}{path}"


def test_a_task_leads_to_its_delivery(world: World) -> None:
    runs = f"/api/v2/dags/{FLIGHTS}/dagRuns"
    for run_id, link in ((f"gw.{ACME_JOB}", f"{VIEWS}{JOB}"), ("by-hand", None)):
        body = {"dag_run_id": run_id, "logical_date": None}
        assert world.as_kind("admin", "POST", runs, json=body).status_code == 200
        tasks = world.as_kind("viewer", "GET", f"{runs}/{run_id}/taskInstances").json()
        task = tasks["task_instances"][0]["task_id"]
        path = f"{runs}/{run_id}/taskInstances/{task}/links"
        assert world.as_kind("viewer", "GET", path).json()["extra_links"] == {"Delivery": link}
