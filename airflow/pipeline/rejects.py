"""One refused place in a delivery, as the gateway hears of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MAX_REJECTS_PER_PART = 1_000
MAX_VALUE_CHARS = 200
MAX_RULE_CHARS = 200
MAX_DETAIL_CHARS = 1_000


@dataclass(frozen=True, order=True)
class Reject:
    """Where a row, or a whole file, was refused and why.

    ``line`` is the physical line on which the row starts, counted from 1 in the unpacked file.
    """

    file: str
    line: int
    column: str | None
    rule: str
    value: str | None

    def as_json(self) -> dict[str, Any]:
        """Give the shape that the gateway stores, with a value that any database accepts."""
        value = None if self.value is None else printable(self.value)
        return {**asdict(self), "rule": shorten(self.rule, MAX_RULE_CHARS), "value": value}


def printable(value: str, limit: int = MAX_VALUE_CHARS) -> str:
    """Shorten a value and show what cannot be printed as its escape."""
    kept = value[: limit + 1]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in kept)
    return shorten(shown, limit)


def shorten(text: str, limit: int) -> str:
    """Cut a text that is too long, and show that it was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
