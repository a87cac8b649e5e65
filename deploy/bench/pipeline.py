"""``python -m deploy.bench.pipeline``: landed files to curated rows, beside DuckDB and pandas.

``BENCH_ROUNDS`` (5) choose how often, ``BENCH_YEARS`` (30) how many years of flights: 10.1 million
rows. Every competitor reads the same files, casts the same columns and keeps the same rules of
``deploy/demo/flights.odcs.yaml``; ours also verifies every file's digest, keeps each row's origin
and commits to a Delta table.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import yaml

from deploy.bench import install, table
from deploy.bench.install import APPS
from deploy.bench.rounds import Case, Results, Sample, measure
from deploy.bench.table import Row, compare
from deploy.local import dataset, environments
from deploy.local.programs import ROOT, RUN_DIR, StackError

LANDED = "landing/acme/flights/bat_00000000000000000000000001/files"
CONTRACT = ROOT / "deploy/demo/flights.odcs.yaml"
LAST_YEAR = 2016
FEW = 10
WORKERS = 2
TIMEOUT_SECONDS = 900
GZIPPED, WHOLE = "12 gz CSVs", "one CSV"


@dataclass(frozen=True)
class Delivery:
    """Files that are delivered, of so many years."""

    folder: Path
    files: Sequence[Path]


def main() -> int:
    """Measure, print the table, write it."""
    rounds = int(os.environ.get("BENCH_ROUNDS") or 5)
    years = int(os.environ.get("BENCH_YEARS") or 30)
    folder = RUN_DIR / "bench-pipeline"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    results = Results()
    try:
        rows = measured(folder, years, rounds, results)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    output = RUN_DIR / "bench"
    table.write(rows, output / "pipeline.json")
    results.write(output / "pipeline-rounds.json")
    print(f"{table.render(rows)}\n\n  {output / 'pipeline.json'}")
    return 0


def measured(folder: Path, years: int, rounds: int, results: Results) -> list[Row]:
    """Measure every case."""
    few = max(1, years // FEW)
    gzipped, whole = deliveries(folder / "all", years)
    part, _ = deliveries(folder / "few", few)
    contract = folder / "contract.json"
    contract.write_text(json.dumps(yaml.safe_load(CONTRACT.read_text())))
    runs = Runs(folder, contract)
    cases = [
        Case(f"ours, {GZIPPED}", lambda: runs.ours(gzipped, WORKERS)),
        Case(f"DuckDB, {GZIPPED}", lambda: runs.duckdb(gzipped)),
        Case(f"pandas, {GZIPPED}", lambda: runs.pandas(gzipped)),
        Case(f"ours, {WHOLE}", lambda: runs.ours(whole, WORKERS)),
        Case(f"DuckDB, {WHOLE}", lambda: runs.duckdb(whole)),
        Case("ours, a tenth", lambda: runs.ours(part, WORKERS)),
        Case("ours, one worker", lambda: runs.ours(gzipped, 1)),
    ]
    measure(cases, rounds, results)
    return list(_rows(results, years / few))


def _rows(results: Results, times: float) -> Iterator[Row]:
    def seconds(name: str) -> Sequence[float] | str:
        return results.of(name, "seconds")

    for kind in (GZIPPED, WHOLE):
        ours, peer = seconds(f"ours, {kind}"), seconds(f"DuckDB, {kind}")
        yield compare(kind, "s", ours, peer, "DuckDB", 0.5, less_is_better=True)
    ours, peer = seconds(f"ours, {GZIPPED}"), seconds(f"pandas, {GZIPPED}")
    yield compare(GZIPPED, "s", ours, peer, "pandas", 5.0, less_is_better=True)
    tenth = seconds("ours, a tenth")
    linear = tenth if isinstance(tenth, str) else [each * times for each in tenth]
    name = f"{times:.0f} times a tenth"
    yield compare("all the rows", "s", ours, linear, name, 0.9, less_is_better=True)
    one = seconds("ours, one worker")
    yield compare("two workers", "s", ours, one, "one worker", 1.7, less_is_better=True)


class Runs:
    """Competitors, each a program of its own."""

    def __init__(self, folder: Path, contract: Path) -> None:
        self._folder = folder
        self._contract = contract

    def ours(self, delivery: Delivery, workers: int) -> Sample:
        """Plan, process, publish."""
        with ExitStack() as stack:
            for name in ("staged", "curated"):
                stack.callback(shutil.rmtree, delivery.folder / name, ignore_errors=True)
            given = [delivery.folder, self._contract, workers]
            return self._run(environments.AIRFLOW.path, "pipeline_ours.py", *given)

    def duckdb(self, delivery: Delivery) -> Sample:
        """One COPY."""
        given = [self._folder / "duckdb.parquet", WORKERS, *delivery.files]
        return self._run(environments.AIRFLOW.path, "pipeline_duckdb.py", *given)

    def pandas(self, delivery: Delivery) -> Sample:
        """One pass."""
        given = [self._folder / "pandas.parquet", *delivery.files]
        return self._run(install.ENVIRONMENT.path, "pipeline_pandas.py", *given)

    def _run(self, environment: Path, program: str, *given: object) -> Sample:
        argv = [environment / "bin/python", APPS / program, *given]
        done = subprocess.run(
            [str(each) for each in argv],
            env={**os.environ, "PYTHONPATH": str(ROOT / "airflow")},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
            message = f"{program}: {last[0]}"
            raise StackError(message)
        found: dict[str, float] = json.loads(done.stdout)
        return found


def deliveries(folder: Path, years: int) -> tuple[Delivery, Delivery]:
    """Write so many years of flights, once by month and packed, once as one file."""
    dataset.ensure()
    gzipped, whole = folder / "gzipped" / LANDED, folder / "whole" / LANDED
    for each in (gzipped, whole):
        each.mkdir(parents=True)
    one = whole / "flights_all.csv"
    with zipfile.ZipFile(dataset.FLIGHTS) as archive, one.open("wb") as everything:
        for number, name in enumerate(sorted(archive.namelist())):
            head, *lines = archive.read(name).splitlines(keepends=True)
            if not number:
                everything.write(head)
            with gzip.open(gzipped / f"{Path(name).name}.gz", "wb", compresslevel=4) as packed:
                packed.write(head)
                for year in range(LAST_YEAR - years + 1, LAST_YEAR + 1):
                    content = b"".join(_of_year(lines, str(year).encode()))
                    packed.write(content)
                    everything.write(content)
    return tuple(Delivery(each.parents[4], sorted(each.iterdir())) for each in (gzipped, whole))  # type: ignore[return-value]


def _of_year(lines: Sequence[bytes], year: bytes) -> Iterator[bytes]:
    # The year is the first column, so that no two of them share a key.
    return (year + line[line.index(b",") :] for line in lines)


if __name__ == "__main__":
    began = time.monotonic()
    status = main()
    print(f"  {time.monotonic() - began:.0f} s")
    sys.exit(status)
