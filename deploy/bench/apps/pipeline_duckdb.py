"""DuckDB over the same files, with the same casts and checks: ``pipeline_duckdb.py OUT THREADS FILES…``.

Prints the seconds and the rows written.
"""

from __future__ import annotations

import json
import sys
import time

import duckdb
from pipeline_rules import KEY, NUMBERS, ORDER


def main() -> int:
    """Measure one COPY, and the question whether the key holds."""
    out, threads, files = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    connection = duckdb.connect()
    connection.execute(f"SET threads = {threads}")
    began = time.perf_counter()
    connection.execute(f"COPY ({query(files)}) TO '{out}' (FORMAT parquet)")
    repeated = f"SELECT {', '.join(KEY)} FROM '{out}' GROUP BY ALL HAVING count(*) > 1 LIMIT 1"
    if connection.execute(repeated).fetchall():
        return 1
    seconds = time.perf_counter() - began
    rows = connection.execute(f"SELECT count(*) FROM '{out}'").fetchall()[0][0]
    print(json.dumps({"seconds": seconds, "rows": rows}))
    return 0


def query(files: list[str]) -> str:
    """Return the SELECT: texts cast to types, rows that break a rule left out."""
    columns = ", ".join(f"'{name}': 'VARCHAR'" for name in ORDER)
    paths = ", ".join(f"'{each}'" for each in files)
    source = f"read_csv([{paths}], columns = {{{columns}}}, header = true, nullstr = ['', 'NA'])"
    typed = [f"TRY_CAST({name} AS BIGINT) AS {name}_v" for name in NUMBERS]
    typed.append("TRY_CAST(time_hour AS TIMESTAMPTZ) AS time_hour_v")
    shown = [f"{name}_v AS {name}" if is_typed(name) else name for name in ORDER]
    kept = [rule for name in NUMBERS for rule in rules(name)]
    kept += [
        "time_hour_v IS NOT NULL",
        "length(carrier) = 2",
        "(tailnum IS NULL OR length(tailnum) <= 6)",
        "regexp_matches(origin, '^[A-Z]{3}$')",
        "regexp_matches(dest, '^[A-Z]{3}$')",
        "origin <> dest",
    ]
    inner = f"SELECT *, {', '.join(typed)} FROM {source}"
    return f"SELECT {', '.join(shown)} FROM ({inner}) WHERE {' AND '.join(kept)}"


def is_typed(name: str) -> bool:
    """Say whether a column is more than text."""
    return name in NUMBERS or name == "time_hour"


def rules(name: str) -> list[str]:
    """Return what a row must keep of a number."""
    required, least, most = NUMBERS[name]
    within = f"{name}_v >= {least}" + ("" if most is None else f" AND {name}_v <= {most}")
    if required:
        return [f"({within})"]
    return [f"({name} IS NULL OR ({within}))"]


if __name__ == "__main__":
    sys.exit(main())
