"""Layers go when their time is over, unless somebody holds or works on them."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session, sessionmaker

from gateway.admin import rebuild
from gateway.audit.model import AuditEvent
from gateway.batches import holds, ledger, manifest, orders, program, purging, seal
from gateway.batches.model import Batch, BatchLayer
from gateway.bootstrap import Services
from gateway.clients.registry import Project
from gateway.errors import GatewayError, NotFoundError
from gateway.jobs import reading
from gateway.jobs.model import Job
from gateway.jobs.states import JobActiveError
from gateway.landing.zone import StorageUnavailableError
from gateway.settings import Pipeline
from tests import factories
from tests.batches.making import ACME, path, sealed
from tests.jobs.making import report

NOTHING = Pipeline()


@pytest.fixture(autouse=True)
def two_clients(services: Services) -> None:
    factories.onboard_two(services.sessions)


@pytest.fixture
def batch(services: Services) -> Batch:
    """A batch sealed 40 days ago whose job has ended, of a project that keeps files 30 days."""
    made = sealed(services)
    with services.sessions.begin() as session:
        ends(session, made)
        kept(session, landing="30d", staged="720h", curated="forever")
        past = {"sealed_at": text("now() - interval '40 days'")}
        session.execute(update(Batch).where(Batch.id == made.id).values(past))
        # Loaded as long ago as it was sealed.
        old = {"created_at": text("now() - interval '40 days'")}
        session.execute(update(Job).where(Job.batch_id == made.id).values(old))
    return made


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """A program in the pipeline's place, which notes what it is asked."""
    script = tmp_path / "pipeline.py"
    script.write_text(
        "import sys, pathlib, json\n"
        "said = json.load(sys.stdin)\n"
        "with pathlib.Path(__file__).with_name('asked').open('a') as file:\n"
        "    file.write(json.dumps([sys.argv[1], said]) + '\\n')\n"
        "print(json.dumps({'tables': {}}))\n"
    )
    return Pipeline(command=shlex.join([sys.executable, str(script)]), timeout_seconds=30)


def asked(tmp_path: Path) -> list[Any]:
    file = tmp_path / "asked"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def kept(session: Session, **retention: str) -> None:
    session.execute(update(Project).where(Project.client == "acme").values(retention=retention))


def ends(session: Session, batch: Batch, state: str = "succeeded") -> None:
    done = {"state": state, "finished_at": text("now()")}
    session.execute(update(Job).where(Job.batch_id == batch.id).values(done))


def swept(services: Services, config: Pipeline = NOTHING) -> int:
    return purging.run(services.sessions, services.zone, config, 100)


def state(sessions: sessionmaker[Session], batch: Batch) -> str:
    with sessions.begin() as session:
        return ledger.find(session, "acme", batch.id).state


def lies(services: Services, batch: Batch) -> bool:
    return any(each.batch.batch == batch.id for each in services.zone.walk())


def told(sessions: sessionmaker[Session], subject: str) -> list[str]:
    with sessions.begin() as session:
        query = select(AuditEvent.action).where(AuditEvent.subject == subject)
        return list(session.scalars(query.order_by(AuditEvent.number)))


def test_landed_files_past_their_time_go_and_a_tombstone_with_digests_stays(
    services: Services, batch: Batch
) -> None:
    assert swept(services) == 1
    assert state(services.sessions, batch) == "purged"
    assert not lies(services, batch)
    with services.sessions.begin() as session:
        (file,) = ledger.files_of(session, batch.id)
        assert file.sha256 in manifest.of(session, "acme", batch.id).document.decode()
    assert told(services.sessions, batch.id)[-2:] == ["batch.purged", "layer.cleared"]
    assert swept(services) == 0


def test_a_purged_batch_is_replayed_from_staged_rows_that_are_kept_for_longer(
    services: Services, batch: Batch
) -> None:
    with services.sessions.begin() as session:
        (first,) = reading.of_batch(session, "acme", batch.id)
        kept(session, landing="30d", staged="90d")
        session.execute(update(Job).values(state="running"))
    report(services.sessions, first)
    with services.sessions.begin() as session:
        ends(session, batch)
    assert swept(services) == 1
    with pytest.raises(ledger.BatchClosedError), services.sessions.begin() as session:
        seal.replay(session, ACME, batch.id, "again")
    with services.sessions.begin() as session:
        again = seal.replay(session, ACME, batch.id, "again", "staged")
        document = orders.document_of(session, again, batch)
    documents = orders.documents(services.keys, again, document)
    services.zone.write_documents(path(batch), documents)
    assert swept(services) == 0, "it is worked on"
    with services.sessions.begin() as session:
        ends(session, batch)
    assert swept(services) == 1
    assert not lies(services, batch)
    assert told(services.sessions, batch.id)[-2:] == ["layer.purged", "layer.cleared"]
    assert swept(services) == 0


@pytest.mark.parametrize("retention", ["41d", "forever", "985h"])
def test_what_has_its_time_before_it_stays(
    services: Services, batch: Batch, retention: str
) -> None:
    with services.sessions.begin() as session:
        kept(session, landing=retention)
    assert swept(services) == 0
    assert lies(services, batch)


def test_a_batch_that_is_worked_on_stays(services: Services, batch: Batch) -> None:
    with services.sessions.begin() as session:
        ends(session, batch, "running")
    assert swept(services) == 0
    assert state(services.sessions, batch) == "sealed"


def scope_of(name: str, batch: Batch) -> dict[str, str]:
    scopes = {"client": {}, "project": {"project": "flights"}, "batch": {"batch_id": batch.id}}
    return scopes[name]


@pytest.mark.parametrize("name", ["client", "project", "batch"])
def test_a_hold_stops_every_purge_until_it_is_lifted(
    services: Services, batch: Batch, name: str
) -> None:
    with services.sessions.begin() as session:
        scope = scope_of(name, batch)
        hold = holds.put(session, "acme", **scope, reason="case 17", actor="operator:test")
    assert swept(services) == 0
    assert lies(services, batch)
    with services.sessions.begin() as session:
        for _ in range(2):
            holds.lift(session, hold.id, actor="operator:test")
        assert holds.in_force(session) == []
    assert swept(services) == 1
    assert told(services.sessions, hold.id) == ["hold.set", "hold.lifted"]


def test_a_hold_of_somebody_else_stops_nothing(services: Services, batch: Batch) -> None:
    with services.sessions.begin() as session:
        holds.put(session, "globex", reason="case 18", actor="operator:test")
    assert swept(services) == 1


def test_a_hold_is_on_something_that_is_there(services: Services, batch: Batch) -> None:
    for client, scope in (("nobody", {}), ("acme", {"project": "x"}), ("acme", {"batch_id": "x"})):
        with pytest.raises(NotFoundError), services.sessions.begin() as session:
            holds.put(session, client, **scope, reason="r", actor="operator:test")


def test_what_a_crash_left_half_purged_is_taken_by_the_next_sweep(
    services: Services, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:

        def breaks(_: object) -> None:
            raise StorageUnavailableError

        patched.setattr(services.zone, "remove_batch", breaks)
        assert swept(services) == 0
    assert (state(services.sessions, batch), lies(services, batch)) == ("purged", True)
    assert swept(services) == 1
    assert not lies(services, batch)


def test_staged_rows_are_taken_by_the_pipelines_program_and_then_written_down(
    services: Services, batch: Batch, pipeline: Pipeline, tmp_path: Path
) -> None:
    assert swept(services, pipeline) == 2
    ((task, said),) = asked(tmp_path)
    (layer,) = said["layers"]
    assert (task, layer["batch"], layer["layer"]) == ("purge", batch.id, "staged")
    assert len(layer["jobs"]) == 1
    assert swept(services, pipeline) == 0
    assert told(services.sessions, batch.id)[-2:] == ["layer.purged", "layer.cleared"]


def test_a_program_that_fails_leaves_the_layer_for_the_next_round(
    services: Services, batch: Batch, pipeline: Pipeline
) -> None:
    with services.sessions.begin() as session:
        kept(session, staged="1h")
    with pytest.raises(program.PipelineUnavailableError):
        swept(services, Pipeline(command="false"))
    with services.sessions.begin() as session:
        assert session.get_one(BatchLayer, (batch.id, "staged")).cleared_at is None
    with pytest.raises(JobActiveError), services.sessions.begin() as session:
        seal.replay(session, ACME, batch.id, "while it goes")
    assert swept(services, pipeline) == 1


def test_a_layer_that_a_replay_has_filled_again_is_taken_again(
    services: Services, batch: Batch, pipeline: Pipeline
) -> None:
    with services.sessions.begin() as session:
        kept(session, curated="1d")
    assert swept(services, pipeline) == 1
    with services.sessions.begin() as session:
        seal.replay(session, ACME, batch.id, "again")
    assert swept(services, pipeline) == 0
    with services.sessions.begin() as session:
        ends(session, batch)
    assert swept(services, pipeline) == 1


def test_a_purged_batch_is_not_rebuilt_unless_it_may_be_left_out(
    services: Services, batch: Batch, pipeline: Pipeline, tmp_path: Path
) -> None:
    def rebuilt(*, without_purged: bool) -> dict[str, Any]:
        return rebuild.run(
            services.sessions,
            services.keys,
            pipeline,
            "acme",
            "flights",
            without_purged=without_purged,
            actor="operator:test",
        )

    assert rebuilt(without_purged=False)["left_out"] == []
    swept(services)
    with pytest.raises(GatewayError) as refused:
        rebuilt(without_purged=False)
    assert [each.pointer for each in refused.value.errors] == [batch.id]
    assert rebuilt(without_purged=True)["left_out"] == [batch.id]
    first, second = (said for _, said in asked(tmp_path))
    assert [each["batch"] for each in first["batches"]] == [batch.id]
    assert (second["batches"], second["left_out"]) == ([], [batch.id])
    assert told(services.sessions, "acme/flights") == ["curated.rebuilt"] * 2


def test_nothing_is_rebuilt_while_a_job_is_active(
    services: Services, batch: Batch, pipeline: Pipeline
) -> None:
    with services.sessions.begin() as session:
        ends(session, batch, "running")
    with pytest.raises(rebuild.NotRebuildableError):
        rebuild.run(
            services.sessions,
            services.keys,
            pipeline,
            "acme",
            "flights",
            without_purged=True,
            actor="operator:test",
        )
