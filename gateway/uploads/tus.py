"""The doors of tus 1.0.0 (https://tus.io/protocols/resumable-upload): uploads that can be resumed.

An upload belongs to a batch and becomes one of its files; whole, it is held to every rule that a
``PUT`` is held to.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.routing import APIRoute

from gateway import web
from gateway.batches.ledger import BatchClosedError, BatchSealedError, QuotaExceededError
from gateway.errors import (
    GatewayError,
    InvalidRequestError,
    NotFoundError,
    TooLargeError,
    UnsupportedMediaError,
)
from gateway.identity.access import Writer
from gateway.jobs.api import REFUSALS
from gateway.landing.names import FileName, InvalidFilenameError, ReservedNameError
from gateway.landing.zone import InsufficientStorageError
from gateway.uploads import tus_headers as headers
from gateway.uploads.admission import (
    DuplicateNameError,
    FileExistsAlreadyError,
    UploadConflictError,
)
from gateway.uploads.finishing import WholeMismatchError
from gateway.uploads.intake import intake_of
from gateway.uploads.model import Upload
from gateway.uploads.resuming import Resuming
from gateway.uploads.tickets import Opening, UploadGoneError
from gateway.uploads.tus_headers import TusVersionError

OVERRIDDEN = ("PATCH", "DELETE", "HEAD")
Given = Annotated[str | None, Header()]
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class TusRoute(APIRoute):
    """A route whose answers, refusals too, say which version of tus is spoken."""

    def get_route_handler(self) -> Handler:
        """Return the handler, with the protocol's own header on whatever it answers."""
        inner = super().get_route_handler()

        async def spoken(request: Request) -> Response:
            try:
                response = await inner(request)
            except GatewayError as error:
                error.headers.setdefault("Tus-Resumable", headers.VERSION)
                raise
            response.headers["Tus-Resumable"] = headers.VERSION
            return response

        return spoken


router = APIRouter(tags=["uploads"], route_class=TusRoute)

OF_UPLOADS = (*REFUSALS, NotFoundError, UploadGoneError, TusVersionError)
STORING = (
    UploadConflictError,
    BatchSealedError,
    BatchClosedError,
    FileExistsAlreadyError,
    WholeMismatchError,
    TooLargeError,
    UnsupportedMediaError,
    InsufficientStorageError,
)
OPENING = (InvalidFilenameError, ReservedNameError, DuplicateNameError, QuotaExceededError)
STREAM = {headers.STREAM: {"schema": {"type": "string", "format": "binary"}}}


SPOKEN = {
    "Tus-Version": headers.VERSION,
    "Tus-Extension": headers.EXTENSIONS,
    "Tus-Checksum-Algorithm": ",".join(headers.ALGORITHMS),
}


def _documented(*names: str) -> dict[str, Any]:
    return {"headers": {name: {"schema": {"type": "string"}} for name in names}}


@router.options("/v1/batches/{batch_id}/uploads", status_code=204)
def show_protocol(batch_id: str) -> Response:  # noqa: ARG001 - the same for every batch
    """Say which version and extensions of tus are spoken."""
    return Response(status_code=204, headers={**SPOKEN, "Allow": "OPTIONS, POST"})


@router.options("/v1/uploads/{upload_id}", status_code=204)
def show_protocol_of_upload(upload_id: str) -> Response:  # noqa: ARG001 - likewise
    """Say which version and extensions of tus are spoken."""
    return Response(status_code=204, headers={**SPOKEN, "Allow": "OPTIONS, HEAD, PATCH, DELETE"})


@router.post(
    "/v1/batches/{batch_id}/uploads",
    status_code=201,
    response_class=Response,
    openapi_extra={"requestBody": {"required": False, "content": STREAM}},
    responses={
        201: _documented("Location", "Upload-Offset", "Upload-Expires"),
        **web.problems(*OF_UPLOADS, *STORING, *OPENING),
    },
)
async def create_upload(
    batch_id: str,
    request: Request,
    principal: Writer,
    *,
    tus_resumable: Given = None,  # noqa: ARG001 - documented here, read strictly below
    upload_length: Given = None,  # noqa: ARG001
    upload_metadata: Given = None,  # noqa: ARG001
    upload_checksum: Given = None,  # noqa: ARG001
) -> Response:
    """Open an upload. With a body of ``application/offset+octet-stream``, its first bytes too.

    ``Upload-Metadata`` has a ``filename``; with ``sha256`` (in hex) the whole is held to it.
    """
    headers.require_version(request.headers)
    length_bytes = headers.number(request.headers, "Upload-Length")
    told = headers.metadata(request.headers)
    has_body = headers.is_stream(request.headers)
    checksum = headers.checksum(request.headers) if has_body else None
    _require_fitting(request, length_bytes)
    resuming = _resuming(request)
    wanted = Opening(length_bytes, told.sha256, told.header, resuming.life_seconds)
    name = FileName.parse(told.filename)
    upload = await resuming.open(principal, batch_id, name, told.media_type, wanted)
    offset_bytes = 0
    if has_body or length_bytes == 0:
        chunks = web.body(request)
        upload = await resuming.receive(principal, upload, chunks, checksum)
        offset_bytes = upload.offset_bytes
    said = {**_standing(upload), "Location": f"/v1/uploads/{upload.id}"}
    return Response(status_code=201, headers={**said, "Upload-Offset": str(offset_bytes)})


@router.head(
    "/v1/uploads/{upload_id}",
    response_class=Response,
    responses={
        200: _documented("Upload-Offset", "Upload-Length", "Upload-Metadata", "Upload-Expires"),
        **web.problems(*OF_UPLOADS),
    },
)
async def show_upload(
    upload_id: str,
    request: Request,
    principal: Writer,
    *,
    tus_resumable: Given = None,  # noqa: ARG001
) -> Response:
    """Say how many bytes of an upload are durable: where to go on."""
    headers.require_version(request.headers)
    upload = await _resuming(request).look(principal, upload_id)
    return Response(
        headers={
            **_standing(upload),
            "Upload-Offset": str(upload.offset_bytes),
            "Upload-Length": str(upload.length_bytes),
            "Upload-Metadata": upload.metadata_header,
            "Cache-Control": "no-store",
        }
    )


@router.patch(
    "/v1/uploads/{upload_id}",
    status_code=204,
    openapi_extra={"requestBody": {"required": True, "content": STREAM}},
    responses={
        204: _documented("Upload-Offset", "Upload-Expires"),
        **web.problems(*OF_UPLOADS, *STORING),
    },
)
async def append(
    upload_id: str,
    request: Request,
    principal: Writer,
    *,
    tus_resumable: Given = None,  # noqa: ARG001
    upload_offset: Given = None,  # noqa: ARG001
    upload_checksum: Given = None,  # noqa: ARG001
) -> Response:
    """Append bytes at the upload's offset. What arrives is kept, however the request ends.

    A newer request for the same upload ends an older one. With ``Upload-Checksum``, these bytes
    are all taken or none. Once the last byte is there, the answer says that the file is verified,
    durable and written down.
    """
    headers.require_version(request.headers)
    headers.require_stream(request.headers)
    at_bytes = headers.number(request.headers, "Upload-Offset")
    checksum = headers.checksum(request.headers)
    resuming = _resuming(request)
    upload = await resuming.take_over(principal, upload_id, at_bytes)
    _require_fitting(request, upload.length_bytes - at_bytes)
    upload = await resuming.receive(principal, upload, web.body(request), checksum)
    said = {**_standing(upload), "Upload-Offset": str(upload.offset_bytes)}
    return Response(status_code=204, headers=said)


@router.delete(
    "/v1/uploads/{upload_id}",
    status_code=204,
    responses=web.problems(*OF_UPLOADS, UploadConflictError, BatchSealedError, BatchClosedError),
)
async def terminate(
    upload_id: str,
    request: Request,
    principal: Writer,
    *,
    tus_resumable: Given = None,  # noqa: ARG001
) -> Response:
    """Give an upload up, or take the file it has become out of its open batch."""
    headers.require_version(request.headers)
    await _resuming(request).terminate(principal, upload_id)
    return Response(status_code=204)


@router.post("/v1/uploads/{upload_id}", include_in_schema=False)
async def overridden(upload_id: str, request: Request, principal: Writer) -> Response:
    """Do what ``X-HTTP-Method-Override`` says, for senders that can only POST."""
    method = request.headers.get("x-http-method-override", "").upper()
    if method not in OVERRIDDEN:
        raise InvalidRequestError("Send PATCH, HEAD or DELETE.")
    does = {"PATCH": append, "HEAD": show_upload, "DELETE": terminate}[method]
    return await does(upload_id, request, principal)


def _resuming(request: Request) -> Resuming:
    state = request.app.state
    return Resuming(intake_of(state), state.switchboard, state.settings.uploads.idle_seconds)


def _require_fitting(request: Request, room_bytes: int) -> None:
    length = request.headers.get("content-length", "0")
    if int(length) > room_bytes:
        raise TooLargeError("The body is longer than what the upload lacks.")


def _standing(upload: Upload) -> dict[str, str]:
    return (
        {} if upload.state == "complete" else {"Upload-Expires": headers.expires(upload.expires_at)}
    )
