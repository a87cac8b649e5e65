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
from dataclasses import dataclass, replace
from functools import partial

import httpx

from gateway.sdk import files, records, rivals
from gateway.sdk.client import GatewayClient
from gateway.sdk.files import LocalFile, OnSent
from gateway.sdk.problems import DIGEST_MISMATCH, GatewayProblem
from gateway.sdk.records import BatchFile
from gateway.sdk.rivals import Rival
from gateway.sdk.transport import Exchange, Patience, v1

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
        id=upload if _UPLOAD.fullmatch(upload) else "",
        on_upload=on_upload or (lambda _: None),
        on_sent=on_sent or (lambda _: None),
        piece_bytes=piece_bytes,
        patience=gateway.transport.patience(),
        rival=Rival(gateway.transport),
    )
    return sending.run()


@dataclass
class _Upload:
    """One file on its way; without ``id`` it has to begin, without ``offset`` to ask for it."""

    gateway: GatewayClient
    batch: str
    file: LocalFile
    id: str
    on_upload: OnUpload
    on_sent: OnSent
    piece_bytes: int
    patience: Patience
    rival: Rival
    offset: int | None = None
    furthest: int = 0
    beginnings: int = 0
    is_lost: bool = False
    poll_seconds: float = _FIRST_POLL_SECONDS
    waited_seconds: float = 0.0
    verified_bytes: int = 0
    stored: BatchFile | None = None

    def run(self) -> BatchFile:
        """Take one step after another until the file is stored."""
        while self.stored is None:
            self.gateway.transport.check()
            try:
                self._step()
            except GatewayProblem as problem:
                self._bear(problem)
        return self.stored

    def _step(self) -> None:
        if not self.id:
            self._begin()
        elif self.offset is None:
            self._ask()
        elif self.offset < self.file.size_bytes:
            self._patch(self.offset)
        else:
            self._confirm()

    def _begin(self) -> None:
        files.check_unchanged(self.file)
        if self.is_lost:
            held = self._look()
            if self._is_complete(held):
                return  # by what was lost from sight
            if self.rival.is_waited_for(held):
                self.patience.renew()
                return
        if self.beginnings == BEGINNINGS:
            raise records.unexpected(f"it lost the upload of {self.file.name} again and again")
        try:
            self.id = self._create()
        except GatewayProblem as problem:
            if problem.slug == "file-exists" and self._is_complete(self._look()):
                return  # by somebody else
            raise
        self.beginnings += 1
        self.furthest = 0
        self.on_upload(self.id)
        self._arrive(0)

    def _create(self) -> str:
        headers = {
            "Upload-Length": str(self.file.size_bytes),
            "Upload-Metadata": _metadata(filename=self.file.name, sha256=self.file.sha256),
        }
        response = self._exchange("POST", v1("batches", self.batch, "uploads"), headers)
        found = str(response.headers.get("Location", "")).rstrip("/").rpartition("/")[2]
        if not _UPLOAD.fullmatch(found):
            raise records.unexpected("it names no upload")
        return found

    def _ask(self) -> None:
        response = self._exchange("HEAD", v1("uploads", self.id), {})
        if _number(response, "Upload-Length") == self.file.size_bytes:
            self._arrive(_number(response, "Upload-Offset"))
        else:
            self._forget()

    def _patch(self, offset: int) -> None:
        size_bytes = min(self.piece_bytes, self.file.size_bytes - offset)
        headers = {
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(size_bytes),
            "Upload-Offset": str(offset),
        }
        stop = offset + size_bytes
        body = partial(files.read_chunks, self.file, self.on_sent, offset, stop)
        response = self._exchange("PATCH", v1("uploads", self.id), headers, body)
        reached = _number(response, "Upload-Offset")
        if reached <= offset:
            raise records.unexpected(f"it took nothing at {offset}")
        self._arrive(reached)

    def _arrive(self, offset: int) -> None:
        if offset > self.file.size_bytes:
            raise records.unexpected(f"it holds {offset} bytes of {self.file.size_bytes}")
        self.offset = offset
        if offset > self.furthest:
            self.furthest = offset
            self.patience.renew()
        self.on_sent(offset)

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
            raise _discarded(self.file)
        if held.verified_bytes > self.verified_bytes:
            self.verified_bytes, self.waited_seconds = held.verified_bytes, 0.0
        self._wait()
        self.offset = None

    def _wait(self) -> None:
        deadline_seconds = self.gateway.transport.policy.deadline_seconds
        reading_seconds = self.file.size_bytes / _VERIFIED_BYTES_PER_SECOND
        if self.waited_seconds > deadline_seconds + reading_seconds:
            raise _unverified(self.file)
        self.gateway.transport.pause(self.poll_seconds)
        self.waited_seconds += self.poll_seconds
        self.poll_seconds = min(_LONGEST_POLL_SECONDS, 1.5 * self.poll_seconds)

    def _look(self) -> BatchFile | None:
        place = v1("batches", self.batch, "files", self.file.name)
        try:
            response = self.gateway.attempt(Exchange("GET", place))
        except GatewayProblem as problem:
            if problem.status != httpx.codes.NOT_FOUND:
                raise
            return None
        return records.batch_file(records.json_object(response))

    def _is_complete(self, held: BatchFile | None) -> bool:
        if held is None or held.state != "complete" or held.sha256 != self.file.sha256:
            return False
        self.stored = held
        self.on_upload("")
        return True

    def _bear(self, problem: GatewayProblem) -> None:
        """Make ready to go on after a failure: where, the gateway will say.

        Raises
        ------
        GatewayProblem
            There is no going on.
        """
        self.offset = None
        if problem.status == _CHECKSUM_MISMATCH or problem.slug == DIGEST_MISMATCH:
            self._forget()
        elif self.id and problem.status in {httpx.codes.NOT_FOUND, httpx.codes.GONE}:
            self._forget()
            return
        elif problem.slug == "batch-sealed" and self._is_complete(self._look()):
            return  # by another sender of this delivery
        elif rivals.is_elsewhere(problem):
            self.is_lost = self.is_lost or not self.id
            problem = replace(problem, retryable=True)
        self.patience.bear(problem)

    def _forget(self) -> None:
        self.id = ""
        self.is_lost = True
        self.on_upload("")

    def _exchange(
        self,
        method: str,
        place: str,
        headers: dict[str, str],
        body: Callable[[], Iterable[bytes]] | None = None,
    ) -> httpx.Response:
        headers = {"Tus-Resumable": VERSION, **headers}
        return self.gateway.attempt(Exchange(method, place, headers=headers, body=body))


def _metadata(**words: str) -> str:
    return ",".join(f"{key} {b64encode(word.encode()).decode()}" for key, word in words.items())


def _number(response: httpx.Response, header: str) -> int:
    value = response.headers.get(header, "")
    if value.isascii() and value.isdecimal() and len(value) < 20:  # noqa: PLR2004 - below 2**63
        return int(value)
    raise records.unexpected(f"its {header} is {value!r}")


def _discarded(file: LocalFile) -> GatewayProblem:
    return GatewayProblem(
        DIGEST_MISMATCH,
        _CHECKSUM_MISMATCH,
        "What arrived is not the file that was sent",
        f"The gateway does not hold {file.name} as it is here.",
    )


def _unverified(file: LocalFile) -> GatewayProblem:
    return GatewayProblem(
        "unverified",
        0,
        "The gateway has not verified a file in time",
        f"All bytes of {file.name} have arrived.",
    )
