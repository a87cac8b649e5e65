"""What a client runs in its own Airflow: exports files each day and delivers them to the gateway.

An example to copy into the folder of one's own DAGs; the platform's Airflow is told to leave it
alone (``.airflowignore``). It needs ``pip install ingestion-gateway[airflow]`` and a connection of
the type *Ingestion Gateway*, by default ``ingestion_gateway_default``.

The files are made up here: departures of an airline, as many as asked for. What matters is the
rest: a reference for each interval, so that a task that is tried or cleared again goes on with its
own delivery; files that come out the same each time; and a wait that holds no worker.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import random
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, CronDataIntervalTimetable, Param, get_current_context, task

from gateway.provider.operators import GatewayDeliverOperator

# A folder that every worker sees, where there are several.
EXPORTS = Path(os.environ.get("CLIENT_SIDE_DIR") or Path(tempfile.gettempdir()) / "client-side")
COLUMNS = [
    "year",
    "month",
    "day",
    "dep_time",
    "sched_dep_time",
    "dep_delay",
    "arr_time",
    "sched_arr_time",
    "arr_delay",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "air_time",
    "distance",
    "hour",
    "minute",
    "time_hour",
]
AIRPORTS = ("EWR", "JFK", "LGA")
# A zip keeps times; the same rows are to make the same bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)

log = logging.getLogger(__name__)


def departures(day: datetime, airport: str, rows: int, faulty: int) -> Iterator[list[object]]:
    """Yield one day's departures of an airport; the last ones break the contract.

    The same day and airport give the same rows, whenever and wherever they are asked for.
    """
    chance = random.Random(f"{day:%Y-%m-%d} {airport}")  # noqa: S311 - to be repeatable is the point
    for number in range(1, rows + 1):
        hour, minute, delay = chance.randint(5, 21), chance.randint(0, 59), chance.randint(-5, 40)
        planned, minutes = day.replace(hour=hour, minute=minute), chance.randint(60, 400)
        left = planned + timedelta(minutes=delay)
        due, there = planned + timedelta(minutes=minutes), left + timedelta(minutes=minutes)
        month = 13 if number > rows - faulty else day.month
        yield [
            *(day.year, month, day.day),
            *(_clock(left), _clock(planned), delay, _clock(there), _clock(due), delay),
            *("UA", number, f"N{chance.randint(10_000, 99_999)}", airport, "IAH"),
            *(minutes, 1400, hour, minute, f"{day:%Y-%m-%d}T{hour:02}:00:00Z"),
        ]


def _clock(moment: datetime) -> int:
    return moment.hour * 100 + moment.minute


def export_day(day: datetime, path: Path, rows: int, faulty: int) -> None:
    """Write one day's departures as a zip of one CSV file for each airport."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for airport in AIRPORTS:
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(COLUMNS)
            # One airport's export is the sloppy one.
            wrong = faulty if airport == AIRPORTS[-1] else 0
            writer.writerows(departures(day, airport, rows, wrong))
            name = zipfile.ZipInfo(f"flights_{day:%Y_%m_%d}_{airport}.csv", EPOCH)
            name.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(name, text.getvalue())


with DAG(
    "client_side",
    dag_display_name="Deliver departures to the gateway",
    description="Exports the departures of each day, delivers them, and shows what was rejected",
    schedule=CronDataIntervalTimetable("0 3 * * *", timezone="UTC"),
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=4,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    params={
        "project": Param("flights", type="string", description="Project at the gateway"),
        "rows": Param(100, type="integer", minimum=1, maximum=9999, description="Of each airport"),
        "faulty": Param(1, type="integer", minimum=0, description="How many of all are wrong"),
    },
) as dag:

    @task
    def export() -> str:
        """Write the interval's files, in a folder of the run's own."""
        context = get_current_context()
        day, params = context["data_interval_start"], context["params"]
        folder = EXPORTS / context["dag_run"].run_id
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"departures_{day:%Y-%m-%d}.zip"
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        export_day(midnight, path, params["rows"], params["faulty"])
        return str(path)

    @task
    def show_rejects(rejects: dict[str, Any]) -> int:
        """Tell whoever mends the export which rows were not taken."""
        for each in rejects["shown"]:
            place = f"{each['file']} line {each['line']}, {each['column']}"
            log.warning("%s: %r breaks %s", place, each["value"], each["rule"])
        log.info("%d rows were rejected", rejects["total"])
        return int(rejects["total"])

    @task
    def tidy(path: str) -> None:
        """Remove the run's files: they are at the gateway, and its receipt proves it."""
        shutil.rmtree(Path(path).parent, ignore_errors=True)

    exported = export()
    deliver = GatewayDeliverOperator(
        task_id="deliver",
        project="{{ params.project }}",
        reference="{{ dag.dag_id }} {{ data_interval_start | ds }}",
        paths=exported,
        period={
            "start": "{{ data_interval_start | ds }}",
            "end": "{{ data_interval_start | ds }}",
        },
        metadata={"airflow_run": "{{ run_id }}"},
        deferrable=True,
    )
    show_rejects(deliver.output["rejects"])
    deliver >> tidy(exported)
