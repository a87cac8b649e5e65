"""The scheduler tells the gateway of runs, and is never kept waiting by it."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ingest import listener
from ingest.news import MOST_WAITING, News, Teller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GOLDEN = Path(__file__).parents[2] / "airflow" / "contract" / "run_news.json"


class Ear:
    """A loopback gateway that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.tokens = 0
        self.refused = 0
        self.url = ""
        self.is_open = threading.Event()
        self.is_open.set()

    def answer(self, path: str, authorization: str, body: bytes) -> tuple[int, dict[str, Any]]:
        self.is_open.wait(10)
        if path == "/v1/token":
            self.tokens += 1
            return 200, {"access_token": f"token-{self.tokens}", "expires_in": 900}
        if self.refused and authorization == "Bearer token-1":
            self.refused -= 1
            return 401, {}
        self.told.append((path, json.loads(body)))
        return 202, {}


@contextmanager
def listening(ear: Ear) -> Iterator[Ear]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status, said = ear.answer(self.path, self.headers.get("authorization", ""), body)
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ear.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield ear
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def ear() -> Iterator[Ear]:
    with listening(Ear()) as found:
        yield found


@pytest.fixture
def teller(ear: Ear, tmp_path: Path) -> Teller:
    (tmp_path / "password").write_text("secret\n")
    return Teller(ear.url, "svc-airflow", str(tmp_path / "password"))


def until(check: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_agreed_news_arrive_with_one_token(ear: Ear, teller: Teller) -> None:
    golden = json.loads(GOLDEN.read_text())
    for _ in range(3):
        teller.tell(News(**golden))
    until(lambda: len(ear.told) == 3)
    job = golden["run_id"].removeprefix("gw.")
    assert ear.told == [(f"/v1/jobs/{job}/run", golden)] * 3
    assert ear.tokens == 1


def test_a_token_that_is_no_longer_good_is_replaced(ear: Ear, teller: Teller) -> None:
    ear.refused = 1
    teller.tell(News("acme__flights", "gw.job_1", "running"))
    until(lambda: ear.told)
    assert ear.tokens == 2


def test_runs_that_are_not_the_gateways_are_nobodys_business(ear: Ear, teller: Teller) -> None:
    teller.tell(News("other", "manual__2026-01-01", "success"))
    teller.tell(News("acme__flights", "gw.job_1", "success"))
    until(lambda: ear.told)
    assert [path for path, _ in ear.told] == ["/v1/jobs/job_1/run"]


def test_a_gateway_that_does_not_answer_keeps_nobody_waiting(ear: Ear, teller: Teller) -> None:
    ear.is_open.clear()
    began = time.monotonic()
    for number in range(2 * MOST_WAITING):
        teller.tell(News("acme__flights", f"gw.job_{number}", "running"))
    assert time.monotonic() - began < 1
    ear.is_open.set()
    until(lambda: ear.told)


def test_a_gateway_that_is_away_is_told_the_next_news(
    ear: Ear, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.news.PAUSE_SECONDS", 0)
    teller.tell(News("acme__flights", "gw.job_1", "running"))
    until(lambda: ear.told)
    password = teller._account[1]
    password.unlink()
    teller._bearer.forget()
    teller.tell(News("acme__flights", "gw.job_2", "running"))
    time.sleep(0.1)
    password.write_text("secret")
    teller.tell(News("acme__flights", "gw.job_3", "running"))
    until(lambda: len(ear.told) == 2)
    assert ear.told[-1][0] == "/v1/jobs/job_3/run"


def test_a_forked_process_tells_by_itself(ear: Ear, teller: Teller) -> None:
    teller.tell(News("acme__flights", "gw.job_1", "running"))
    until(lambda: ear.told)
    child = os.fork()
    if child == 0:
        teller.tell(News("acme__flights", "gw.job_2", "success"))
        time.sleep(2)
        os._exit(0)
    until(lambda: len(ear.told) == 2)
    os.kill(child, 9)
    os.waitpid(child, 0)


def test_airflow_calls_the_listener_and_nothing_of_it_fails_without_an_account(
    ear: Ear, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.listeners.listener import ListenerManager
    from airflow.listeners.spec import dagrun
    from airflow.models.dagrun import DagRun

    manager = ListenerManager()
    manager.add_hookspecs(dagrun)
    manager.add_listener(listener)
    run = DagRun(dag_id="acme__flights", run_id="gw.job_1")
    monkeypatch.setattr(listener, "_teller", lambda: None)
    manager.hook.on_dag_run_success(dag_run=run, msg="")
    monkeypatch.setattr(listener, "_teller", lambda: teller)
    manager.hook.on_dag_run_running(dag_run=run, msg="started")
    manager.hook.on_dag_run_success(dag_run=run, msg="success")
    manager.hook.on_dag_run_failed(dag_run=run, msg="task_failure")
    until(lambda: len(ear.told) == 3)
    assert [body["state"] for _, body in ear.told] == ["running", "success", "failed"]
