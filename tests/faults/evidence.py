"""What the checker goes by: the client's history, the disk, the database. Read, never judged here.

Nothing of the gateway is imported: its tables are asked in plain SQL, its files are opened by path.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras

PLACE = ("client", "project", "batch", "files")
TABLES = (
    "batch",
    "file",
    "upload",
    "manifest",
    "job",
    "outbox_message",
    "audit_event",
    "audit_head",
    "event",
    "feed_head",
)
Row = dict[str, Any]
Key = tuple[str, str]


@dataclass(frozen=True)
class Content:
    """Bytes found somewhere."""

    size_bytes: int
    sha256: str


@dataclass
class Promises:
    """What the client was told, and what it has asked for at all.

    Attributes
    ----------
    stored
        Acknowledged files that it has not tried to take back since.
    tried
        Every content it ever sent under a name.
    offsets
        How far the server said that each resumable upload is.
    """

    batches: dict[str, Row] = field(default_factory=dict)
    stored: dict[Key, Row] = field(default_factory=dict)
    tried: dict[Key, set[str]] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)
    sealed: dict[str, str] = field(default_factory=dict)
    seals_tried: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path) -> Promises:
        """Go through a history. A last line without its end was never finished, and is passed over."""
        found = cls()
        for line in path.read_text().split("\n")[:-1]:
            found.take(json.loads(line))
        return found

    def take(self, line: Row) -> None:
        batch, key = line.get("batch", ""), (line.get("batch", ""), line.get("name", ""))
        match line["what"], line["acknowledged"]:
            case "batch", True:
                self.batches[batch] = line
            case "file", is_stored:
                self.tried.setdefault(key, set()).add(line["sha256"])
                if is_stored:
                    self.stored[key] = line
            case "offset", True:
                known = self.offsets.get(line["upload"], 0)
                self.offsets[line["upload"]] = max(known, line["offset_bytes"])
            case "seal", is_sealed:
                self.seals_tried.add(batch)
                if is_sealed:
                    self.sealed[batch] = line["job"]
            case "delete", _:
                self.stored.pop(key, None)
            case "cancel", _:
                self.stored = {each: row for each, row in self.stored.items() if each[0] != batch}


@dataclass
class Disk:
    """The landing zone: parts by their sizes; what is no regular file has no content."""

    published: dict[tuple[str, str, str, str], Content | None]
    documents: dict[Key, bytes]
    parts: dict[str, int]
    quarantine: dict[str, Content | None]
    strangers: list[str]

    @classmethod
    def read(cls, root: Path) -> Disk:
        published: dict[tuple[str, str, str, str], Content | None] = {}
        documents: dict[Key, bytes] = {}
        strangers: list[str] = []
        for path in _walk(root):
            steps = path.relative_to(root).parts
            if steps[0] in {".parts", ".quarantine"}:
                continue
            if len(steps) == len(PLACE) + 1 and steps[3] == "files":
                published[steps[0], steps[1], steps[2], steps[4]] = content_of(path)
            elif len(steps) == len(PLACE) and not path.is_symlink():
                documents[steps[2], steps[3]] = path.read_bytes()
            else:
                strangers.append(str(path.relative_to(root)))
        parts = {each.name: each.lstat().st_size for each in _entries(root / ".parts")}
        quarantine = {each.name: content_of(each) for each in _entries(root / ".quarantine")}
        return cls(published, documents, parts, quarantine, strangers)


def _walk(root: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(root, followlinks=False):
        linked = [each for each in folders if (Path(place) / each).is_symlink()]
        yield from (Path(place) / each for each in (*names, *linked))


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def content_of(path: Path) -> Content | None:
    """Read a file; None for what is no regular file."""
    if path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return Content(file.tell(), digest.hexdigest())


@dataclass
class Ledger:
    """Every row of the tables that matter, all of one moment."""

    tables: dict[str, list[Row]]

    @classmethod
    def at(cls, url: str) -> Ledger:
        """Read a database, every table as of the same moment."""
        connection = psycopg2.connect(url.replace("+psycopg2", ""))
        try:
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            return cls.read(connection)
        finally:
            connection.close()

    @classmethod
    def read(cls, connection: Any) -> Ledger:
        """Read what a connection sees."""
        with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            return cls({name: _rows(cursor, name) for name in TABLES})

    def of(self, name: str) -> list[Row]:
        return self.tables[name]

    def audited(self, action: str) -> list[Row]:
        return [row for row in self.of("audit_event") if row["action"] == action]


def _rows(cursor: Any, name: str) -> list[Row]:
    cursor.execute(f"SELECT * FROM {name}")
    return [dict(row) for row in cursor.fetchall()]
