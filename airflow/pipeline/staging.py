"""What a job keeps between its steps: one directory, replaced as a whole when a step runs again."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.text import Dialect

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.delivery import Delivery

_DIR_MODE = 0o750


@dataclass(frozen=True)
class Chunk:
    """A stretch of one file that one task reads.

    ``source`` is ``landing`` (``name`` is a landed file) or ``unpacked`` (a file of the job's own
    directory). ``table`` is None for a file that fits none: its rows are counted, and all of them
    are rejected. ``heading`` names the table's column at each position. ``size_bytes`` is the
    stretch's own. ``offset`` and ``length`` count bytes of a text and row groups of a Parquet file;
    ``first_line`` is the line, or else the row, with which the stretch begins. ``keys`` are the names
    by which records of JSON know the columns of ``heading``.
    """

    file: str
    source: str
    name: str
    size_bytes: int
    table: str | None
    heading: tuple[str, ...]
    dialect: Dialect
    refusal: str | None = None
    refused_columns: str | None = None
    offset: int = 0
    length: int | None = None
    first_line: int = 1
    kind: str = "csv"
    sheet: str | None = None
    keys: tuple[str, ...] = ()
    part: int = 1
    parts: int = 1

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Chunk:
        """Read what `Plan.write` wrote."""
        dialect = Dialect(**value["dialect"])
        lists = {name: tuple(value[name]) for name in ("heading", "keys")}
        return cls(**{**value, **lists, "dialect": dialect})


@dataclass(frozen=True)
class Plan:
    """Everything that later steps need to know; ``groups`` holds each task's chunks."""

    contract: dict[str, Any]
    on_reject: dict[str, Any]
    mode: str
    supersedes: str | None
    groups: tuple[tuple[Chunk, ...], ...]

    def write(self, delivery: Delivery) -> None:
        """Keep the plan."""
        write_json(delivery.staged_dir / "plan.json", asdict(self))

    @classmethod
    def read(cls, delivery: Delivery) -> Plan:
        """Give the plan that this job's first step kept."""
        value = read_json(delivery.staged_dir / "plan.json")
        groups = tuple(tuple(Chunk.from_json(c) for c in group) for group in value["groups"])
        return cls(**{**value, "groups": groups})


@dataclass(frozen=True)
class FileResult:
    """What became of a chunk: ``parts`` are Parquet files, relative to the job's directory."""

    file: str
    table: str | None
    read: int
    rejected: int
    parts: tuple[str, ...]
    refusal: str | None = None


def fresh_dir(path: Path) -> Path:
    """Give an empty directory, whatever was there before."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=_DIR_MODE, parents=True)
    return path


def try_dir(final: Path) -> Path:
    """Give an empty directory for this try of what shall become ``final``.

    No other try writes into it. What earlier ones have left goes, so that one that is still at work
    on a machine thought lost fails instead of taking the place of this one's rows.
    """
    for left in final.parent.glob(f"{final.name}.*"):
        shutil.rmtree(left, ignore_errors=True)
    return fresh_dir(final.with_name(f"{final.name}.{uuid.uuid4().hex}"))


def replace_dir(finished: Path, final: Path) -> None:
    """Give a finished directory its final name."""
    shutil.rmtree(final, ignore_errors=True)
    finished.replace(final)


def write_json(path: Path, value: Any) -> None:
    """Write a file so that it is there wholly or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    os.replace(temporary, path)  # noqa: PTH105


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def unpacked_dir(delivery: Delivery) -> Path:
    """Where files out of archives lie, each under a number."""
    return delivery.staged_dir / "unpacked"


def part_dir(delivery: Delivery, index: int) -> Path:
    """Where the task of that index keeps its rows."""
    return delivery.staged_dir / "parts" / f"{index:04d}"
