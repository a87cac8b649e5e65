"""Rejected rows as a stream of text, in pages of their own short transactions."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator

from sqlalchemy.orm import Session, sessionmaker

from gateway.jobs import steps
from gateway.jobs.model import Reject

PAGE = 1000
COLUMNS = ("file", "line", "column", "rule", "value")
# A spreadsheet takes what begins so for a formula (OWASP, "CSV injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def pages(sessions: sessionmaker[Session], client: str, job_id: str) -> Iterator[list[Reject]]:
    """Yield the rejects of a client's job; never more than one page is held."""
    position = steps.START
    while True:
        with sessions.begin() as session:
            found = steps.rejects_after(session, client, job_id, position, PAGE)
        if not found:
            return
        yield found
        position = steps.position_of(found[-1])


def ndjson(found: Iterable[list[Reject]]) -> Iterator[str]:
    """Yield one JSON object a line."""
    for page in found:
        yield "".join(
            json.dumps({name: getattr(each, name) for name in COLUMNS}, ensure_ascii=False) + "\n"
            for each in page
        )


def comma_separated(found: Iterable[list[Reject]]) -> Iterator[str]:
    """Yield RFC 4180 lines under a header; no cell can be taken for a formula."""
    yield _lines([COLUMNS])
    for page in found:
        yield _lines([_harmless(getattr(each, name)) for name in COLUMNS] for each in page)


FORMATS: dict[str, Callable[[Iterable[list[Reject]]], Iterator[str]]] = {
    "application/x-ndjson": ndjson,
    "text/csv": comma_separated,
}


def wanted(accept: str) -> str:
    """Return the media type that an ``Accept`` header prefers; NDJSON when it names neither."""
    best, best_quality = "application/x-ndjson", 0.0
    for part in accept.lower().split(","):
        media, _, parameters = part.strip().partition(";")
        quality = _quality(parameters)
        if media.strip() in FORMATS and quality > best_quality:
            best, best_quality = media.strip(), quality
    return best


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _lines(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _harmless(value: str | int | None) -> str | int | None:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
