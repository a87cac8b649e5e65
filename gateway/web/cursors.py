"""Opaque positions in lists."""

from __future__ import annotations

import base64
import binascii
import re

from gateway.errors import Fault, InvalidRequestError


def cursor_for(position: str | int | None) -> str | None:
    """Return the opaque ``next`` of a page that ends at ``position``; None stays None."""
    if position is None:
        return None
    return base64.urlsafe_b64encode(f"1:{position}".encode()).decode().rstrip("=")


def position_of(cursor: str | None) -> str | None:
    """Return what ``cursor_for`` was given.

    Raises
    ------
    InvalidRequestError
        The cursor is none of ours. A made-up one gains nothing: the query still takes the
        caller's client.
    """
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        text = ""
    if not re.fullmatch(r"1:[a-z0-9_]{1,64}", text):
        raise InvalidRequestError(errors=[Fault("cursor", "not a cursor of ours")])
    return text.removeprefix("1:")
