"""One file by tus 1.0.0, in pieces: whatever breaks off goes on where it stopped.

Notes
-----
How far an upload has come is only ever what the gateway says (HEAD): what was written to a
connection that broke may not have arrived. https://tus.io/protocols/resumable-upload
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import httpx

from gateway.sdk import files, records
from gateway.sdk.client import GatewayClient
from gateway.sdk.files import LocalFile, OnSent
from gateway.sdk.problems import DIGEST_MISMATCH, GatewayProblem
from gateway.sdk.records import BatchFile
from gateway.sdk.transport import Exchange, v1

VERSION = "1.0.0"
PIECE_BYTES = 64 * 1024 * 1024
# An upload that the gateway lost is begun anew; not for ever.
BEGINNINGS = 4

_FIRST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.2, 5.0
# A file that arrived may stand unread for the policy's deadline and the time a slow disk needs.
_VERIFIED_BYTES_PER_SECOND = 20e6
_CHECKSUM_MISMATCH = 460
_UPLOAD = re.compile(r"upl_[0-9A-Za-z]{1,64}")

OnUpload = Callable[[str], None]
"""Told the id of the upload that is under way, to be kept for a later resume; empty: there is
none any more."""


def send(
    gateway: GatewayClient,
    batch_id: str,
    file: LocalFile,
    *,
    upload: str = "",
    on_upload: OnUpload | None = None,
    on_sent: OnSent | None = None,
    piece_bytes: int = PIECE_BYTES,
) -> BatchFile:
    """Send one file and return it as the gateway holds it: complete, with our digest.

    Parameters
    ----------
    upload
        The id of an upload of these very bytes that was begun earlier; one that is gone is
        begun anew.

    Raises
    ------
    FileChangedError
        The file is not what it was when it was inspected.
    GatewayProblem
        The gateway refused, or nothing went on for as long as the retry policy allows. With
        ``digest-mismatch`` the upload is gone and the file's digest should be taken again.
    AbortedError
        What has arrived stays there to be resumed.
    """
    sending = _Upload(
        gateway,
        batch_id,
        file,
        upload=upload,
        on_upload=on_upload or (lambda _: None),
        on_sent=on_sent or (lambda _: None),
        piece_bytes=piece_bytes,
    )
    return sending.run()


class _Upload:
    """One file on its way."""

    def __init__(
        self,
        gateway: GatewayClient,
        batch_id: str,
        file: LocalFile,
        *,
        upload: str,
        on_upload: OnUpload,
        on_sent: OnSent,
        piece_bytes: int,
    ) -> None:
        self._gateway = gateway
        self._batch = batch_id
        self._file = file
        self._id = upload if _UPLOAD.fullmatch(upload) else ""
        self._offset: int | None = None
        self._on_upload = on_upload
        self._on_sent = on_sent
        self._piece_bytes = piece_bytes
        self._patience = gateway.transport.patience()
        self._furthest = 0
        self._beginnings = 0
        self._is_lost = False
        self._poll_seconds = _FIRST_POLL_SECONDS
        self._waited_seconds = 0.0
        self._verified_bytes = 0
        self._stored: BatchFile | None = None

    def run(self) -> BatchFile:
        """Take one step after another until the file is stored."""
        while self._stored is None:
            self._gateway.transport.check()
            try:
                self._step()
            except GatewayProblem as problem:
                self._bear(problem)
        return self._stored

    def _step(self) -> None:
        if not self._id:
            self._begin()
        elif self._offset is None:
            self._ask()
        elif self._offset < self._file.size_bytes:
            self._patch(self._offset)
        else:
            self._confirm()

    def _begin(self) -> None:
        files.check_unchanged(self._file)
        if self._is_lost and self._is_complete(self._look()):
            return  # by what was lost from sight
        if self._beginnings == BEGINNINGS:
            raise records.unexpected(f"it lost the upload of {self._file.name} again and again")
        try:
            self._id = self._create()
        except GatewayProblem as problem:
            if problem.slug == "file-exists" and self._is_complete(self._look()):
                return  # by somebody else
            raise
        self._furthest = 0
        self._on_upload(self._id)
        self._arrive(0)

    def _create(self) -> str:
        self._beginnings += 1
        headers = {
            "Upload-Length": str(self._file.size_bytes),
            "Upload-Metadata": _metadata(filename=self._file.name, sha256=self._file.sha256),
        }
        response = self._exchange("POST", v1("batches", self._batch, "uploads"), headers)
        found = str(response.headers.get("Location", "")).rstrip("/").rpartition("/")[2]
        if not _UPLOAD.fullmatch(found):
            raise records.unexpected("it names no upload")
        return found

    def _ask(self) -> None:
        response = self._exchange("HEAD", v1("uploads", self._id), {})
        if _number(response, "Upload-Length") == self._file.size_bytes:
            self._arrive(_number(response, "Upload-Offset"))
        else:
            self._forget()

    def _patch(self, offset: int) -> None:
        size_bytes = min(self._piece_bytes, self._file.size_bytes - offset)
        headers = {
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(size_bytes),
            "Upload-Offset": str(offset),
        }
        stop = offset + size_bytes
        body = partial(files.read_chunks, self._file, self._on_sent, offset, stop)
        response = self._exchange("PATCH", v1("uploads", self._id), headers, body)
        reached = _number(response, "Upload-Offset")
        if reached <= offset:
            raise records.unexpected(f"it took nothing at {offset}")
        self._arrive(reached)

    def _arrive(self, offset: int) -> None:
        if offset > self._file.size_bytes:
            raise records.unexpected(f"it holds {offset} bytes of {self._file.size_bytes}")
        self._offset = offset
        if offset > self._furthest:
            self._furthest = offset
            self._patience.renew()
        self._on_sent(offset)

    def _confirm(self) -> None:
        """See whether the gateway has verified the file that has arrived.

        Notes
        -----
        Before the next look, its offset is asked for: by that, a gateway that was stopped in
        the midst of it takes it up again.
        """
        held = self._look()
        if self._is_complete(held):
            return
        if held is None or held.state != "pending":
            raise _discarded(self._file)
        if held.verified_bytes > self._verified_bytes:
            self._verified_bytes, self._waited_seconds = held.verified_bytes, 0.0
        self._wait()
        self._offset = None

    def _wait(self) -> None:
        deadline_seconds = self._gateway.transport.policy.deadline_seconds
        reading_seconds = self._file.size_bytes / _VERIFIED_BYTES_PER_SECOND
        if self._waited_seconds > deadline_seconds + reading_seconds:
            raise _unverified(self._file)
        self._gateway.transport.pause(self._poll_seconds)
        self._waited_seconds += self._poll_seconds
        self._poll_seconds = min(_LONGEST_POLL_SECONDS, 1.5 * self._poll_seconds)

    def _look(self) -> BatchFile | None:
        place = v1("batches", self._batch, "files", self._file.name)
        try:
            response = self._gateway.attempt(Exchange("GET", place))
        except GatewayProblem as problem:
            if problem.status != httpx.codes.NOT_FOUND:
                raise
            return None
        return records.batch_file(records.json_object(response))

    def _is_complete(self, held: BatchFile | None) -> bool:
        if held is None or held.state != "complete":
            return False
        if (held.sha256, held.size_bytes) != (self._file.sha256, self._file.size_bytes):
            raise records.unexpected(f"{self._file.name} was stored with another digest")
        self._stored = held
        self._on_upload("")
        return True

    def _bear(self, problem: GatewayProblem) -> None:
        """Make ready to go on after a failure: where, the gateway will say.

        Raises
        ------
        GatewayProblem
            There is no going on.
        """
        self._offset = None
        if problem.status == _CHECKSUM_MISMATCH or problem.slug == DIGEST_MISMATCH:
            self._forget()
        elif self._id and problem.status in {httpx.codes.NOT_FOUND, httpx.codes.GONE}:
            self._forget()
            return
        elif _is_elsewhere(problem):
            problem = replace(problem, retryable=True)
        self._patience.bear(problem)

    def _forget(self) -> None:
        self._id = ""
        self._is_lost = True
        self._on_upload("")

    def _exchange(
        self,
        method: str,
        place: str,
        headers: dict[str, str],
        body: Callable[[], Iterable[bytes]] | None = None,
    ) -> httpx.Response:
        headers = {"Tus-Resumable": VERSION, **headers}
        return self._gateway.attempt(Exchange(method, place, headers=headers, body=body))


def _metadata(**words: str) -> str:
    return ",".join(f"{key} {b64encode(word.encode()).decode()}" for key, word in words.items())


def _number(response: httpx.Response, header: str) -> int:
    value = response.headers.get(header, "")
    if value.isascii() and value.isdecimal() and len(value) < 20:  # noqa: PLR2004 - below 2**63
        return int(value)
    raise records.unexpected(f"its {header} is {value!r}")


def _is_elsewhere(problem: GatewayProblem) -> bool:
    """Whether the upload stands at another offset than was thought, or somebody is at it."""
    is_conflict = problem.status == httpx.codes.CONFLICT
    return is_conflict and problem.slug in {"upload-conflict", "http-409"}


def _discarded(file: LocalFile) -> GatewayProblem:
    return GatewayProblem(
        DIGEST_MISMATCH,
        _CHECKSUM_MISMATCH,
        "What arrived is not the file that was sent",
        f"The gateway has discarded {file.name}.",
    )


def _unverified(file: LocalFile) -> GatewayProblem:
    return GatewayProblem(
        "unverified",
        0,
        "The gateway has not verified a file in time",
        f"All bytes of {file.name} have arrived.",
    )
