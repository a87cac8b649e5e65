"""``python -m deploy.bench.trigger``: from the seal to the run, and from the run's end to the job's.

Starts the whole stack and measures it from outside: through the gateway's public doors and
Airflow's. ``BENCH_ROUNDS`` (5) choose how often, ``BENCH_SEALS`` (200) how many at once.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from deploy.bench import table
from deploy.bench.platform import Airflow, Client, Sealed
from deploy.bench.rounds import Case, Results, Sample, measure
from deploy.bench.table import Row, compare
from deploy.local import layout, programs, record
from deploy.local.layout import Ports
from deploy.local.programs import RUN_DIR, StackError
from deploy.local.stack import Stack

PROJECT = "trigger"
CLIENTS = ("acme", "globex")
CONTRACT: dict[str, Any] = {
    "apiVersion": "v3.1.0",
    "kind": "DataContract",
    "id": "trigger",
    "version": "1.0.0",
    "status": "active",
    "schema": [
        {
            "name": "rows",
            "properties": [
                {"name": "id", "logicalType": "integer", "required": True},
                {"name": "note", "logicalType": "string"},
            ],
        }
    ],
}
LIMITS = {"open_batches": 10_000, "uploads_in_flight": 1000, "requests_per_second": 100_000}
# As many senders as Airflow's own clients would be: enough for both of its processes.
SENDERS = 8
IDLE_SEALS = 5
ONE, STORM, BARE = "one seal at a time", "seals at once", "bare POSTs to Airflow"
ALONE, BESIDE = "a client alone", "a client beside another's storm"
FIRST_TASK_SECONDS, OWN_SECONDS, SEEN_SECONDS = 1.0, 0.1, 0.5


def main() -> int:
    """Measure, print the table, write it."""
    rounds = int(os.environ.get("BENCH_ROUNDS") or 5)
    seals = int(os.environ.get("BENCH_SEALS") or 200)
    try:
        with record.only_one(), Stack(Ports.from_environment(), afresh=True) as stack:
            stack.clients = _specs(layout.STACK)
            stack.start()
            results = Results()
            rows = measured(stack, rounds, seals, results)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    output = RUN_DIR / "bench"
    table.write(rows, output / "trigger.json")
    results.write(output / "trigger-rounds.json")
    print(f"{table.render(rows)}\n\n  {output / 'trigger.json'}")
    return 0


def measured(stack: Stack, rounds: int, seals: int, results: Results) -> list[Row]:
    """Measure everything on a running stack."""
    acme, globex = (Client(stack, f"{name}-uploader", PROJECT) for name in CLIENTS)
    airflow = Airflow(stack)
    one = Single(acme, airflow)
    measure([Case(ONE, one.run, one.run)], 2 * rounds, results)
    for name in CLIENTS:
        airflow.pause(f"{name}__{PROJECT}")
    storm = Storm(acme, globex, airflow, seals)
    cases = [
        Case(ALONE, storm.alone, storm.alone),
        Case(BARE, storm.bare),
        Case(STORM, storm.run),
    ]
    measure(cases, rounds, results)
    return [
        _bounded("seal to first task's start", results.of(ONE, "first_task"), FIRST_TASK_SECONDS),
        _bounded("seal to run in Airflow", results.of(ONE, "own"), OWN_SECONDS),
        _bounded("end in Airflow to end at the gateway", results.of(ONE, "seen"), SEEN_SECONDS),
        compare(
            "one small delivery, seal to end",
            "s",
            results.of(ONE, "whole"),
            results.of(ONE, "in_tasks"),
            "the time within its tasks",
            None,
            less_is_better=True,
        ),
        compare(f"{seals} seals at once", "runs/s", results.of(STORM), results.of(BARE), BARE, 0.9),
        compare(
            BESIDE,
            "s",
            results.of(STORM, "beside"),
            results.of(ALONE, "seconds"),
            ALONE,
            0.5,
            less_is_better=True,
        ),
    ]


def _bounded(metric: str, found: Sequence[float] | str, most: float) -> Row:
    bound = [most] * (1 if isinstance(found, str) else len(found))
    return compare(metric, "s", found, bound, f"limit of {most} s", 1.0, less_is_better=True)


class Single:
    """One delivery on an idle stack, from its seal to its end."""

    def __init__(self, client: Client, airflow: Airflow) -> None:
        self._client = client
        self._airflow = airflow

    def run(self) -> Sample:
        """Deliver and follow."""
        sealed = self._client.seal(self._client.filled())
        seen_at = self._client.wait(sealed, lambda job: job["state"] == "succeeded", pause=0.01)
        run = self._airflow.run(sealed)
        tasks = self._airflow.tasks(sealed)
        return {
            "own": run.queued_at - sealed.at,
            "first_task": tasks[0][0] - sealed.at,
            "seen": max(0.0, seen_at - run.ended_at),
            "whole": run.ended_at - sealed.at,
            "in_tasks": sum(end - start for start, end in tasks),
        }


class Storm:
    """Many seals at once, into DAGs that are paused: their runs cost nothing but being made."""

    def __init__(self, many: Client, few: Client, airflow: Airflow, seals: int) -> None:
        self._many, self._few = many, few
        self._airflow = airflow
        self._seals = seals
        self._bare = 0

    def bare(self) -> Sample:
        """POST as many runs straight to Airflow."""
        self._bare += 1
        names = [f"bare.{self._bare}.{number}" for number in range(self._seals)]
        dag = f"{CLIENTS[0]}__{PROJECT}"
        _at_once([partial(self._airflow.trigger, dag, name) for name in names])
        return {"rate": _rate(self._airflow.queued(dag, f"bare.{self._bare}."))}

    def alone(self) -> Sample:
        """Seal one at a time while nothing else is sealed."""
        return {"seconds": statistics.median(self._dispatched() for _ in range(IDLE_SEALS))}

    def run(self) -> Sample:
        """Seal many of one client at once, and meanwhile a few of another's.

        Raises
        ------
        StackError
            A job has no run of its own, or more than one.
        """
        batches = [self._many.filled() for _ in range(self._seals)]
        with ThreadPoolExecutor(1) as beside:
            sealing = beside.submit(_at_once, [partial(self._many.seal, each) for each in batches])
            waits: list[float] = []
            while not sealing.done() or len(waits) < IDLE_SEALS:
                waits.append(self._dispatched())
            sealed: list[Sealed] = sealing.result()
        for each in sealed:
            self._many.wait(each, lambda job: job["state"] != "queued", pause=0.2)
        self._require_each_once(sealed)
        return {
            "rate": _rate(self._airflow.queued_of(sealed)),
            "beside": statistics.median(waits),
        }

    def _dispatched(self) -> float:
        """Return how long after its seal a batch had its run, by Airflow's clock."""
        sealed = self._few.seal(self._few.filled())
        self._few.wait(sealed, lambda job: job["state"] != "queued", pause=0.05)
        return self._airflow.made_at(sealed) - sealed.at

    def _require_each_once(self, sealed: Sequence[Sealed]) -> None:
        runs = self._airflow.queued_of(sealed)
        if len(runs) != len(sealed):
            message = f"{len(sealed)} jobs have {len(runs)} runs"
            raise StackError(message)


def _at_once(work: Sequence[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(SENDERS) as senders:
        return [each.result() for each in [senders.submit(one) for one in work]]


def _rate(moments: Sequence[float]) -> float:
    """Return how many came in a second, by Airflow's own clock."""
    return (len(moments) - 1) / (max(moments) - min(moments))


def _specs(folder: Path) -> list[Path]:
    paths = []
    for name in CLIENTS:
        document = {
            "client": name,
            "name": name.title(),
            "limits": LIMITS,
            "projects": {PROJECT: {"contract": CONTRACT}},
        }
        path = folder / f"{name}.yaml"
        programs.write_secret(path, json.dumps(document))  # JSON is YAML
        paths.append(path)
    return paths


if __name__ == "__main__":
    began = time.monotonic()
    status = main()
    print(f"  {time.monotonic() - began:.0f} s")
    sys.exit(status)
