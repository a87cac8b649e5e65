"""Which of many files a batch still needs: asked once, instead of sending what is there already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.batches import ledger
from gateway.batches.model import Batch, File
from gateway.batches.views import SHA256
from gateway.clients import limits, registry
from gateway.clients.registry import Client
from gateway.errors import GatewayError, TooLargeError
from gateway.identity.access import Principal
from gateway.jobs.reading import client_of
from gateway.landing.names import FileName
from gateway.uploads.admission import DuplicateNameError, FileExistsAlreadyError

MAX_FILES = 1000


class DeclaredFile(BaseModel):
    """A file that its sender has."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    size_bytes: Annotated[int, Field(ge=0, le=2**53 - 1)]
    sha256: Annotated[str, StringConstraints(pattern=SHA256)]


class DeclareRequest(BaseModel):
    """Files that are to be in a batch."""

    model_config = ConfigDict(extra="forbid", strict=True)

    files: Annotated[list[DeclaredFile], Field(min_length=1, max_length=MAX_FILES)]


class DeclaredView(BaseModel):
    """What is to be done with one file.

    ``needed``: send it. ``present``: these bytes are in the batch under this name. ``refused``: it
    would not be taken; ``reason`` is the slug of the problem that sending it would end with.
    """

    name: str
    status: Literal["needed", "present", "refused"]
    reason: str | None = None


class DeclaredPage(BaseModel):
    """The answer for each file, in the order in which they were asked for."""

    items: list[DeclaredView]


def answer(
    session: Session, principal: Principal, batch_id: str, declared: Sequence[DeclaredFile]
) -> list[DeclaredView]:
    """Say which of these files a batch has, needs, and would not take. Nothing is reserved.

    Raises
    ------
    NotFoundError, ClientSuspendedError
    BatchClosedError
        The batch was canceled, has expired or was purged.
    """
    client = registry.active_client(session, client_of(principal))
    batch = ledger.find(session, client.name, batch_id)
    if batch.state not in ledger.LIVE:
        ledger.require_open(batch)
    return list(_answers(session, client, batch, declared))


def _answers(
    session: Session, client: Client, batch: Batch, declared: Sequence[DeclaredFile]
) -> Iterator[DeclaredView]:
    project = registry.active_project(session, client.name, batch.project)
    limit_bytes = limits.for_project(client, project).file_bytes
    query = select(File).where(File.batch_id == batch.id)
    here = {file.collision_key: file for file in session.scalars(query)}
    seen: set[str] = set()
    for each in declared:
        try:
            name = FileName.parse(each.name)
            _require_once(name, seen)
            there = here.get(name.collision_key)
            is_present = there is not None and _is_present(there, each)
            if not is_present:
                ledger.require_open(batch)
                _require_within(each.size_bytes, limit_bytes)
        except GatewayError as error:
            yield DeclaredView(name=each.name, status="refused", reason=error.slug)
        else:
            yield DeclaredView(name=each.name, status="present" if is_present else "needed")


def _is_present(there: File, declared: DeclaredFile) -> bool:
    if there.name != declared.name:
        raise DuplicateNameError
    if there.state != "complete":
        return False
    if (there.size_bytes, there.sha256) != (declared.size_bytes, declared.sha256):
        raise FileExistsAlreadyError
    return True


def _require_once(name: FileName, seen: set[str]) -> None:
    if name.collision_key in seen:
        raise DuplicateNameError
    seen.add(name.collision_key)


def _require_within(size_bytes: int, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        raise TooLargeError
