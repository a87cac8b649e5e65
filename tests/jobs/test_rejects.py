from __future__ import annotations

import csv
import io
import json
import tracemalloc

import pytest
from sqlalchemy.orm import Session, sessionmaker

from gateway.jobs import rejects
from gateway.jobs.model import Job
from tests.jobs import making


@pytest.fixture
def job(sessions: sessionmaker[Session]) -> Job:
    return making.queued(sessions)


def parts(sessions: sessionmaker[Session], job: Job, count: int) -> None:
    for index in range(count):
        found = making.rejects(1000, file=f"{index:03}.csv", value="v" * 200)
        making.report(sessions, job, map_index=index, total=count, rejects=found)


def test_all_pages_follow_in_order_of_part_and_line(
    sessions: sessionmaker[Session], job: Job
) -> None:
    parts(sessions, job, 3)
    text = "".join(rejects.ndjson(rejects.pages(sessions, "acme", job.id)))
    found = [json.loads(line) for line in text.splitlines()]
    assert [(each["file"], each["line"]) for each in found] == [
        (f"{index:03}.csv", line) for index in range(3) for line in range(1, 1001)
    ]


def test_another_client_gets_no_line(sessions: sessionmaker[Session], job: Job) -> None:
    making.report(sessions, job, rejects=making.rejects(1))
    assert list(rejects.pages(sessions, "globex", job.id)) == []


def test_many_pages_take_no_more_memory_than_few(sessions: sessionmaker[Session], job: Job) -> None:
    parts(sessions, job, 12)
    tracemalloc.start()
    try:
        size_bytes = sum(
            len(each) for each in rejects.comma_separated(rejects.pages(sessions, "acme", job.id))
        )
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size_bytes > 2_500_000
    # Two pages at most: the one being written and the one read next.
    assert peak_bytes < 6_000_000


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_can_be_taken_for_a_formula(
    sessions: sessionmaker[Session], job: Job, value: str
) -> None:
    found = making.rejects(1, file=value, column=value, rule=value, value=value)
    making.report(sessions, job, rejects=found)
    text = "".join(rejects.comma_separated(rejects.pages(sessions, "acme", job.id)))
    [header, row] = csv.reader(io.StringIO(text, newline=""))
    assert header == ["file", "line", "column", "rule", "value"]
    assert row == [f"'{value}", "1", *[f"'{value}"] * 3]


def test_commas_quotes_and_line_ends_stay_in_their_cell(
    sessions: sessionmaker[Session], job: Job
) -> None:
    value = 'a "quoted", cell\nof two lines'
    making.report(sessions, job, rejects=making.rejects(1, value=value))
    text = "".join(rejects.comma_separated(rejects.pages(sessions, "acme", job.id)))
    assert list(csv.reader(io.StringIO(text, newline="")))[1][4] == value


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("", "application/x-ndjson"),
        ("*/*", "application/x-ndjson"),
        ("text/csv", "text/csv"),
        ("TEXT/CSV; charset=utf-8", "text/csv"),
        ("application/x-ndjson, text/csv", "application/x-ndjson"),
        ("application/x-ndjson;q=0.5, text/csv;q=0.9", "text/csv"),
        ("text/csv;q=0", "application/x-ndjson"),
        ("text/csv;q=high", "application/x-ndjson"),
        ("image/png", "application/x-ndjson"),
    ],
)
def test_the_preferred_form_is_given(accept: str, media: str) -> None:
    assert rejects.wanted(accept) == media
