"""Makes a project's curated tables again, aside, and puts them in place by one commit each.

The commit replaces all rows of the table as it was when the work began. Its readers see the old
rows or the new ones; a commit that came between makes this one fail, and nothing is changed.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from pipeline import load
from pipeline.order import Order
from pipeline.plan import make_plan
from pipeline.process import process_group
from pipeline.publish import publish_batch
from pipeline.purge import delivery_of

if TYPE_CHECKING:
    from collections.abc import Mapping


class ChangedError(Exception):
    """The tables have changed while they were made again."""


def run(task: dict[str, Any], roots: Mapping[str, str]) -> dict[str, Any]:
    """Rebuild the tables of a project; give the rows that each has now.

    Raises
    ------
    ChangedError
        Somebody loaded, meanwhile or before, what the task does not know of; run it again.
    DeliveryError
        A batch cannot be loaded as it was.
    """
    project = Path(roots["INGEST_CURATED_DIR"]) / task["client"] / task["project"]
    live = {path.name: DeltaTable(str(path)) for path in load.tables_in(project)}
    known = {each["batch"]: each["attempt"] for each in task["batches"]}
    for table in live.values():
        _refuse_unknown(table, known, {*task["retired"], *task["left_out"]})
    with tempfile.TemporaryDirectory(dir=roots["INGEST_STAGED_DIR"], prefix=".rebuild-") as aside:
        made = _make(task, roots, Path(aside))
        return {
            "tables": {
                name: _swap(project / name, live.get(name), made.get(name), known, task["retired"])
                for name in sorted({*live, *made})
            }
        }


def _refuse_unknown(table: DeltaTable, known: dict[str, int], others: set[str]) -> None:
    there = pl.scan_delta(table).select(pl.col("_batch_id").unique()).collect().to_series()
    for batch in there:
        attempt = table.transaction_version(batch)
        is_later = batch in known and attempt is not None and attempt > known[batch]
        if is_later or (batch not in known and batch not in others):
            msg = f"{batch} was loaded meanwhile; run it again"
            raise ChangedError(msg)


def _make(task: dict[str, Any], roots: Mapping[str, str], aside: Path) -> dict[str, DeltaTable]:
    for each in task["batches"]:
        named = {**each, "client": task["client"], "project": task["project"]}
        found = delivery_of(named, each["job"], each["attempt"], roots)
        delivery = replace(found, staged=aside / "staged", curated=aside / "curated")
        plan = make_plan(delivery, each["contract"], each["on_reject"], task["jwks"])
        Order(each["contract"], each["on_reject"]).write(delivery)
        for index in range(len(plan.groups)):
            process_group(delivery, plan, index)
        publish_batch(delivery, plan)
    tables = load.tables_in(aside / "curated" / task["client"] / task["project"])
    return {path.name: DeltaTable(str(path)) for path in tables}


def _swap(
    path: Path,
    live: DeltaTable | None,
    made: DeltaTable | None,
    known: dict[str, int],
    retired: list[str],
) -> int:
    source = made if made is not None else live
    assert source is not None  # noqa: S101 - one of them named the table
    rows = source.to_pyarrow_dataset()
    count = 0 if made is None else rows.count_rows()
    empty = rows.schema.empty_table()
    versions = known | dict.fromkeys(retired, load.SUPERSEDED)
    properties = CommitProperties(
        custom_metadata={"rebuilt": "true"},
        max_commit_retries=0,
        app_transactions=[Transaction(batch, version) for batch, version in versions.items()],
    )
    try:
        write_deltalake(
            live if live is not None else str(path),
            empty if made is None else rows.scanner().to_reader(),
            mode="overwrite",
            schema_mode="overwrite",
            partition_by=["_batch_id"],
            commit_properties=properties,
        )
    except CommitFailedError as error:
        msg = f"{path.name} was written to meanwhile; run it again"
        raise ChangedError(msg) from error
    return count
