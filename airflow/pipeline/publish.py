"""The last step: judge the batch as a whole, then put its rows into the curated tables.

Nothing is written to a curated table before the numbers add up: every row that was read is either
about to be loaded or counted as rejected.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import load, postgres, tables
from pipeline import plan as planning
from pipeline.errors import DeliveryError
from pipeline.order import Order
from pipeline.outcome import FileRows, together
from pipeline.process import results_of
from pipeline.rejects import MAX_REJECTS_PER_PART, Reject
from pipeline.staging import FileResult, Plan, fresh_dir

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.contract import Table
    from pipeline.delivery import Delivery
    from pipeline.postgres_session import Place


@dataclass(frozen=True)
class Published:
    """What the whole batch came to.

    ``rejected_here`` and ``rejects`` are this step's own: what earlier steps rejected is not in.
    """

    read: int
    loaded: int
    rejected: int
    rejected_here: int
    rejects: list[Reject]
    files: list[FileRows]


def publish_batch(
    delivery: Delivery, plan: Plan, database: Callable[[], Place] | None = None
) -> Published:
    """Load a processed batch, or, in validation, say what loading it would come to.

    A replay replaces the rows that the batch has in every table of the project, in one commit per
    table; running it again changes nothing.

    Parameters
    ----------
    database
        Gives the client's own database, where the rows go as well; asked when they are to go.

    Raises
    ------
    DeliveryError
        ``too-many-rejects``, ``empty-batch``, ``quality-failed``, ``schema-conflict``,
        ``stale-attempt``, ``refused-by-database`` or the reason why a file fits no table. Nothing
        has been loaded then.
    PlatformError
        ``database-unavailable``. Another try does all of it again.
    """
    contract = planning.read_project_contract(plan.contract)
    batch = _Batch.gather(delivery, plan)
    batch.refuse_misfits()
    if not batch.read:
        raise DeliveryError("empty-batch", "the files of the batch hold no rows")
    batch.reject_whole_files()
    for table in contract.tables:
        batch.reject_duplicates(table)
    batch.check_tolerance()
    tables.check_rules(contract, batch.accepted)
    if plan.mode != "load":
        return batch.published(0)
    batch.check_sum()
    _load(delivery, plan, contract.tables, batch, database)
    shutil.rmtree(delivery.staged_dir / "unpacked", ignore_errors=True)
    return batch.published(batch.loadable)


def _load(
    delivery: Delivery,
    plan: Plan,
    known: tuple[Table, ...],
    batch: _Batch,
    database: Callable[[], Place] | None,
) -> None:
    replaced = [delivery.batch_id, *retired_by(delivery, plan)]
    commit = load.Commit(delivery.batch_id, delivery.attempt, delivery.job_id, tuple(replaced))
    filled = {t.name: t for t in known if batch.accepted[t.name]}
    load.check_current(delivery.curated_dir, filled, commit)
    rows = {n: load.Rows(batch.accepted[n], batch.rows_of(n), t) for n, t in filled.items()}
    there = postgres.replacing(database(), delivery.project, rows, commit) if database else None
    with there or nullcontext():
        for name in filled:
            load.replace_batch(delivery.curated_dir / name, rows[name], commit)
        for other in load.tables_in(delivery.curated_dir):
            if other.name not in filled:
                load.remove_batch(other, commit)


def retired_by(delivery: Delivery, plan: Plan) -> list[str]:
    """Name the batches whose rows go when this one's come; each is retired for good."""
    order = Order.read(delivery)
    named = [*([plan.supersedes] if plan.supersedes else []), *(order.retires if order else ())]
    return [each for each in dict.fromkeys(named) if each != delivery.batch_id]


class _Batch:
    """All parts of a batch, and what is left of them as rules of the whole are applied."""

    def __init__(self, delivery: Delivery, plan: Plan, results: list[FileResult]) -> None:
        self.delivery = delivery
        self.plan = plan
        self.results = results
        self.read = sum(r.read for r in results)
        self.rejected_before = sum(r.rejected for r in results)
        self.rejected_here = 0
        self.rejects: list[Reject] = []
        self.dropped: set[str] = set()
        self.repeated: dict[str, int] = defaultdict(int)
        self.rejected_files = {r.file for r in results if r.rejected or r.table is None}
        self.accepted: dict[str, list[Path]] = defaultdict(list)
        self.counts: dict[str, int] = defaultdict(int)
        for result in results:
            self._accept(result)

    @classmethod
    def gather(cls, delivery: Delivery, plan: Plan) -> _Batch:
        results = []
        for index in range(len(plan.groups)):
            results += results_of(delivery, index)
        return cls(delivery, plan, results)

    @property
    def policy(self) -> str:
        return str(self.plan.on_reject.get("policy", "fail-batch"))

    @property
    def rejected(self) -> int:
        return self.rejected_before + self.rejected_here

    @property
    def loadable(self) -> int:
        return sum(self.counts.values())

    def published(self, loaded: int) -> Published:
        files = self.files(is_loaded=loaded > 0)
        return Published(self.read, loaded, self.rejected, self.rejected_here, self.rejects, files)

    def files(self, *, is_loaded: bool) -> list[FileRows]:
        """Give each file's rows that were loaded, and those that were rejected here."""
        left = [FileRows(r.file, 0, self.left(r), 0) for r in self.results]
        had = {f.file: f.loaded for f in together([_accepted(r) for r in self.results])}
        for file, count in self.repeated.items():
            left.append(FileRows(file, 0, -count, 0))
        return [
            replace(
                each,
                loaded=each.loaded if is_loaded else 0,
                rejected=had[each.file] - each.loaded,
            )
            for each in together(left)
        ]

    def left(self, result: FileResult) -> int:
        """How many rows of a chunk the rules for whole files leave."""
        return 0 if result.file in self.dropped else _accepted(result).loaded

    def rows_of(self, table: str) -> int:
        return self.counts[table]

    def _accept(self, result: FileResult) -> None:
        if result.table is not None:
            self.accepted[result.table] += map(Path, result.parts)
            self.counts[result.table] += result.read - result.rejected

    def refuse_misfits(self) -> None:
        chunks = [c for group in self.plan.groups for c in group if c.table is None]
        misfits = [planning.misfit_reject(chunk) for chunk in chunks]
        if misfits and (self.policy != "reject-file" or len(misfits) == len(self.results)):
            error = planning.misfit_error(misfits)
            raise DeliveryError(error.code, error.detail)  # the parts have told the rejects

    def reject_whole_files(self) -> None:
        """Under ``reject-file``, take all rows of a file that has a rejected one."""
        if self.policy == "reject-file":
            self._drop_files(self.rejected_files)

    def _drop_files(self, files: set[str]) -> None:
        self.dropped = set(files)
        self.accepted.clear()
        self.counts.clear()
        for result in self.results:
            if result.file not in files:
                self._accept(result)
        self.rejected_here = self.read - self.rejected_before - self.loadable

    def reject_duplicates(self, table: Table) -> None:
        """Reject every row that repeats a key of an earlier one, across all files."""
        if not self.accepted[table.name] or not table.unique_keys:
            return
        repeated = tables.find_duplicates(self.accepted[table.name], table)
        if not repeated.count:
            return
        self.rejects = (self.rejects + repeated.rejects)[:MAX_REJECTS_PER_PART]
        if self.policy == "reject-file":
            self.rejected_files |= set(repeated.rows["_file"])
            self._drop_files(self.rejected_files)
            return
        target = fresh_dir(self.delivery.staged_dir / "accepted" / table.name) / "0000.parquet"
        tables.without(self.accepted[table.name], repeated.rows).sink_parquet(target)
        self.accepted[table.name] = [target]
        self.counts[table.name] -= repeated.count
        for file, count in repeated.rows.group_by("_file").len().iter_rows():
            self.repeated[file] += count
        self.rejected_here += repeated.count

    def check_tolerance(self) -> None:
        """Compare what was rejected with what the project allows."""
        reason = over_tolerance(self.read, self.rejected, self.plan.on_reject)
        if reason is None and not self.loadable and self.plan.mode == "load":
            reason = "no row is left to load"
        if reason is not None:
            detail = f"{self.rejected} of {self.read} rows were rejected; {reason}"
            raise DeliveryError("too-many-rejects", detail, self.rejects, self.rejected_here)

    def check_sum(self) -> None:
        """Refuse to load if a row is neither loaded nor counted as rejected."""
        if self.read != self.loadable + self.rejected:
            msg = f"{self.read} rows read, {self.loadable} to load, {self.rejected} rejected"
            raise RuntimeError(msg)


def _accepted(result: FileResult) -> FileRows:
    count = 0 if result.table is None else result.read - result.rejected
    return FileRows(result.file, 0, count, 0)


def over_tolerance(read: int, rejected: int, on_reject: dict[str, Any]) -> str | None:
    """Tell which limit is passed, or None if the rejected rows are within what is allowed."""
    policy = on_reject.get("policy", "fail-batch")
    if not rejected:
        return None
    if policy == "fail-batch":
        return "the project allows none"
    max_rows, max_percent = on_reject.get("max_rows"), on_reject.get("max_percent")
    if max_rows is not None and rejected > max_rows:
        return f"the project allows {max_rows} rows"
    if max_percent is not None and rejected * 100 > read * max_percent:
        return f"the project allows {max_percent} percent"
    return None
