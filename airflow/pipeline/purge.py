"""Retention of the pipeline's own layers: staged directories, and rows of curated tables.

Everything here may be done again: what a crash leaves is taken by the next round.
"""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Any

from deltalake import CommitProperties, DeltaTable

from pipeline import load
from pipeline.delivery import read_conf

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.delivery import Delivery


def run(task: dict[str, Any], roots: Mapping[str, str]) -> dict[str, Any]:
    """Remove each layer that is named.

    Raises
    ------
    ConfError
        If a name cannot be one; what stood before it has been removed.
    """
    for each in task["layers"]:
        for job in each["jobs"]:
            delivery = delivery_of(each, job, 1, roots)
            if each["layer"] == "staged":
                _remove(delivery.staged_dir)
        if each["layer"] == "curated":
            delivery = delivery_of(each, each["jobs"][0], 1, roots)
            for table in load.tables_in(delivery.curated_dir):
                remove_rows(table, delivery.batch_id)
    return {"purged": len(task["layers"])}


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)
    with contextlib.suppress(OSError):
        path.parent.rmdir()  # holds what later attempts staged, perhaps


def delivery_of(
    named: dict[str, Any], job: str, attempt: int, roots: Mapping[str, str]
) -> Delivery:
    """Give the places of a batch, from names that are checked as those of a run are."""
    conf = {
        "contract": 1,
        "job_id": job,
        "batch_id": named["batch"],
        "client": named["client"],
        "project": named["project"],
        "attempt": attempt,
    }
    return read_conf(
        conf,
        client=named["client"],
        project=named["project"],
        run_id=f"gw.{job}",
        roots=roots,
    )


def remove_rows(path: Path, batch_id: str) -> None:
    """Take a batch's rows out of a table, and their files off the disk.

    No job of the batch is active, so nobody else writes into its partition.
    """
    predicate = f"_batch_id = '{batch_id}'"

    def attempt() -> None:
        table = DeltaTable(str(path))
        if table.file_uris(file_pruning_predicate=predicate):
            properties = CommitProperties(
                custom_metadata={"batch_id": batch_id, "purged": "true"}, max_commit_retries=0
            )
            table.delete(predicate, commit_properties=properties)

    load.until_committed(attempt)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path / f"_batch_id={batch_id}")
