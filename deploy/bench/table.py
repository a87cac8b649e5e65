"""Ratios of what was measured, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# What there are of each case: one figure a round, or why there is none.
Figures = Sequence[float] | str
# The whole reason is in the JSON.
NOTE_WIDTH = 90


@dataclass(frozen=True)
class Row:
    """One comparison; a ratio above 1 means that we are ahead.

    Attributes
    ----------
    ours, peer, ratio
        None where it could not be measured; `note` says why.
    target
        None where the figure is for information.
    rounds
        How often both were measured.
    """

    metric: str
    unit: str
    ours: float | None
    peer: float | None
    peer_name: str
    ratio: float | None
    target: float | None
    rounds: int
    note: str = ""

    @property
    def verdict(self) -> str:
        """``pass``, ``miss``, ``-`` without a target, ``n/a`` without a figure."""
        if self.ratio is None:
            return "n/a"
        if self.target is None:
            return "-"
        return "pass" if self.ratio >= self.target else "miss"


def compare(
    metric: str,
    unit: str,
    ours: Figures,
    peer: Figures,
    peer_name: str,
    target: float | None,
    *,
    less_is_better: bool = False,
) -> Row:
    """Compare the medians of two cases.

    Parameters
    ----------
    less_is_better
        The ratio is then turned over, so that above 1 still means ahead.
    """
    found = [None if isinstance(each, str) else statistics.median(each) for each in (ours, peer)]
    notes = [each for each in (ours, peer) if isinstance(each, str)]
    mine, other = found
    ratio = None
    if mine is not None and other is not None:
        high, low = (other, mine) if less_is_better else (mine, other)
        ratio = high / low if low > 0 else float(high > 0)
    rounds = min(0 if isinstance(each, str) else len(each) for each in (ours, peer))
    return Row(metric, unit, mine, other, peer_name, ratio, target, rounds, "; ".join(notes))


def render(rows: Sequence[Row]) -> str:
    """Return the table as Markdown, which reads on a terminal too."""
    heads = ["metric", "ours", "peer", "against", "ratio", "target", ""]
    lines = [heads, *([_figure(cell) for cell in _cells(row)] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)


def write(rows: Sequence[Row], path: Path) -> None:
    """Write the rows as a JSON list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def _cells(row: Row) -> list[float | str | None]:
    ours = f"{_figure(row.ours)} {row.unit}"
    shown = textwrap.shorten(row.note, NOTE_WIDTH, placeholder=" ...")
    verdict = f"{row.verdict}: {shown}" if row.note else row.verdict
    return [row.metric, ours, row.peer, row.peer_name, row.ratio, row.target, verdict]


def _figure(value: float | str | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"  # noqa: PLR2004
