"""Telling a person what happens: bars on a terminal, plain lines in a log.

Progress and warnings go to standard error, results to standard output. What comes from
elsewhere (names, rejected values, the gateway's words) is stripped of control characters, so
that nothing in a data file can steer the terminal.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from gateway.sdk.delivery import Delivered
from gateway.sdk.files import LocalFile
from gateway.sdk.records import Batch, Job, Reject, Step

_WORDS = TextColumn("{task.description}", markup=False)
_UNITS = ("B", "kB", "MB", "GB", "TB")


def printable(text: str) -> str:
    """Return a text in which every control character is a question mark."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def human_size(size_bytes: int) -> str:
    """Return a size as people write it."""
    size, unit = float(size_bytes), 0
    while size >= 1000 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - SI prefixes
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} B" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"


def describe(job: Job) -> str:
    """Return one line that says how a job stands."""
    parts = [f"{job.id} {job.state}"]
    if job.waiting_reason and not job.has_ended:
        parts.append(f"waiting: {job.waiting_reason}")
    parts += [_describe_step(step) for step in job.steps]
    if any((job.rows.read, job.rows.loaded, job.rows.rejected)):
        rows = job.rows
        parts.append(f"rows: {rows.read} read, {rows.loaded} loaded, {rows.rejected} rejected")
    if job.error:
        parts.append(job.error)
    return printable("; ".join(parts))


class Display:
    """Says on standard error how a delivery and its job go; safe to call from many threads."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._total: TaskID | None = None
        self._stored = 0
        self._sent: dict[Path, int] = {}
        self._steps: dict[str, TaskID] = {}
        self._last_line = ""

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(printable(text), soft_wrap=True)

    @contextmanager
    def sending(self, paths: Sequence[Path]) -> Iterator[None]:
        """Show a bar of the bytes of these files."""
        columns = (_WORDS, BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with self._bars(*columns) as progress:
            total_bytes = sum(path.stat().st_size for path in paths if path.is_file())
            self._stored = 0
            self._total = progress.add_task("sending", total=total_bytes)
            yield

    @contextmanager
    def following(self) -> Iterator[None]:
        """Show a bar for each step of the job."""
        columns = (_WORDS, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with self._bars(*columns):
            self._steps = {}
            yield

    def found(self, batch: Batch, *, is_new: bool) -> None:
        """Tell which batch it is, and whether it was there before."""
        known = "new" if is_new else f"known before, {batch.state}"
        self.say(f"{batch.project} {batch.reference} is {batch.id} ({known})")

    def sent(self, path: Path, sent_bytes: int) -> None:
        """Move the bar to what this attempt has sent of a file."""
        with self._lock:
            self._sent[path] = sent_bytes
            if self._progress and self._total is not None:
                self._progress.update(self._total, completed=sum(self._sent.values()))

    def stored(self, file: LocalFile, *, skipped: bool) -> None:
        """Tell that the gateway has a file."""
        self.sent(file.path, file.size_bytes)
        if self._console.is_terminal:
            self._count()
        else:
            verb = "already there" if skipped else "sent"
            self.say(f"{verb}: {file.name} ({human_size(file.size_bytes)})")

    def sealed(self, delivered: Delivered) -> None:
        """Tell that the delivery is complete and proven."""
        self.say(f"sealed: {len(delivered.files)} files, receipt verified, {delivered.job}")

    def changed(self, job: Job) -> None:
        """Tell how a job stands now."""
        if not self._console.is_terminal or self._progress is None:
            self._line(job)
            return
        self._bar(self._progress, job.id, describe_state(job), None if not job.has_ended else 1)
        for step in job.steps:
            self._bar(self._progress, step.name, f"  {step.name} {step.state}", step.total, step)

    def rejects(self, rejects: Iterable[Reject], total: int) -> None:
        """Warn of rejected rows, showing some."""
        self.say(f"warning: {total} rows were rejected; the first:")
        for reject in rejects:
            place = f"{reject.file}:{reject.line}" if reject.line else reject.file
            self.say(f"  {place} {reject.column}: {reject.rule}, got {reject.value!r}")

    @contextmanager
    def _bars(self, *columns: ProgressColumn) -> Iterator[Progress]:
        bars = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        with bars as progress:
            self._progress = progress
            try:
                yield progress
            finally:
                self._progress = None

    def _count(self) -> None:
        with self._lock:
            self._stored += 1
            if self._progress and self._total is not None:
                words = f"sending, {self._stored} files there"
                self._progress.update(self._total, description=words)

    def _bar(
        self,
        progress: Progress,
        key: str,
        words: str,
        total: int | None,
        step: Step | None = None,
    ) -> None:
        if key not in self._steps:
            self._steps[key] = progress.add_task(printable(words), total=total)
        done = step.done if step else total or 0
        progress.update(self._steps[key], description=printable(words), total=total, completed=done)

    def _line(self, job: Job) -> None:
        line = describe(job)
        if line != self._last_line:
            self.say(line)
        self._last_line = line


def describe_state(job: Job) -> str:
    """Return a job's id and state, and what it waits for."""
    reason = f" ({job.waiting_reason})" if job.waiting_reason and not job.has_ended else ""
    return f"{job.id} {job.state}{reason}"


def _describe_step(step: Step) -> str:
    total = "" if step.total is None else f"/{step.total}"
    return f"{step.name} {step.state} {step.done}{total}"
