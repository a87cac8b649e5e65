"""The transaction of a door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from gateway import database, threads


async def _session(request: Request) -> AsyncIterator[Session]:
    """Give a transaction; the threads that end it are not those which doors may all be using."""
    session: Session = request.app.state.sessions()
    try:
        yield session
        if session.in_transaction():
            await threads.run(session.commit)
    except BaseException:
        if session.in_transaction():
            await threads.run(session.rollback)
        raise
    finally:
        session.close()


async def _reading(request: Request) -> AsyncIterator[Session]:
    with database.reader(request.app.state.sessions) as session:
        yield session


# Function scope: the commit comes before the answer is sent, not after.
SessionDep = Annotated[Session, Depends(_session, scope="function")]
# For doors that only read: two round trips and a change of threads fewer.
ReadingDep = Annotated[Session, Depends(_reading, scope="function")]
