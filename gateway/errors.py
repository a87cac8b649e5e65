"""The base of every failure that a caller is told about (RFC 9457).

A room raises its own subclasses; ``gateway.web`` renders whatever arrives as
``application/problem+json``. Details are written for the caller: no paths, no
stack, no text of LDAP, Postgres or Airflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One of several causes of a failure: where it is and what is wrong there."""

    pointer: str
    detail: str
    code: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the member of ``errors[]`` for this cause."""
        found = {"pointer": self.pointer, "detail": self.detail}
        return {**found, "code": self.code} if self.code else found


class GatewayError(Exception):
    """A failure with a stable slug, an HTTP status and a title."""

    slug: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong on our side"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        detail: str = "",
        *,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})


class NotFoundError(GatewayError):
    """Absent, or not the caller's: the two answer the same."""

    slug = "not-found"
    status = 404
    title = "There is no such thing here"


class ForbiddenError(GatewayError):
    """The caller is known and may not do this."""

    slug = "forbidden"
    status = 403
    title = "Your account may not do this"


class InvalidRequestError(GatewayError):
    """The request does not have the documented shape."""

    slug = "invalid-request"
    status = 422
    title = "The request is not valid"


class UnavailableError(GatewayError):
    """A part we depend on (database, directory, storage) is away or full."""

    slug = "unavailable"
    status = 503
    title = "A part of the service is not available"
    retryable = True


class UnsupportedMediaError(GatewayError):
    """The body is of a type this door does not take."""

    slug = "unsupported-media"
    status = 415
    title = "This content type is not taken here"


class TooLargeError(GatewayError):
    """A body, a file or a batch over its limit."""

    slug = "too-large"
    status = 413
    title = "Larger than the limit"
