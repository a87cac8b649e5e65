"""The transaction of a door."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session


def _session(request: Request) -> Iterator[Session]:
    with request.app.state.sessions.begin() as session:
        yield session


# Function scope: the commit comes before the answer is sent, not after.
SessionDep = Annotated[Session, Depends(_session, scope="function")]
