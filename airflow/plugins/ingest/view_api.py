"""What views ask of the gateway: as the person who looks, and for looking only.

For each page the gateway is asked for a token of that very person (RFC 8693), for the session by
which it knows the sign-on. It is good for a minute, is kept nowhere, and dies with the sign-on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, ValidationError

from ingest import gateway_api
from ingest.view_shapes import Health, Reject

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from ingest.gateway_api import GatewayApi

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
SESSION_TYPE = "urn:ingestion-gateway:token-type:session"
# Ten thousand files with long names.
ANSWER_LIMIT_BYTES = 16 * 1024**2
REJECTS_LIMIT_BYTES = 1024**2
REJECTS_SHOWN = 500

_OK, _REFUSED, _UNAUTHORIZED, _FORBIDDEN, _ABSENT = 200, 400, 401, 403, 404
_NONSENSE, _TOO_MANY = 422, 429
Shape = TypeVar("Shape", bound=BaseModel)


class ViewRefusedError(Exception):
    """The person may not see this, by the gateway's word."""


class ViewAbsentError(Exception):
    """There is no such thing, or it is somebody else's: nobody can tell which."""


class ViewAskedWronglyError(Exception):
    """A filter or position in the address makes no sense."""


class ViewTooOftenError(Exception):
    """The client asks more often than it may at present."""


@dataclass(frozen=True)
class Viewer:
    """One person's look at the gateway."""

    gateway: GatewayApi
    token: str

    def get(self, shape: type[Shape], path: str, **query: object) -> Shape:
        """Return what the gateway answers; a filter that is None or empty is left out.

        Raises
        ------
        ViewAbsentError, ViewRefusedError, ViewAskedWronglyError, ViewTooOftenError
            The gateway says so.
        GatewayAwayError
            It does not answer, or not what makes sense.
        """
        given = {name: value for name, value in query.items() if value not in {None, ""}}
        address = path + (f"?{urlencode(given)}" if given else "")
        return _shaped(shape, self._asked(address, "application/json", _whole))

    def rejects(self, job_id: str) -> tuple[list[Reject], bool]:
        """Return the first of a job's rejects, and whether there are more; errors as of `get`."""
        content = self._asked(f"/v1/jobs/{job_id}/rejects", "application/x-ndjson", _beginning)
        # What comes after the last line's end was cut off.
        *lines, rest = content.split(b"\n")
        shown = [_shaped(Reject, line) for line in lines[:REJECTS_SHOWN]]
        return shown, bool(rest) or len(lines) > REJECTS_SHOWN

    def _asked(
        self, address: str, media: str, read: Callable[[httpx.Response, float], bytes]
    ) -> bytes:
        headers = {"Authorization": f"Bearer {self.token}", "Accept": media}
        status, _, content = self.gateway.call("GET", address, headers=headers, read=read)
        if status != _OK:
            raise _refusal(status)
        return content


def open_viewer(gateway: GatewayApi, session: str, scope: str) -> Viewer:
    """Get a token of a signed-in person.

    Raises
    ------
    ViewRefusedError
        The session is no browser's, or the person lacks the scope.
    GatewayAwayError
        The gateway does not answer, or not what makes sense.
    """
    form = {
        "grant_type": EXCHANGE,
        "subject_token": session,
        "subject_token_type": SESSION_TYPE,
        "scope": scope,
    }
    auth = gateway.application
    status, _, content = gateway.call("POST", "/v1/token", form, auth=auth, is_short=True)
    if status == _REFUSED:
        raise ViewRefusedError
    if status != _OK:
        # No fault of the person's: this Airflow's own secret is wrong, or nobody can say.
        raise gateway_api.GatewayAwayError
    return Viewer(gateway, _shaped(_Token, content).access_token)


def health(gateway: GatewayApi) -> Health:
    """Return what the gateway finds of its parts: anybody may ask.

    Raises
    ------
    GatewayAwayError
        It does not answer, or not what makes sense.
    """
    _, _, content = gateway.call("GET", "/readyz", read=_whole)
    return _shaped(Health, content)


class _Token(BaseModel):
    access_token: str


def _shaped(shape: type[Shape], content: bytes) -> Shape:
    try:
        return shape.model_validate_json(content)
    except ValidationError as error:
        raise gateway_api.GatewayAwayError from error


def _refusal(status: int) -> Exception:
    if status == _ABSENT:
        return ViewAbsentError()
    if status in {_UNAUTHORIZED, _FORBIDDEN}:
        return ViewRefusedError()
    if status == _NONSENSE:
        return ViewAskedWronglyError()
    return ViewTooOftenError() if status == _TOO_MANY else gateway_api.GatewayAwayError()


def _whole(response: httpx.Response, seconds: float) -> bytes:
    body = _beginning(response, seconds, ANSWER_LIMIT_BYTES)
    if len(body) >= ANSWER_LIMIT_BYTES:
        raise gateway_api.GatewayAwayError
    return body


def _beginning(
    response: httpx.Response, seconds: float, limit_bytes: int = REJECTS_LIMIT_BYTES
) -> bytes:
    deadline = time.monotonic() + seconds
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) >= limit_bytes:
            break
        if time.monotonic() > deadline:
            raise gateway_api.GatewayAwayError
    return bytes(body)
