from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from gateway.events import feed
from tests import factories

Headers = dict[str, str]


@pytest.fixture(autouse=True)
def events(sessions: sessionmaker[Session]) -> None:
    factories.onboard_two(sessions)
    with sessions.begin() as session:
        for number in range(1, 6):
            data = {"number": number}
            feed.publish(session, client="acme", type="file.received", subject="x", data=data)
        feed.publish(session, client="globex", type="job.queued", subject="theirs", data={})


@pytest.fixture
def acme(bearer: Callable[[str], Headers]) -> Headers:
    return bearer("acme-viewer")


def test_the_feed_is_in_order_and_goes_on_where_it_ended(client: TestClient, acme: Headers) -> None:
    seen: list[int] = []
    after = "0"
    while True:
        page = client.get(f"/v1/events?limit=2&after={after}", headers=acme).json()
        if not page["items"]:
            break
        seen += [each["data"]["number"] for each in page["items"]]
        after = page["next"]
    assert seen == [1, 2, 3, 4, 5]
    assert page["next"] == after


def test_the_feed_goes_on_after_an_events_id(client: TestClient, acme: Headers) -> None:
    items = client.get("/v1/events", headers=acme).json()["items"]
    found = client.get(f"/v1/events?after={items[2]['id']}", headers=acme).json()["items"]
    assert found == items[3:]


def test_nobody_sees_another_clients_events(
    client: TestClient, acme: Headers, bearer: Callable[[str], Headers]
) -> None:
    theirs = bearer("globex-uploader")
    [event] = client.get("/v1/events", headers=theirs).json()["items"]
    assert event["subject"] == "theirs"
    subjects = {each["subject"] for each in client.get("/v1/events", headers=acme).json()["items"]}
    assert subjects == {"x"}
    answer = client.get(f"/v1/events?after={event['id']}", headers=acme)
    assert answer.status_code == 422


@pytest.mark.parametrize("after", ["x", "-1", "evt_x", "1.5", "9" * 41, "%00"])
def test_what_names_no_event_is_refused(client: TestClient, acme: Headers, after: str) -> None:
    answer = client.get(f"/v1/events?after={after}", headers=acme)
    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/invalid-request"


def test_the_feed_is_for_readers_of_a_client(
    client: TestClient, bearer: Callable[[str], Headers]
) -> None:
    assert client.get("/v1/events").status_code == 401
    assert client.get("/v1/events", headers=bearer("admin")).status_code == 403
    assert client.get("/v1/events", headers=bearer("svc-airflow")).status_code == 403
