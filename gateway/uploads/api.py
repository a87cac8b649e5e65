"""Upload doors: one file, or a whole delivery; and what became of a file.

The two that take bytes are ``async`` and take the bare request: the caller is authenticated, and
the limits are checked, before the first byte of the body is read.
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from gateway import web
from gateway.batches.ledger import (
    BatchClosedError,
    BatchExistsError,
    BatchSealedError,
    QuotaExceededError,
)
from gateway.batches.seal import BatchIncompleteError
from gateway.batches.views import BatchRequest, BatchSummary, FileView, SealedView
from gateway.errors import (
    Fault,
    InvalidRequestError,
    NotFoundError,
    TooLargeError,
    UnsupportedMediaError,
)
from gateway.identity.access import FilesReader, Writer
from gateway.jobs.api import REFUSALS, tagged_problems
from gateway.jobs.reading import as_queued, client_of
from gateway.landing.names import FileName, InvalidFilenameError, ReservedNameError
from gateway.landing.zone import BatchPath, InsufficientStorageError
from gateway.uploads import completion, declaring, digests, download, holding, publishing
from gateway.uploads.admission import (
    DuplicateNameError,
    FileExistsAlreadyError,
    UploadConflictError,
)
from gateway.uploads.announced import Announced
from gateway.uploads.declaring import DeclaredPage, DeclareRequest
from gateway.uploads.digests import DigestMismatchError
from gateway.uploads.download import PreconditionFailedError, RangeNotSatisfiableError
from gateway.uploads.intake import intake_of
from gateway.uploads.receive import receive
from gateway.uploads.submission import Submitter

router = APIRouter(tags=["files"])

NAMES = (InvalidFilenameError, ReservedNameError, DuplicateNameError)
STORING = (
    FileExistsAlreadyError,
    UploadConflictError,
    BatchSealedError,
    BatchClosedError,
    DigestMismatchError,
    TooLargeError,
    QuotaExceededError,
    UnsupportedMediaError,
    InsufficientStorageError,
)
Name = Annotated[str, Path(max_length=1024)]
LENGTH_DIGITS = 20
STORED: dict[int | str, dict[str, Any]] = {
    200: {"model": FileView, "description": "The same bytes are there already"},
    201: {
        "headers": {
            "Location": {"schema": {"type": "string"}},
            "Repr-Digest": {"schema": {"type": "string"}},
        }
    },
}
BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
FORM_FIELDS = {
    "project": {"type": "string"},
    "reference": {"type": "string"},
    "mode": {"type": "string", "enum": ["load", "validate"]},
    "period_start": {"type": "string"},
    "period_end": {"type": "string"},
    "metadata": {"type": "string", "description": "a JSON object"},
    "supersedes": {"type": "string"},
    "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
}
FORM = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["project", "reference", "files"],
            "properties": FORM_FIELDS,
        }
    }
}


@router.put(
    "/v1/batches/{batch_id}/files/{name}",
    status_code=201,
    response_model=FileView,
    openapi_extra={"requestBody": {"required": True, "content": BYTES}},
    responses={**STORED, **web.problems(*REFUSALS, NotFoundError, *NAMES, *STORING)},
)
async def put_file(batch_id: str, name: Name, request: Request, principal: Writer) -> Response:
    """Store one file. The same bytes again answer 200, other bytes 409.

    ``Repr-Digest`` or ``Content-Digest`` (RFC 9530, ``sha-256``) is enforced when given. A 201
    means that the bytes are on disk, have this SHA-256, and are written down.
    """
    _refuse_coding(request)
    announced = Announced.of(_headers(request), _length(request))
    chunks = web.body(request)
    received = await receive(
        intake_of(request.app.state), principal, batch_id, FileName.parse(name), announced, chunks
    )
    view = FileView.of(received.file)
    headers = {
        "Location": f"/v1/batches/{batch_id}/files/{quote(name)}",
        "Repr-Digest": digests.header(view.sha256 or ""),
    }
    status = 201 if received.is_new else 200
    return JSONResponse(view.model_dump(mode="json"), status, headers)


@router.get(
    "/v1/batches/{batch_id}/files/{name}",
    responses=web.problems(*REFUSALS, NotFoundError),
)
def show_file(
    batch_id: str, name: Name, principal: FilesReader, session: web.ReadingDep
) -> FileView:
    """Show a file's size, digest and state."""
    _, file = completion.file_of(session, client_of(principal), batch_id, name)
    return FileView.of(file)


@router.get(
    "/v1/batches/{batch_id}/files/{name}/content",
    response_class=StreamingResponse,
    responses={
        200: {"content": BYTES},
        206: {"content": BYTES, "description": "The range asked for"},
        **tagged_problems(
            *REFUSALS, NotFoundError, PreconditionFailedError, RangeNotSatisfiableError
        ),
    },
)
def get_content(batch_id: str, name: Name, request: Request, principal: FilesReader) -> Response:
    """Give a complete file's bytes back, or one range of them, while it is retained."""
    state = request.app.state
    # Closed before the bytes go out: a slow reader must not hold a transaction.
    with state.sessions.begin() as session:
        batch, file = completion.file_of(session, client_of(principal), batch_id, name)
    if file.state != "complete":
        raise NotFoundError
    tag = f'"{file.sha256}"'
    headers = {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Repr-Digest": digests.header(file.sha256 or ""),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "Cache-Control": "private, no-cache",
    }
    download.require_match(request.headers.get("if-match"), tag)
    if download.is_known(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=304, headers=headers)
    wanted = request.headers.get("range") if _range_applies(request, tag) else None
    span = download.span_of(wanted, file.size_bytes or 0)
    try:
        place = BatchPath(batch.client, batch.project, batch.id)
        content = download.content(state.zone, place, file, span)
    except FileNotFoundError:
        raise NotFoundError from None
    if span is not None:
        headers["Content-Range"] = f"bytes {span.first}-{span.last}/{file.size_bytes}"
    headers["Content-Length"] = str(file.size_bytes if span is None else span.size_bytes)
    status = 200 if span is None else 206
    return StreamingResponse(content, status, headers, media_type="application/octet-stream")


@router.delete(
    "/v1/batches/{batch_id}/files/{name}",
    status_code=204,
    responses=web.problems(
        *REFUSALS, NotFoundError, UploadConflictError, BatchSealedError, BatchClosedError
    ),
)
def delete_file(batch_id: str, name: Name, request: Request, principal: Writer) -> None:
    """Take a file out of an open batch; its name and room are free again."""
    state = request.app.state
    name = FileName.parse(name).text
    with state.sessions.begin() as session:
        withdrawn = holding.withdraw(session, principal, batch_id, name)
    if withdrawn is None:
        raise NotFoundError
    publishing.remove(state.sessions, state.zone, withdrawn)


@router.post(
    "/v1/submissions",
    status_code=202,
    openapi_extra={"requestBody": {"required": True, "content": FORM}},
    responses={
        202: {"headers": {"Location": {"schema": {"type": "string"}}}},
        **web.problems(*REFUSALS, *NAMES, *STORING, BatchExistsError, BatchIncompleteError),
    },
)
async def submit(request: Request, response: Response, principal: Writer) -> SealedView:
    """Deliver in one request: the batch's fields, then its files; sealed at the end.

    All or nothing: whatever fails, the batch is canceled and none of its files remains.
    """
    _refuse_coding(request)
    state = request.app.state
    submitter = Submitter(
        intake_of(request.app.state), principal, state.keys, state.settings.batches, _batch_request
    )
    media = request.headers.get("content-type", "")
    batch, job = await submitter.submit(media, _length(request), web.body(request))
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return SealedView(batch=BatchSummary.of(batch), job=as_queued(job))


@router.post(
    "/v1/batches/{batch_id}/files",
    openapi_extra=web.documented_body(DeclareRequest),
    responses=web.problems(
        *REFUSALS, NotFoundError, BatchClosedError, TooLargeError, UnsupportedMediaError
    ),
)
def declare_files(
    batch_id: str,
    principal: Writer,
    session: web.SessionDep,
    wanted: Annotated[DeclareRequest, web.json_body(DeclareRequest)],
) -> DeclaredPage:
    """Say which of up to 1000 files still have to be sent. Nothing is reserved by asking."""
    return DeclaredPage(items=declaring.answer(session, principal, batch_id, wanted.files))


def _length(request: Request) -> int | None:
    length = request.headers.get("content-length")
    # More digits than any file has; Python refuses to read thousands of them.
    return None if length is None else int(length[:LENGTH_DIGITS])


def _headers(request: Request) -> dict[str, str]:
    """Return the headers; one that is there several times is a list (RFC 9110 §5.2)."""
    found = request.headers
    return {name: ", ".join(found.getlist(name)) for name in found}


def _refuse_coding(request: Request) -> None:
    codings = request.headers.getlist("content-encoding")
    if any(each.strip().lower() != "identity" for each in codings):
        raise UnsupportedMediaError("Send the file as it is, without content coding.")
    if "content-range" in request.headers:
        # A piece must not be taken for the whole (RFC 9110 §14.5).
        raise InvalidRequestError("Send the whole file: a Content-Range is not taken here.")


def _range_applies(request: Request, tag: str) -> bool:
    return request.headers.get("if-range", tag) == tag


def _batch_request(fields: dict[str, str]) -> BatchRequest:
    document: dict[str, Any] = dict(fields)
    start, end = document.pop("period_start", None), document.pop("period_end", None)
    if start is not None or end is not None:
        document["period"] = {"start": start, "end": end}
    if "metadata" in document:
        try:
            document["metadata"] = web.loads(document["metadata"].encode())
        except InvalidRequestError as error:
            raise InvalidRequestError(errors=[Fault("metadata", error.detail)]) from None
    return web.validated(BatchRequest, document)
