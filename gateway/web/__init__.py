"""What every door shares: sessions, bodies, cursors, problems and the outermost middleware."""

from __future__ import annotations

from fastapi import FastAPI

from gateway.web import problems as _problems
from gateway.web.bodies import (
    JSON_BODY_BYTES,
    documented_body,
    form_body,
    json_body,
    json_document,
    loads,
    read_body,
    validated,
)
from gateway.web.bodies import schemas as body_schemas
from gateway.web.context import RequestContext
from gateway.web.cursors import cursor_for, position_of
from gateway.web.parameters import Cursor, Limit, Moment, Text
from gateway.web.problems import kinds, problem_response, problem_schema, responses
from gateway.web.sessions import ReadingDep, SessionDep
from gateway.web.streams import body
from gateway.web.turns import Turns

problems = responses

__all__ = [
    "JSON_BODY_BYTES",
    "Cursor",
    "Limit",
    "Moment",
    "ReadingDep",
    "SessionDep",
    "Text",
    "Turns",
    "body",
    "body_schemas",
    "cursor_for",
    "documented_body",
    "form_body",
    "install",
    "json_body",
    "json_document",
    "kinds",
    "loads",
    "position_of",
    "problem_response",
    "problem_schema",
    "problems",
    "read_body",
    "validated",
]


def install(app: FastAPI, *, idle_seconds: float) -> None:
    """Give an application the problem handlers, the problem pages and the middleware."""
    _problems.install(app)
    app.add_middleware(RequestContext, idle_seconds=idle_seconds)
