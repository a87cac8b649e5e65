"""What is asked at the doors of batches, and how refusals are read."""

from __future__ import annotations

from typing import Any

from gateway.bootstrap import Services
from gateway.jobs.model import Job

Headers = dict[str, str]
NOWHERE = "bat_" + "0" * 26
WANTED = {"project": "flights", "reference": "2013", "metadata": {"b": 1, "aa": 2}}


def end_job(services: Services, batch: str) -> None:
    with services.sessions.begin() as session:
        session.query(Job).filter_by(batch_id=batch).one().state = "failed"


def slug(answer: Any) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    kind: str = answer.json()["type"]
    return kind.removeprefix("/problems/")
