from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from gateway.clients import limits, registry
from gateway.onboarding import apply, plan, spec
from gateway.outbox.model import Message
from tests.factories import CONTRACT

GOLDEN = Path(__file__).parents[2] / "airflow" / "contract" / "registry.json"


def wanted(**changes: Any) -> spec.ClientSpec:
    base = {
        "client": "acme",
        "name": "Acme Air",
        "projects": {"flights": {"contract": CONTRACT}, "crews": {"contract": CONTRACT}},
    }
    return spec.parse({**base, **changes})


def run(sessions: sessionmaker[Session], asked: spec.ClientSpec) -> list[str]:
    with sessions.begin() as session:
        planned = plan.changes(session, asked)
        applied = apply.apply(session, asked, actor="operator:test")
    assert planned == applied
    return [str(each) for each in applied]


def test_applying_twice_changes_nothing_the_second_time(sessions: sessionmaker[Session]) -> None:
    assert run(sessions, wanted()) == [
        "create client acme",
        "create project flights",
        "create project crews",
    ]
    assert run(sessions, wanted()) == []


def test_each_difference_is_named_and_carried_out(sessions: sessionmaker[Session]) -> None:
    run(sessions, wanted())
    contract = copy.deepcopy(CONTRACT)
    contract["version"] = "2.0.0"
    changed = wanted(
        name="Acme Airways",
        limits={"open_batches": 3},
        projects={"flights": {"contract": contract}},
    )
    assert run(sessions, changed) == [
        "rename client acme to Acme Airways",
        "set limit open_batches to 3",
        "change project flights: contract",
        "retire project crews",
    ]
    with sessions.begin() as session:
        client = registry.active_client(session, "acme")
        assert limits.of(client).open_batches == 3
        assert [each.name for each in registry.projects_of(session, "acme")] == ["flights"]
    assert run(sessions, changed) == []
    assert "change project crews: state (bring back)" in run(sessions, wanted())


def test_limits_of_a_project_are_planned_applied_and_taken_back(
    sessions: sessionmaker[Session],
) -> None:
    def narrowed(**own: Any) -> spec.ClientSpec:
        projects = {"flights": {"contract": CONTRACT, "limits": own}}
        return wanted(projects=projects, limits={"bytes_per_day": "1GiB"})

    run(sessions, narrowed())
    narrow = narrowed(open_batches=3, bytes_per_day="1MiB")
    assert run(sessions, narrow) == ["change project flights: limits"]
    assert run(sessions, narrow) == []
    with sessions.begin() as session:
        client = registry.active_client(session, "acme")
        (project,) = registry.projects_of(session, "acme")
        assert limits.for_project(client, project).open_batches == 3
        assert limits.for_project(client, project).bytes_per_day == 1024**2
        assert limits.of(client).bytes_per_day == 1024**3
        assert spec.parse(client.spec) == narrow
    assert run(sessions, narrowed()) == ["change project flights: limits"]
    with sessions.begin() as session:
        (project,) = registry.projects_of(session, "acme")
        assert project.limits == {}


def test_a_new_client_asks_for_its_pool_once(sessions: sessionmaker[Session]) -> None:
    run(sessions, wanted())
    run(sessions, wanted(name="Renamed"))
    with sessions.begin() as session:
        (message,) = session.scalars(select(Message)).all()
        assert message.topic == "client.pool"
        assert message.payload == {"client": "acme", "pool": "client-acme", "slots": 16}


def test_the_registry_file_has_the_shape_both_sides_agreed_on(
    sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    run(sessions, wanted())
    path = tmp_path / "registry.json"
    with sessions.begin() as session:
        assert apply.export(session, path)
        assert not apply.export(session, path), "nothing new, nothing written"
    written, golden = json.loads(path.read_text()), json.loads(GOLDEN.read_text())
    assert written.keys() == golden.keys()
    assert written["version"] == golden["version"]
    assert written["projects"][0].keys() == golden["projects"][0].keys()
    assert [each["dag_id"] for each in written["projects"]] == ["acme__crews", "acme__flights"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_an_offboarded_client_leaves_the_registry(
    sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    run(sessions, wanted())
    with sessions.begin() as session:
        assert apply.offboard(session, "acme", actor="operator:test")
        assert not apply.offboard(session, "acme", actor="operator:test")
        apply.export(session, tmp_path / "registry.json")
    assert json.loads((tmp_path / "registry.json").read_text())["projects"] == []
    assert "bring back client acme" in run(sessions, wanted())
