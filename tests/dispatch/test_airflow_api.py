"""What becomes of a request is told by the type of error."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gateway.dispatch import airflow_api
from gateway.dispatch.airflow_api import AirflowApi
from tests.dispatch.dispatching import Desk, timed


@pytest.fixture
def api(desk: Desk) -> AirflowApi:
    return desk.services.airflow_api


ERRORS = {
    400: airflow_api.BadRequestError,
    401: airflow_api.RefusedError,
    403: airflow_api.RefusedError,
    404: airflow_api.NotThereError,
    409: airflow_api.ExistsError,
    422: airflow_api.RejectedError,
    302: airflow_api.RejectedError,
    429: airflow_api.UnavailableError,
    500: airflow_api.UnavailableError,
    503: airflow_api.UnavailableError,
    "drop": airflow_api.OutcomeUnknownError,
    "hang": airflow_api.OutcomeUnknownError,
}


@pytest.mark.parametrize("act", ERRORS)
def test_each_failure_has_its_error(desk: Desk, api: AirflowApi, act: int | str) -> None:
    desk.airflow.fail(act)
    token = desk.parts.trigger_token("acme", "acme__flights")
    with pytest.raises(airflow_api.AirflowError) as caught, timed() as seconds:
        api.trigger(token, "acme__flights", "gw.job_1", {})
    assert type(caught.value) is ERRORS[act]
    assert seconds() < 2
    assert desk.airflow.count("POST", "dagRuns") == 1


def test_nobody_listening_means_that_nothing_was_sent(desk: Desk, api: AirflowApi) -> None:
    desk.airflow.down()
    token = desk.parts.trigger_token("acme", "acme__flights")
    with pytest.raises(airflow_api.UnavailableError) as caught:
        api.trigger(token, "acme__flights", "gw.job_1", {})
    assert type(caught.value) is airflow_api.UnavailableError


def test_a_token_for_one_dag_does_nothing_with_another(desk: Desk, api: AirflowApi) -> None:
    token = desk.parts.trigger_token("acme", "acme__flights")
    with pytest.raises(airflow_api.RefusedError):
        api.trigger(token, "globex__weather", "gw.job_1", {})
    assert not desk.airflow.runs


def test_a_list_is_read_to_its_last_page(desk: Desk, api: AirflowApi) -> None:
    token = desk.parts.trigger_token("acme", "acme__flights")
    for number in range(205):
        api.trigger(token, "acme__flights", f"gw.job_{number}", {})
        desk.airflow.move(f"gw.job_{number}", "running")
    since = desk.airflow.now() - timedelta(seconds=60)
    found = api.runs_updated_since(desk.parts.watcher_token(), since)
    assert len({run.run_id for run in found.found}) == 205
    assert desk.airflow.count("GET", "~/dagRuns") == 3


def test_asking_by_id_does_not_return_runs_whose_ids_only_begin_alike(
    desk: Desk, api: AirflowApi
) -> None:
    token = desk.parts.trigger_token("acme", "acme__flights")
    for run_id in ("gw.job_1", "gw.job_12"):
        api.trigger(token, "acme__flights", run_id, {})
    found = api.runs_by_id(desk.parts.watcher_token(), ["gw.job_1", "gw.job_7"]).found
    assert [run.run_id for run in found] == ["gw.job_1"]


def test_a_pool_is_made_and_then_resized(desk: Desk, api: AirflowApi) -> None:
    token = desk.parts.pools_token("acme")
    api.ensure_pool(token, "client-acme", 4)
    api.ensure_pool(token, "client-acme", 9)
    api.ensure_pool(token, "client-acme", 9)
    assert desk.airflow.pools["client-acme"]["slots"] == 9
    assert desk.airflow.count("PATCH", "pools") == 3


def test_health_names_each_part(api: AirflowApi) -> None:
    assert api.health() == {"metadatabase": "healthy", "scheduler": "healthy"}
