"""The audit chain, computed again from its documented form alone.

A record's hash is the SHA-256 of the RFC 8785 form of its fields, the time in UTC with microseconds
and the hash of the record before it among them; the first follows on 64 zeros.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC
from typing import Any

import rfc8785

FIRST = "0" * 64
FIELDS = (
    "number",
    "id",
    "at",
    "actor",
    "action",
    "client",
    "subject",
    "details",
    "request_id",
    "previous_hash",
)
Row = dict[str, Any]


def broken(events: list[Row], heads: list[Row]) -> Iterator[tuple[str, str]]:
    """Yield what does not hold: a kind, and where."""
    last, number = FIRST, 0
    for row in sorted(events, key=lambda each: each["number"]):
        number += 1
        if row["number"] != number:
            yield "record-missing", str(number)
            number = row["number"]
        elif row["previous_hash"] != last:
            yield "record-not-linked", str(number)
        if _hash(row) != row["hash"]:
            yield "record-changed", str(number)
        last = row["hash"]
    if [(each["number"], each["hash"]) for each in heads] != [(number, last)]:
        yield "head-elsewhere", str(number)


def unlike_export(lines: list[str], events: list[Row]) -> Iterator[tuple[str, str]]:
    """Compare an export with the records: the same, up to the signed head that ends it."""
    *records, end = [json.loads(line) for line in lines]
    kept = {row["number"]: row["hash"] for row in events}
    last, number = FIRST, 0
    for number, record in enumerate(records, 1):
        content = {name: record[name] for name in FIELDS}
        if record["previous_hash"] != last or _digest(content) != record["hash"]:
            yield "export-broken", str(number)
        if kept.get(number) != record["hash"]:
            yield "export-unlike-record", str(number)
        last = record["hash"]
    if (end["head"]["number"], end["head"]["hash"]) != (number, last):
        yield "export-cut-short", str(number)


def _hash(row: Row) -> str:
    content = {name: row[name] for name in FIELDS}
    content["at"] = row["at"].astimezone(UTC).isoformat(timespec="microseconds")
    return _digest(content)


def _digest(content: Row) -> str:
    return hashlib.sha256(rfc8785.dumps(content)).hexdigest()
