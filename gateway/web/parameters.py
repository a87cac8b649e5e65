"""Query parameters that several doors take, so bounded that no value of theirs reaches a fault."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query
from pydantic import AfterValidator


def _in_utc(moment: datetime) -> datetime:
    """Return the moment in UTC, which is also what one without an offset is in.

    The database takes no offset beyond 15:59, and no year that the offset moves out of 1 to 9999.
    """
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        message = "must be in the years 1 to 9999, in UTC"
        raise ValueError(message) from None


Cursor = Annotated[str | None, Query(max_length=200)]
Limit = Annotated[int, Query(ge=1, le=200)]
# The database's text has no NUL, and nothing of ours has a name with a control character.
Text = Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Moment = Annotated[datetime, AfterValidator(_in_utc)]
