"""The client's DAG: what it exports, and that it is the client's alone."""

from __future__ import annotations

import csv
import importlib.util
import io
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
from airflow.sdk import DAG
from airflow.utils.file import list_py_file_paths

ROOT = Path(__file__).parents[2]
DAGS = ROOT / "airflow" / "dags"
DAY = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.fixture(scope="module")
def client_side() -> ModuleType:
    spec = importlib.util.spec_from_file_location("client_side", DAGS / "client_side.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_platform_reads_only_its_own_dags() -> None:
    assert [Path(each).name for each in list_py_file_paths(DAGS)] == ["factory.py"]


def test_the_dag_exports_delivers_and_shows_on_a_schedule(client_side: ModuleType) -> None:
    dag: DAG = client_side.dag
    assert set(dag.task_ids) == {"export", "deliver", "show_rejects", "tidy"}
    deliver = dag.get_task("deliver")
    assert deliver.upstream_task_ids == {"export"}
    assert deliver.downstream_task_ids == {"show_rejects", "tidy"}
    assert deliver.deferrable
    assert not dag.catchup


def test_a_day_is_exported_as_the_same_bytes_each_time(
    client_side: ModuleType, tmp_path: Path
) -> None:
    for name in ("one.zip", "two.zip"):
        client_side.export_day(DAY, tmp_path / name, rows=50, faulty=2)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_as_many_rows_are_wrong_as_were_asked_for(client_side: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "day.zip"
    client_side.export_day(DAY, path, rows=20, faulty=2)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        texts = [archive.read(name).decode() for name in names]
    assert names == [f"flights_2026_01_31_{airport}.csv" for airport in client_side.AIRPORTS]
    rows = [row for text in texts for row in csv.DictReader(io.StringIO(text))]
    assert len(rows) == 60
    assert sum(row["month"] == "13" for row in rows) == 2
    assert {row["year"] for row in rows} == {"2026"}
