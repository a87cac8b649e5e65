"""The door of a client's feed."""

import re
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway import web
from gateway.errors import (
    Fault,
    ForbiddenError,
    GatewayError,
    InvalidRequestError,
    UnavailableError,
)
from gateway.events import feed
from gateway.events.feed import Event

_NUMBER = re.compile(r"[0-9]{1,18}")
_ID = re.compile(r"evt_[0-9a-z]{26}")


class EventView(BaseModel):
    """One thing that happened to an object of the client's; ``number`` counts without gaps."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    number: int
    type: str
    subject: str
    data: dict[str, Any]
    at: datetime


class EventPage(BaseModel):
    """Events, oldest first; ``next`` is the ``after`` with which to ask for what follows."""

    items: list[EventView]
    next: str


def router_for(reader: Any, *refusals: type[GatewayError]) -> APIRouter:
    """Build the doors.

    Parameters
    ----------
    reader
        The dependency that lets in who may read a client's objects. It is handed over, because
        this room lies below the one that knows callers.
    refusals
        How that dependency refuses.
    """
    doors = APIRouter(tags=["events"])
    kinds = (*refusals, ForbiddenError, InvalidRequestError, UnavailableError)

    @doors.get("/v1/events", responses=web.problems(*kinds))
    def list_events(
        principal: Annotated[Any, reader],
        session: web.ReadingDep,
        after: Annotated[str, Query(max_length=40)] = "0",
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> EventPage:
        """List what happened to the caller's objects after an event, by its number or id."""
        return _page(session, principal.client, after, limit)

    return doors


def _page(session: Session, client: str, after: str, limit: int) -> EventPage:
    start = _number(session, client, after)
    items = [EventView.model_validate(each) for each in feed.after(session, client, start, limit)]
    return EventPage(items=items, next=str(items[-1].number if items else start))


def _number(session: Session, client: str, after: str) -> int:
    if _NUMBER.fullmatch(after):
        return int(after)
    query = select(Event.number).where(Event.client == client, Event.id == after)
    found = session.scalar(query) if _ID.fullmatch(after) else None
    if found is None:
        raise InvalidRequestError(errors=[Fault("after", "no event of yours")])
    return found
