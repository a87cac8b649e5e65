"""Which task asks: the middleware that notes it for the length of one request.

Airflow does not tell a secrets backend for whom it looks something up. The task's own token does: its
subject is the task instance. It is read here and trusted by nobody yet; the route it is for verifies
it before anything is looked up.
"""

from __future__ import annotations

import base64
import binascii
import json
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping

    Scope = MutableMapping[str, Any]
    App = Callable[[Scope, Any, Any], Awaitable[None]]

PREFIX = "/execution/"
MAX_TOKEN_CHARACTERS = 8192

# None outside a request for a task. Then nobody is given anything: see `secrets_backend`.
task_instance: ContextVar[UUID | None] = ContextVar("ingest_task_instance", default=None)


class NoteTask:
    """Notes the task instance for which a request to the execution API is made."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Handle one request."""
        if scope["type"] != "http" or not _is_execution(scope):
            await self._app(scope, receive, send)
            return
        mark = task_instance.set(subject_of(scope["headers"]))
        try:
            await self._app(scope, receive, send)
        finally:
            task_instance.reset(mark)


def _is_execution(scope: Scope) -> bool:
    path = str(scope["path"])
    return path.removeprefix(scope.get("root_path", "")).startswith(PREFIX)


def subject_of(headers: Iterable[tuple[bytes, bytes]]) -> UUID | None:
    """Return the subject of a bearer token, unverified; None where it is no task instance."""
    given = [value for name, value in headers if name.lower() == b"authorization"]
    if len(given) != 1:
        return None
    kind, _, token = given[0].decode("latin-1").partition(" ")
    if kind.lower() != "bearer" or len(token) > MAX_TOKEN_CHARACTERS:
        return None
    return _subject(token.strip().split("."))


def _subject(parts: list[str]) -> UUID | None:
    try:
        _, payload, _ = parts
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return UUID(claims["sub"])
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error, RecursionError):
        return None
