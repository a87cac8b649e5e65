"""The second step, once per chunk group: text to typed, judged rows in Parquet."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import polars as pl

from pipeline import plan as planning
from pipeline import reading
from pipeline.limits import Limits
from pipeline.normalize import normalize
from pipeline.outcome import FileRows, together
from pipeline.rejects import MAX_REJECTS_PER_PART, Reject
from pipeline.staging import (
    FileResult,
    Plan,
    part_dir,
    read_json,
    replace_dir,
    try_dir,
    write_json,
)
from pipeline.validate import Judge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.delivery import Delivery
    from pipeline.records import BadRow, Rows
    from pipeline.staging import Chunk


@dataclass(frozen=True)
class Processed:
    """What one task did: counts in full, rejects up to a cap."""

    read: int
    rejected: int
    rejects: list[Reject]
    files: list[FileRows]

    @classmethod
    def of(cls, results: list[FileResult], rejects: list[Reject]) -> Processed:
        """Sum up the chunks of one part."""
        files = [FileRows(r.file, r.read, 0, r.rejected) for r in results]
        read, rejected = sum(r.read for r in results), sum(r.rejected for r in results)
        return cls(read, rejected, rejects[:MAX_REJECTS_PER_PART], together(files))


def results_of(delivery: Delivery, index: int) -> list[FileResult]:
    """Give what became of a part's chunks; ``parts`` are paths."""
    directory = part_dir(delivery, index)
    found = []
    for value in read_json(directory / "result.json"):
        parts = tuple(str(directory / name) for name in value["parts"])
        found.append(FileResult(**{**value, "parts": parts}))
    return found


def process_group(
    delivery: Delivery, plan: Plan, index: int, limits: Limits | None = None
) -> Processed:
    """Process the chunks of one group; a second try replaces what the first one wrote.

    Raises
    ------
    DeliveryError
        ``unreadable-file`` if a file turns out to be damaged, ``invalid-contract``.
    """
    contract = planning.read_project_contract(plan.contract)
    final = part_dir(delivery, index)
    working = try_dir(final)
    results: list[FileResult] = []
    rejects: list[Reject] = []
    judges = {table.name: Judge(table) for table in contract.tables}
    for number, chunk in enumerate(plan.groups[index]):
        worker = _ChunkWorker(delivery, judges, chunk, working, number, limits or Limits())
        results.append(worker.run(room=MAX_REJECTS_PER_PART - len(rejects)))
        rejects += worker.rejects
    write_json(working / "result.json", [asdict(result) for result in results])
    write_json(working / "rejects.json", [asdict(each) for each in rejects[:MAX_REJECTS_PER_PART]])
    replace_dir(working, final)
    return Processed.of(results, rejects)


class _ChunkWorker:
    """Reads one chunk, block by block, and writes a Parquet part for each."""

    def __init__(
        self,
        delivery: Delivery,
        judges: dict[str, Judge],
        chunk: Chunk,
        directory: Path,
        number: int,
        limits: Limits,
    ) -> None:
        self.delivery = delivery
        self.judges = judges
        self.chunk = chunk
        self.directory = directory
        self.number = number
        self.limits = limits
        self.read = self.rejected = 0
        self.rejects: list[Reject] = []
        self.parts: list[str] = []

    def run(self, *, room: int) -> FileResult:
        if self.chunk.table is None:
            self._count_only()
        else:
            self._judge(self.judges[self.chunk.table], room)
        chunk = self.chunk
        parts = tuple(self.parts)
        return FileResult(
            chunk.file, chunk.table, self.read, self.rejected, parts, refusal=chunk.refusal
        )

    def _count_only(self) -> None:
        self.read = self.rejected = sum(rows.count for rows in self._rows())
        self.rejects = [planning.misfit_reject(self.chunk)]

    def _judge(self, judge: Judge, room: int) -> None:
        positions = {name: i for i, name in enumerate(self.chunk.heading)}
        for rows in self._rows():
            frame = normalize(rows.frame, judge.table, positions)
            judged = judge.judge(frame, self.chunk.file, room=room - len(self.rejects))
            self.read += rows.count
            self.rejected += judged.rejected + len(rows.bad)
            described = judged.rejects + [self._shape_reject(bad) for bad in rows.bad]
            described.sort(key=lambda reject: reject.line)
            self.rejects += described[: room - len(self.rejects)]
            self._write(judged.good)

    def _rows(self) -> Iterator[Rows]:
        table = None if self.chunk.table is None else self.judges[self.chunk.table].table
        return reading.rows_of(self.delivery, self.chunk, table, self.limits)

    def _shape_reject(self, bad: BadRow) -> Reject:
        return Reject(self.chunk.file, bad.line, None, bad.rule, bad.text)

    def _write(self, good: pl.DataFrame) -> None:
        if not good.height:
            return
        name = f"{self.number:04d}-{len(self.parts):04d}.parquet"
        good.select(
            pl.all().exclude("_line"),
            pl.lit(self.chunk.file).alias("_file"),
            "_line",
        ).write_parquet(self.directory / name, compression="zstd", compression_level=1)
        self.parts.append(name)
