"""A landing zone, staged and curated directories, and a gateway to report to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from pipeline import report, tasks
from pipeline.tasks import TaskRun
from tests.pipeline import database
from tests.pipeline.gateway_fake import PASSWORD, USER, GatewayFake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.postgres_session import Place

GOLDEN = Path(__file__).parents[2] / "airflow" / "contract"
FLIGHTS = [
    {"name": "flight", "logicalType": "integer", "required": True},
    {"name": "carrier", "logicalType": "string", "logicalTypeOptions": {"maxLength": 2}},
    {"name": "delay", "logicalType": "number"},
]


def contract(*tables: dict[str, Any]) -> dict[str, Any]:
    """Make a contract of tables."""
    head = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "c", "version": "1.0.0"}
    return {**head, "status": "active", "schema": list(tables)}


@dataclass
class Stage:
    """Everything a job touches, and the three steps in a row."""

    root: Path
    gateway: GatewayFake
    properties: list[dict[str, Any]] = field(default_factory=lambda: list(FLIGHTS))
    tables: list[dict[str, Any]] | None = None
    on_reject: dict[str, Any] = field(
        default_factory=lambda: {"policy": "reject-rows", "max_rows": 1000, "max_percent": 100}
    )
    database: Callable[[], Place] | None = None

    @property
    def entry(self) -> dict[str, Any]:
        golden = json.loads((GOLDEN / "registry.json").read_text())["projects"][0]
        tables = self.tables or [{"name": "flights", "properties": self.properties}]
        return {**golden, "contract": contract(*tables), "on_reject": self.on_reject}

    def batch_dir(self, batch: str) -> Path:
        return self.root / "landing" / "acme" / "flights" / batch

    def land(self, files: dict[str, bytes], *, batch: int = 1, **manifest: Any) -> str:
        """Seal a batch of files."""
        batch_id = f"bat_{batch:026d}"
        directory = self.batch_dir(batch_id)
        (directory / "files").mkdir(parents=True)
        for name, content in files.items():
            (directory / "files" / name).write_bytes(content)
        golden = json.loads((GOLDEN / "manifest.json").read_text())
        listed = [
            {"name": n, "sha256": hashlib.sha256(c).hexdigest(), "size_bytes": len(c)}
            for n, c in files.items()
        ]
        document = {**golden, "batch": batch_id, "files": listed, **manifest}
        content = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        (directory / "manifest.json").write_bytes(content)
        (directory / "receipt.jws").write_bytes(self.gateway.sign(content))
        return batch_id

    def conf(self, batch_id: str, attempt: int = 1) -> dict[str, Any]:
        job_id = f"job_{batch_id[12:]}{attempt:08d}"
        golden = json.loads((GOLDEN / "dag_run_conf.json").read_text())
        return {**golden, "job_id": job_id, "batch_id": batch_id, "attempt": attempt}

    def run(self, batch_id: str, attempt: int = 1) -> dict[str, int]:
        """Run plan, process and publish, as the DAG does."""
        self.gateway.reports.clear()
        conf = self.conf(batch_id, attempt)
        parts = tasks.plan(self.entry, conf, self.task("plan", conf))
        for i, part in enumerate(parts):
            tasks.process(self.entry, conf, self.task("process", conf, i), part)
        return tasks.publish(self.entry, conf, self.task("publish", conf), self.database)

    def task(self, name: str, conf: dict[str, Any], index: int = -1) -> TaskRun:
        return TaskRun("acme__flights", f"gw.{conf['job_id']}", name, index, 1)

    def load(self, files: dict[str, bytes], **options: Any) -> dict[str, int]:
        return self.run(self.land(files, **options))

    def curated(self, table: str = "flights") -> pl.DataFrame:
        path = self.root / "curated" / "acme" / "flights" / table
        return pl.read_delta(str(path)).sort("_batch_id", "_file", "_line")


@pytest.fixture(scope="session")
def database_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[database.Server]:
    """A Postgres, for the tests that ask for it."""
    with database.running(tmp_path_factory.mktemp("server") / "postgres") as server:
        yield server


@pytest.fixture
def client_database(database_server: database.Server) -> database.Database:
    """An empty database of a client's own."""
    return database_server.client()


@pytest.fixture
def gateway() -> Iterator[GatewayFake]:
    fake = GatewayFake()
    yield fake
    fake.close()


@pytest.fixture
def stage(tmp_path: Path, gateway: GatewayFake, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    for name in ("landing", "staged", "curated"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"INGEST_{name.upper()}_DIR", str(tmp_path / name))
    password_file = tmp_path / "password"
    password_file.write_text(PASSWORD + "\n")
    monkeypatch.setenv("INGEST_GATEWAY_URL", gateway.url)
    monkeypatch.setenv("INGEST_GATEWAY_USER", USER)
    monkeypatch.setenv("INGEST_GATEWAY_PASSWORD_FILE", str(password_file))
    monkeypatch.setattr(report.random, "uniform", lambda *_: 0.0)
    return Stage(tmp_path, gateway)
