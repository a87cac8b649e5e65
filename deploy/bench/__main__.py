"""``python -m deploy.bench [large|streams|small|memory|latency]...``: no name means all.

``BENCH_ROUNDS`` (5), ``BENCH_BYTES`` of a large file (1 GiB), ``BENCH_FILES`` small ones (1000)
and ``BENCH_HUGE_BYTES`` for the second run of memory (8 GiB) choose how much is done.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.bench import driving, large, load, small, table
from deploy.bench.driving import BLOCK_BYTES, STORE
from deploy.bench.rounds import Fleet, Results
from deploy.bench.table import Row
from deploy.local import postgres
from deploy.local.programs import RUN_DIR, StackError

OUTPUT = RUN_DIR / "bench"
GIBI = 2**30


@dataclass(frozen=True)
class Amounts:
    """How much is done."""

    rounds: int
    size_bytes: int
    files: int
    huge_bytes: int

    @classmethod
    def from_environment(cls) -> Amounts:
        """Read them."""
        size_bytes = _number("BENCH_BYTES", GIBI)
        return cls(
            _number("BENCH_ROUNDS", 5),
            max(1, size_bytes // BLOCK_BYTES) * BLOCK_BYTES,
            _number("BENCH_FILES", 1000),
            max(1, _number("BENCH_HUGE_BYTES", 8 * GIBI) // BLOCK_BYTES) * BLOCK_BYTES,
        )


Group = Callable[[Fleet, Path, Amounts, Results], list[Row]]
GROUPS: dict[str, Group] = {
    "large": lambda fleet, source, much, results: large.one(
        fleet, source, much.size_bytes, much.rounds, results
    ),
    "streams": lambda fleet, source, much, results: large.eight(
        fleet, source, much.size_bytes, much.rounds, results
    ),
    "small": lambda fleet, _, much, results: small.rates(fleet, much.files, much.rounds, results),
    "memory": lambda fleet, source, much, results: load.memory(
        fleet, source, [much.size_bytes, much.huge_bytes], much.rounds, results
    ),
    "latency": lambda fleet, source, much, results: load.latency(
        fleet, source, much.size_bytes, much.rounds, results
    ),
}


def main(names: list[str]) -> int:
    """Measure the named groups, print the table, write it."""
    if unknown := set(names) - GROUPS.keys():
        print(f"error: no such benchmark: {', '.join(unknown)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    title = "-".join(names) or "uploads"
    try:
        with _only_one():
            rows, results = _measured(names or list(GROUPS), Amounts.from_environment())
    except (StackError, driving.RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    table.write(rows, OUTPUT / f"{title}.json")
    results.write(OUTPUT / f"{title}-rounds.json")
    print(f"{table.render(rows)}\n\n  {OUTPUT / title}.json")
    return 0


@contextmanager
def _only_one() -> Iterator[None]:
    """Refuse to measure beside another measurement of this checkout."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with (OUTPUT / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = "another benchmark is running"
            raise StackError(message) from None
        yield


def _measured(names: list[str], much: Amounts) -> tuple[list[Row], Results]:
    shutil.rmtree(STORE, ignore_errors=True)
    STORE.mkdir(parents=True)
    rows, results = [], Results()
    try:
        with driving.prepared_file(much.size_bytes) as source, Fleet() as fleet:
            for name in names:
                rows += GROUPS[name](fleet, source, much, results)
    finally:
        shutil.rmtree(STORE, ignore_errors=True)
        postgres.sweep_outside()
    return rows, results


def _number(name: str, default: int) -> int:
    given = os.environ.get(name) or str(default)
    if not given.isdecimal() or int(given) < 1:
        message = f"{name}={given} is not a number"
        raise StackError(message)
    return int(given)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
