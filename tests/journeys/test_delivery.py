"""From the first byte to loaded rows, on the real Airflow, through the public doors alone."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from gateway.leases.resources.postgres import place_of
from tests.journeys import borrowing, browsing, client_side, views
from tests.journeys.borrowing import until
from tests.journeys.conftest import Stack

COLUMNS = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,"
    "flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour"
)


def flights(month: int, rows: int, *bad: str) -> str:
    lines = [COLUMNS]
    for n in range(rows):
        day, flight = n % 28 + 1, n // 28 + 1
        lines.append(
            f"2013,{month},{day},517,515,2,830,819,11,UA,{flight},N14228,EWR,IAH,227,1400,5,15,"
            f"2013-{month:02}-{day:02}T10:00:00Z"
        )
    return "\n".join([*lines, *bad]) + "\n"


BAD = "2013,13,1,517,515,2,830,819,11,UA,9000,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"


def zipped(path: Path, *months: tuple[int, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for month, text in months:
            archive.writestr(f"flights_2013_{month:02}.csv", text)
    return path


def job_of(stack: Stack, who: str, job: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(
        f"{stack['GATEWAY_URL']}/v1/jobs/{job}", headers=stack.sign_in(who)
    ).json()
    return found


def ended(stack: Stack, who: str, job: str) -> dict[str, Any]:
    headers = stack.sign_in(who)

    def look() -> dict[str, Any] | None:
        answer = httpx.get(f"{stack['GATEWAY_URL']}/v1/jobs/{job}", headers=headers).json()
        return answer if answer["finished_at"] else None

    found: dict[str, Any] = until(look)
    return found


def test_a_delivery_ends_as_curated_rows_with_its_rejects_named(
    stack: Stack, tmp_path: Path
) -> None:
    archive = zipped(tmp_path / "flights.zip", (1, flights(1, 500)), (2, flights(2, 500, BAD)))
    words = ["--project", "flights", "--reference", "journey", "--follow", "--json"]
    sent = stack.send("ACME", "send", *words, str(archive))
    assert sent.returncode == 0, sent.stdout + sent.stderr
    result = json.loads(sent.stdout)
    job = result["job"]
    assert job["state"] == "partially_succeeded"
    assert job["rows"] == {"read": 1001, "loaded": 1000, "rejected": 1}
    assert [step["name"] for step in job["steps"]] == ["plan", "process", "publish"]
    assert {step["state"] for step in job["steps"]} == {"succeeded"}
    (reject,) = result["rejects"]
    assert reject["file"] == "flights.zip/flights_2013_02.csv"
    assert (reject["line"], reject["column"], reject["value"]) == (502, "month", "13")

    counted = stack.rows("acme", "flights", "flights", "select count(*), sum(distance) from t")
    assert counted == [[1000, 1_400_000]]
    verified = stack.send("ACME", "receipt", "verify", result["batch"], "--dir", str(tmp_path))
    assert verified.returncode == 0, verified.stdout + verified.stderr

    headers = stack.sign_in("ACME_OPERATOR")
    url = f"{stack['GATEWAY_URL']}/v1/batches/{result['batch']}/replays"
    replayed = httpx.post(url, json={"reason": "once more"}, headers=headers)
    assert replayed.status_code == 202, replayed.text
    again = ended(stack, "ACME_OPERATOR", replayed.json()["id"])
    assert again["rows"] == job["rows"]
    assert again["attempt"] == 2
    counted = stack.rows("acme", "flights", "flights", "select count(*), sum(distance) from t")
    assert counted == [[1000, 1_400_000]], "a replay replaces"
    here = f"_batch_id = '{result['batch']}'"
    counted_there = f"SELECT count(*), sum(distance)::int FROM flights.flights WHERE {here}"
    assert stack.client_rows("acme", counted_there) == [(1000, 1_400_000)]
    marked = f"SELECT attempt, rows->'flights' FROM flights._batches WHERE {here[1:]}"
    assert stack.client_rows("acme", marked) == [(2, 1000)]
    owned = (
        "SELECT tableowner FROM pg_tables WHERE schemaname = 'flights' AND tablename = 'flights'"
    )
    assert stack.client_rows("acme", owned) == [(place_of("acme"),)]
    asked = borrowing.leases(stack, job["id"])
    assert [(each["resource"], each["state"]) for each in asked] == [("postgres", "revoked")]

    admin = stack.sign_in("ADMIN")
    trail = httpx.get(f"{stack['GATEWAY_URL']}/v1/admin/audit?limit=200", headers=admin).json()
    done = [
        each["action"] for each in trail["items"] if each["subject"] in {job["id"], result["batch"]}
    ]
    assert {"batch.created", "file.received", "batch.sealed"} <= set(done)
    assert {"job.queued", "job.dispatched", "job.finished"} <= set(done)
    verdict = httpx.get(f"{stack['GATEWAY_URL']}/v1/admin/audit/verify", headers=admin).json()
    assert verdict["holds"], verdict


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("flights.zip", b"PK\x03\x04 this is no archive", "corrupt-archive"),
        ("flights_2013_01.csv", b"a,b\n1,2\n", "unknown-columns"),
    ],
)
def test_a_bad_delivery_fails_with_a_reason_its_sender_understands(
    stack: Stack, tmp_path: Path, name: str, content: bytes, code: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    words = ["--project", "flights", "--reference", f"bad-{code}", "--follow", "--json"]
    sent = stack.send("ACME", "send", *words, str(path))
    assert sent.returncode == 1, sent.stdout + sent.stderr
    job = json.loads(sent.stdout)["job"]
    assert job["state"] == "failed"
    assert job["rows"]["loaded"] == 0
    assert code in json.dumps(job), job


def test_a_seal_is_answered_while_airflow_is_away_and_its_job_waits_with_the_reason(
    stack: Stack, tmp_path: Path
) -> None:
    path = tmp_path / "flights_2013_03.csv"
    path.write_text(flights(3, 100))
    with stack.frozen("airflow-api"):
        sent = stack.send(
            "ACME", "send", "--project", "flights", "--reference", "away", "--json", str(path)
        )
        assert sent.returncode == 0, sent.stdout + sent.stderr
        job = json.loads(sent.stdout)["job"]["id"]

        def waiting() -> bool:
            found = job_of(stack, "ACME", job)
            assert found["state"] == "queued"
            return bool(found["waiting_reason"])

        until(waiting)
    assert ended(stack, "ACME", job)["state"] == "succeeded"


def test_people_see_in_airflow_what_is_theirs_and_nothing_else(stack: Stack) -> None:
    def signed_in(who: str) -> httpx.Client:
        form = {"username": stack[f"{who}_USER"], "password": stack[f"{who}_PASSWORD"]}
        answer = httpx.post(f"{stack['AIRFLOW_URL']}/auth/token", json=form)
        assert answer.status_code in {200, 201}, answer.text
        headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        return httpx.Client(base_url=stack["AIRFLOW_URL"], headers=headers)

    with (
        signed_in("ACME_OPERATOR") as person,
        signed_in("ACME_VIEWER") as viewer,
        signed_in("ADMIN") as admin,
    ):
        theirs = [each["dag_id"] for each in person.get("/api/v2/dags").json()["dags"]]
        every = [each["dag_id"] for each in admin.get("/api/v2/dags").json()["dags"]]
        assert theirs == ["acme__flights"]
        assert {"acme__flights", "globex__weather"} <= set(every)
        assert person.get("/api/v2/dags/globex__weather").status_code in {403, 404}
        # Who only looks starts nothing; nobody starts a run by a name of the gateway's.
        by_hand = {"logical_date": None}
        named = {**by_hand, "dag_run_id": "gw.job_" + "0" * 26}
        for who, body in ((viewer, by_hand), (viewer, named), (person, named)):
            refused = who.post("/api/v2/dags/acme__flights/dagRuns", json=body)
            assert refused.status_code == 403, refused.text


def test_a_person_signs_on_once_in_a_browser_and_out_of_everything(
    stack: Stack, tmp_path: Path
) -> None:
    path = tmp_path / "flights_2013_05.csv"
    path.write_text(flights(5, 500, BAD))
    words = ["send", "--project", "flights", "--reference", "walk", "--follow", str(path)]
    assert stack.send("ACME", *words).returncode == 0
    user, password = stack["ACME_OPERATOR_USER"], stack["ACME_OPERATOR_PASSWORD"]
    gateway, airflow = stack["GATEWAY_URL"], stack["AIRFLOW_URL"]
    with browsing.chromium() as program, browsing.page(program) as shown:
        shown.goto(f"{airflow}/dags")
        shown.get_by_role("heading", name="Sign in").wait_for()
        assert shown.url.startswith(f"{gateway}/v1/authorize?")
        browsing.sign_in(shown, user, "wrong")
        assert "not right" in shown.get_by_role("alert").inner_text()
        assert shown.get_by_label("User name").input_value() == user
        browsing.sign_in(shown, user, password)
        shown.get_by_text("Acme Air: flights").first.wait_for()
        assert shown.url.startswith(f"{airflow}/dags")
        assert "globex" not in shown.content()

        # In Airflow's own page: what was delivered, its rejects, its run, and back from there.
        views.walk(shown, airflow)

        # Airflow's own session is lost; the gateway's is not: nobody is asked again.
        shown.context.clear_cookies(name="_token")
        shown.goto(f"{airflow}/dags")
        shown.get_by_text("Acme Air: flights").first.wait_for()

        # Out at Airflow is out at the gateway.
        shown.goto(f"{airflow}/api/v2/auth/logout")
        shown.get_by_role("heading", name="You are signed out").wait_for()
        shown.get_by_role("link", name="Sign in again").click()
        browsing.sign_in(shown, user, password)
        shown.wait_for_url(f"{airflow}/**")

        # Out at the gateway is out at Airflow.
        other = shown.context.new_page()
        other.goto(f"{gateway}/sign-out")
        other.get_by_role("button", name="Sign out").click()
        other.get_by_role("heading", name="You are signed out").wait_for()
        assert until(lambda: shown.request.get(f"{airflow}/api/v2/dags").status == 401)

        # And without the gateway it is said plainly.
        # In a page of its own: the other one is on its way to the sign-in by itself.
        fresh = shown.context.new_page()
        with stack.frozen("gateway"):
            answer = fresh.goto(f"{airflow}/auth/login")
            assert answer is not None
            assert answer.status == 503
            assert "does not answer" in fresh.get_by_role("status").inner_text()


def test_a_new_key_is_taken_up_by_every_process_without_a_restart(stack: Stack) -> None:
    before = httpx.get(f"{stack['GATEWAY_URL']}/.well-known/jwks.json").json()["keys"]
    made = stack.operate("keys", "rotate", "--now")
    assert made.returncode == 0, made.stderr
    kid = made.stdout.split()[1]
    published = httpx.get(f"{stack['GATEWAY_URL']}/.well-known/jwks.json").json()["keys"]
    assert [key["kid"] for key in published] == [kid, *(key["kid"] for key in before)]
    token = stack.sign_in("ACME")["Authorization"].partition(" ")[2]
    assert jwt.get_unverified_header(token)["kid"] == kid
    form = {
        "username": stack["ACME_OPERATOR_USER"],
        "password": stack["ACME_OPERATOR_PASSWORD"],
    }
    # Airflow verifies what the new key signed: its key set was fetched anew.
    answer = httpx.post(f"{stack['AIRFLOW_URL']}/auth/token", json=form)
    assert answer.status_code == 201, answer.text


def test_a_task_is_lent_each_of_its_clients_connections_for_as_long_as_it_runs(
    stack: Stack, tmp_path: Path
) -> None:
    borrowing.onboard_probe(stack)
    path = tmp_path / "flights_2013_09.csv"
    path.write_text(flights(9, 10))
    job = borrowing.deliver(stack, path)
    found = borrowing.findings(stack, borrowing.OWN, f"gw.{job}")
    assert found["client_postgres"]["answer"] == 42
    assert found["client_postgres"]["role"].startswith("lea_")
    assert found["client_postgres"]["acts_as"].startswith("client_")
    assert found["client_landing"] == ["flights_2013_09.csv"]
    assert found["client_directory"] == 0
    others = {value for name, value in found.items() if name not in borrowing.USED}
    assert others == {"AirflowSecretsBackendAccessDenied"}, found

    def over() -> bool:
        lent = borrowing.leases(stack, job)
        return {each["state"] for each in lent} == {"revoked"} and len(lent) == 3

    ended(stack, "ACME_OPERATOR", job)
    until(over, seconds=15)
    (role,) = {
        each["id"] for each in borrowing.leases(stack, job) if each["resource"] == "postgres"
    }
    assert role == found["client_postgres"]["role"]

    # A run that has ended in the gateway gets nothing, though Airflow runs its task once more.
    with borrowing.airflow(stack) as admin:
        borrowing.rerun(admin, borrowing.OWN, f"gw.{job}")
        again = borrowing.findings(stack, borrowing.OWN, f"gw.{job}", tried=2)
        assert set(again.values()) == {"AirflowSecretsBackendAccessDenied"}, again


def test_a_dag_that_spoofs_a_client_is_lent_nothing(stack: Stack) -> None:
    with borrowing.airflow(stack) as admin:
        bait = {"connection_id": "everybodys", "conn_type": "generic", "host": "xq-bait"}
        assert admin.post("/api/v2/connections", json=bait).status_code < 300
        for dag_id, run_id in (
            (borrowing.SPOOF, "by-hand"),
            (borrowing.SPOOF, "gw.job_" + "0" * 26),
            (borrowing.OWN, "by-hand"),
        ):
            borrowing.run(admin, dag_id, run_id)
            found = borrowing.findings(stack, dag_id, run_id)
            assert set(found.values()) == {"AirflowSecretsBackendAccessDenied"}, (dag_id, found)


def test_a_clients_own_dag_delivers_on_its_schedule_and_sees_what_was_rejected(
    stack: Stack,
) -> None:
    with borrowing.airflow(stack) as admin:
        run = client_side.scheduled(admin)
        assert run.state() == "success", run.log()
        result, rejects = run.xcom("return_value"), run.xcom("rejects")
        assert result["state"] == "partially_succeeded"
        assert result["rows"] == {"read": 300, "loaded": 299, "rejected": 1}
        assert rejects["total"] == 1
        (reject,) = rejects["shown"]
        assert reject["file"].endswith("_LGA.csv")
        assert (reject["line"], reject["column"], reject["value"]) == (101, "month", "13")
        assert run.links()["Gateway job"].endswith(f"/auth/views/jobs/{result['job_id']}")
        assert run.xcom("receipt")["batch"] == result["batch_id"]
        assert {"running", "deferred", "success"} <= run.events()
        assert "1 row was rejected:" in run.log()
        assert "'13' breaks" in run.log("show_rejects")
    counted = (
        f"select count(*), count(distinct _file) from t where _batch_id = '{result['batch_id']}'"
    )
    assert stack.rows("acme", "flights", "flights", counted) == [[299, 3]]
