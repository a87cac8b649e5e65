from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy.orm import Session, sessionmaker

from gateway import database, settings
from gateway.clients.rate import RequestRate

Process = Callable[[], RequestRate]


@pytest.fixture
def process(config: settings.Settings) -> Iterator[Process]:
    """Return a function that gives what a further process of the gateway counts with."""
    engines = []

    def started() -> RequestRate:
        engines.append(database.connect(config.database))
        sessions: sessionmaker[Session] = database.sessions(engines[-1])
        return RequestRate(sessions)

    yield started
    for engine in engines:
        engine.dispose()
