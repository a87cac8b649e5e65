"""Every failure a caller of this package can meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

UNREACHABLE = "unreachable"
DIGEST_MISMATCH = "digest-mismatch"
RETRYABLE_STATUSES = frozenset({408, 429, 502, 503, 504})
RETRYABLE_SLUGS = frozenset({"idempotency-key-in-flight"})


class ClientError(Exception):
    """The base of all of them; its text is meant for the person who asked."""


@dataclass(eq=False)
class GatewayProblem(ClientError):  # noqa: N818 - named for the RFC 9457 problem it carries
    """The gateway refused, or could not be reached.

    Parameters
    ----------
    slug
        What happened, for programs: the last segment of the problem's ``type``; the ``error``
        of RFC 6749 for the token endpoint; ``unreachable`` when there was no answer.
    status
        The HTTP status; 0 when there was no answer.
    retryable
        Whether the same request may succeed later.
    retry_after_seconds
        How long the gateway asked us to wait.
    location
        The ``Location`` of the answer: for ``batch-exists``, the batch that has the reference.
    """

    slug: str
    status: int
    title: str
    detail: str = ""
    retryable: bool = False
    retry_after_seconds: float | None = None
    errors: tuple[Mapping[str, Any], ...] = ()
    request_id: str = ""
    location: str = ""

    def __str__(self) -> str:
        """Say what happened, each cause on its own line."""
        head = self.title if self.detail in {"", self.title} else f"{self.title}: {self.detail}"
        lines = [f"{head} [{self.slug}]"]
        lines += [
            f"  {cause.get('pointer', '')} {cause.get('detail', '')}" for cause in self.errors
        ]
        if self.request_id:
            lines.append(f"  request {self.request_id}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return the problem as a JSON object."""
        return {
            "slug": self.slug,
            "status": self.status,
            "title": self.title,
            "detail": self.detail,
            "retryable": self.retryable,
            "errors": [dict(cause) for cause in self.errors],
            "request_id": self.request_id,
        }


class UnusableFilesError(ClientError):
    """The list of local files cannot be a delivery: missing, not a file, two of one name."""


class FileChangedError(ClientError):
    """A local file was altered between hashing it and the end of sending it."""


class DeliveryError(ClientError):
    """The delivery cannot go on, and repeating it as it is will not help."""


class ReceiptError(ClientError):
    """The receipt does not prove what it should."""


class FollowTimeoutError(ClientError):
    """The job had not ended when the caller's patience did."""


class AbortedError(ClientError):
    """The caller gave up: nothing was wrong."""


def is_final(error: ClientError) -> bool:
    """Whether the same files by the same reference would meet the same, however often."""
    if isinstance(error, GatewayProblem):
        return httpx.codes.is_client_error(error.status) and not error.retryable
    return isinstance(error, DeliveryError | ReceiptError)


def from_response(response: httpx.Response) -> GatewayProblem:
    """Return the problem told by an answer that is not a success; its body must be read."""
    body = _json_object(response)
    slug = str(body.get("type") or body.get("error") or f"http-{response.status_code}")
    slug = slug.rstrip("/").rpartition("/")[2]
    errors = body.get("errors")
    return GatewayProblem(
        slug=slug,
        status=response.status_code,
        title=str(body.get("title") or f"The gateway answered {response.status_code}"),
        detail=str(body.get("detail") or body.get("error_description") or ""),
        retryable=_is_retryable(response.status_code, slug, body),
        retry_after_seconds=retry_after_seconds(response.headers),
        errors=tuple(e for e in errors if isinstance(e, dict)) if isinstance(errors, list) else (),
        request_id=str(body.get("request_id") or ""),
        location=response.headers.get("Location", ""),
    )


def unreachable(error: Exception, *, retryable: bool = True) -> GatewayProblem:
    """Return the problem of a request that got no answer: whether it took effect is unknown."""
    return GatewayProblem(
        slug=UNREACHABLE,
        status=0,
        title="The gateway did not answer",
        detail=str(error) or type(error).__name__,
        retryable=retryable,
    )


def _is_retryable(status: int, slug: str, body: Mapping[str, Any]) -> bool:
    if status in RETRYABLE_STATUSES or slug in RETRYABLE_SLUGS:
        return True
    return body.get("retryable") is True


def _json_object(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return the ``Retry-After`` of an answer in seconds; it is a number or a date (RFC 9110)."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
