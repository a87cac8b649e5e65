"""What a task's log says, whatever was delivered."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from gateway.provider import telling
from gateway.sdk.files import LocalFile
from gateway.sdk.records import Batch, Reject


def test_rejects_are_a_table_that_nothing_in_the_data_can_break() -> None:
    shown = [
        Reject("a.zip/flights_02.csv", 502, "month", "maximum", "13"),
        Reject("b\n.csv", None, "", "row-length", "x" * 500),
    ]
    lines = list(telling.reject_lines(shown, 70_000))
    assert lines[0] == "70000 rows were rejected; the first 2:"
    assert lines[1] == "  file                  line  column  rule        value"
    assert lines[2] == "  a.zip/flights_02.csv  502   month   maximum     '13'"
    assert len("\n".join(lines).splitlines()) == 4
    assert len(lines[3]) < 300


def test_one_reject_is_one_row() -> None:
    assert next(telling.reject_lines([Reject("a.csv", 2, "id", "type", "x")], 1)) == (
        "1 row was rejected:"
    )


def test_many_files_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("test_telling")
    watcher = telling.LogWatcher(log)
    with caplog.at_level(logging.INFO):
        watcher.found(Batch("bat_1", "flights", "r\x1b[2J", "open"), is_new=False)
        for number in range(10_000):
            file = LocalFile(Path(f"{number}.csv"), f"{number}.csv", 10, "", (0, 0, 0, 0))
            watcher.sent(file.path, 10)
            watcher.stored(file, skipped=False)
    assert len(caplog.records) < 60
    assert caplog.records[0].getMessage() == "flights r?[2J is bat_1 (known before, open)"
    assert caplog.records[-1].getMessage() == "10000 files are there"
    assert not watcher.was_sealed
