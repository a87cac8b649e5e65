"""The DAG factory: what it builds from a registry, and what its tasks do with a run."""

from __future__ import annotations

import copy
import io
import json
import logging
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException

ROOT = Path(__file__).parents[2]
FACTORY = ROOT / "airflow" / "dags" / "factory.py"
GOLDEN = ROOT / "airflow" / "contract"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "registry.json"
    path.write_bytes((GOLDEN / "registry.json").read_bytes())
    monkeypatch.setenv("INGEST_REGISTRY_PATH", str(path))
    return path


def entries(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["projects"]


def rewrite(path: Path, projects: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps({"version": 1, "projects": projects}))


def with_globex(path: Path) -> None:
    (acme,) = entries(path)
    changed = {"dag_id": "globex__orders", "client": "globex", "project": "orders"}
    rewrite(path, [acme, {**copy.deepcopy(acme), **changed, "pool": "client-globex"}])


def parse() -> dict[str, DAG]:
    """Parse the file as Airflow does, and give its DAGs."""
    names = runpy.run_path(str(FACTORY))
    return {name: dag for name, dag in names.items() if isinstance(dag, DAG)}


def test_a_project_becomes_a_dag_that_only_a_trigger_starts(registry: Path) -> None:
    (dag,) = parse().values()
    assert dag.dag_id == "acme__flights"
    assert dag.tags == {"client:acme"}
    assert dag.schedule is None
    assert dag.is_paused_upon_creation is False
    assert dag.catchup is False
    assert dag.max_active_runs == 16
    dag.validate()


def test_the_steps_follow_each_other_and_process_is_mapped(registry: Path) -> None:
    dag = parse()["acme__flights"]
    follows = {t.task_id: t.upstream_task_ids for t in dag.tasks}
    assert follows == {"plan": set(), "process": {"plan"}, "publish": {"process"}}
    assert [t.task_id for t in dag.tasks if t.is_mapped] == ["process"]
    assert "label" in dag.get_task("process").map_index_template


def test_a_project_on_spark_has_one_task_for_all_parts(registry: Path) -> None:
    (acme,) = entries(registry)
    rewrite(registry, [{**acme, "engine": "spark"}])
    dag = parse()["acme__flights"]
    follows = {t.task_id: t.upstream_task_ids for t in dag.tasks}
    assert follows == {"plan": set(), "process": {"plan"}, "publish": {"process"}}
    assert not any(t.is_mapped for t in dag.tasks)
    assert [(t.pool, t.retries) for t in dag.tasks] == [("client-acme", 6)] * 3


def test_every_task_runs_in_the_pool_of_its_client_and_outlasts_a_platform_that_is_away(
    registry: Path,
) -> None:
    with_globex(registry)
    for dag, pool in zip(parse().values(), ("client-acme", "client-globex"), strict=True):
        assert [(t.pool, t.retries) for t in dag.tasks] == [(pool, 6)] * 3


def test_parsing_imports_neither_the_pipeline_nor_what_it_needs(registry: Path) -> None:
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_heavy(name)}
    try:
        parse()
        assert [name for name in sys.modules if _is_heavy(name)] == []
    finally:
        sys.modules.update(before)


def _is_heavy(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] in ("pipeline", "deltalake", "duckdb")


def test_a_worker_builds_only_the_dag_it_needs(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_globex(registry)
    assert list(parse()) == ["acme__flights", "globex__orders"]
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "globex__orders")
    assert list(parse()) == ["globex__orders"]


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"[]", b'{"version": 2, "projects": []}', b'{"version": 1}']
)
def test_a_registry_that_cannot_be_read_is_one_clear_import_error(
    registry: Path, content: bytes | None
) -> None:
    registry.unlink()
    if content is not None:
        registry.write_bytes(content)
    with pytest.raises(Exception, match="the registry") as failure:
        parse()
    assert type(failure.value).__name__ == "RegistryError"


def test_no_registry_named_is_one_clear_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INGEST_REGISTRY_PATH", raising=False)
    with pytest.raises(Exception, match="INGEST_REGISTRY_PATH is not set"):
        parse()


@pytest.mark.parametrize(
    "change",
    [
        {"dag_id": "globex__flights"},
        {"client": "../acme"},
        {"pool": ""},
        {"contract": None},
        {"on_reject": []},
        {"engine": 1},
        {"engine": "abacus"},
        {"load": None},
    ],
)
def test_an_entry_without_sense_is_left_out_and_the_others_stay(
    registry: Path, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with_globex(registry)
    acme, globex = entries(registry)
    rewrite(registry, [{**acme, **change}, globex])
    assert list(parse()) == ["globex__orders"]
    assert "registry entry left out" in caplog.text


def test_an_empty_registry_gives_no_dags(registry: Path) -> None:
    rewrite(registry, [])
    assert parse() == {}


def context(conf: Any, *, dag_id: str = "acme__flights", run_id: str | None = None) -> Any:
    run_id = run_id or f"gw.{json.loads((GOLDEN / 'dag_run_conf.json').read_text())['job_id']}"
    instance = SimpleNamespace(
        dag_id=dag_id, run_id=run_id, task_id="plan", map_index=-1, try_number=1, max_tries=2
    )
    return {"ti": instance, "dag_run": SimpleNamespace(conf=conf)}


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("landing", "staged", "curated"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"INGEST_{name.upper()}_DIR", str(tmp_path / name))
    (tmp_path / "password").write_text("x")
    monkeypatch.setenv("INGEST_GATEWAY_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("INGEST_GATEWAY_USER", "svc-airflow")
    monkeypatch.setenv("INGEST_GATEWAY_PASSWORD_FILE", str(tmp_path / "password"))
    return tmp_path


@pytest.mark.parametrize("step", ["plan", "process", "publish"])
def test_a_run_with_another_clients_conf_fails_for_good(
    registry: Path, roots: Path, step: str
) -> None:
    run_step = runpy.run_path(str(FACTORY))["run_step"]
    (entry,) = entries(registry)
    conf = {**json.loads((GOLDEN / "dag_run_conf.json").read_text()), "client": "globex"}
    more = [{"index": 0, "total": 1, "label": "a"}] if step == "process" else []
    with pytest.raises(AirflowFailException, match="another client"):
        run_step(step, entry, context(conf), *more)
    assert list((roots / "staged").iterdir()) == []


def test_a_run_that_the_gateway_did_not_start_fails_for_good(registry: Path, roots: Path) -> None:
    run_step = runpy.run_path(str(FACTORY))["run_step"]
    (entry,) = entries(registry)
    conf = json.loads((GOLDEN / "dag_run_conf.json").read_text())
    with pytest.raises(AirflowFailException, match="started by hand"):
        run_step("plan", entry, context(conf, run_id="manual__1"))
    with pytest.raises(AirflowFailException, match="conf must hold"):
        run_step("plan", entry, context({}))
    with pytest.raises(AirflowFailException, match="registry entry"):
        run_step("plan", entry, context(conf, dag_id="globex__orders"))


def test_what_the_pipeline_says_is_in_the_log_of_a_platform_that_logs_warnings_only(
    registry: Path, roots: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    run_step = runpy.run_path(str(FACTORY))["run_step"]
    (entry,) = entries(registry)
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        with pytest.raises(AirflowFailException):
            run_step("plan", entry, context({}))
        logging.getLogger("pipeline").info("the plan")
        logging.getLogger("another").info("chatter")
    finally:
        logging.getLogger().removeHandler(handler)
    assert said.getvalue() == "the plan\n"


def test_a_gateway_that_is_away_is_no_reason_to_give_up(registry: Path, roots: Path) -> None:
    run_step = runpy.run_path(str(FACTORY))["run_step"]
    (entry,) = entries(registry)
    conf = json.loads((GOLDEN / "dag_run_conf.json").read_text())
    with pytest.raises(Exception, match="refused") as failure:
        run_step("plan", entry, context(conf))
    assert not isinstance(failure.value, AirflowFailException)


def test_only_a_project_that_says_so_is_published_with_its_clients_database(
    registry: Path,
) -> None:
    (entry,) = entries(registry)
    rewrite(registry, [{name: value for name, value in entry.items() if name != "load"}])
    names = runpy.run_path(str(FACTORY))
    (older,) = names["read_registry"](registry)
    assert isinstance(names["acme__flights"], DAG)
    for each in (older, {**entry, "load": {"postgres": False}}):
        assert names["database_of"](each) is None
    assert names["database_of"](entry) is names["client_database"]


def test_the_clients_database_is_what_the_gateway_lends_in_that_moment(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.errors import platform_failure

    client_database = runpy.run_path(str(FACTORY))["client_database"]
    with pytest.raises(Exception, match="no access") as failure:
        client_database()
    assert platform_failure(failure.value)[0] == "database-unavailable"
    lease = json.loads((GOLDEN / "lease.json").read_text())["postgres"]
    del lease["lease_id"], lease["expires_at"]
    monkeypatch.setenv("AIRFLOW_CONN_CLIENT_POSTGRES", json.dumps(lease))
    place = client_database()
    assert (place.host, place.port, place.user) == (lease["host"], lease["port"], lease["login"])
    assert (place.database, place.password) == (lease["schema"], lease["password"])
    assert place.more == lease["extra"]
    assert lease["password"] not in repr(place)
