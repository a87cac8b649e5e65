"""Sending the files of one batch, several at a time: what is there already is not sent again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol

from gateway.sdk import files, tus
from gateway.sdk.client import GatewayClient
from gateway.sdk.declaring import Declaration
from gateway.sdk.files import LocalFile
from gateway.sdk.journal import Journal
from gateway.sdk.problems import DIGEST_MISMATCH, AbortedError, DeliveryError, GatewayProblem
from gateway.sdk.records import Batch, BatchFile


class Watcher(Protocol):
    """Told how a delivery goes; from several threads."""

    def found(self, batch: Batch, *, is_new: bool) -> None:
        """Tell which batch it is, and whether it was there before."""

    def sent(self, path: Path, sent_bytes: int) -> None:
        """Tell how many bytes of a file are there by this attempt: a resumed one begins late."""

    def stored(self, file: LocalFile, *, skipped: bool) -> None:
        """Tell that the gateway has a file, and whether it had it before."""


class Sender:
    """Sends the files one batch lacks: large ones in pieces, if the gateway takes them so.

    Parameters
    ----------
    may_replace
        Whether other bytes that the batch holds under a file's name may be removed.
    """

    def __init__(
        self,
        gateway: GatewayClient,
        batch: Batch,
        watcher: Watcher,
        journal: Journal,
        *,
        may_replace: bool,
    ) -> None:
        self._gateway = gateway
        self._batch = batch
        self._held = {file.name: file for file in batch.files}
        self._watcher = watcher
        self._journal = journal
        self._may_replace = may_replace
        self._takes_pieces = False
        self.skipped: set[str] = set()

    def send_all(self, paths: Sequence[Path], parallel: int) -> list[LocalFile]:
        """Send what is not there yet, and return all of it.

        Raises
        ------
        FileChangedError, DeliveryError, GatewayProblem
            Of the first file that failed; the others were stopped.
        """
        if any(path.stat().st_size > files.LARGE_BYTES for path in paths):
            self._takes_pieces = "tus" in self._gateway.capabilities().uploads

        def inspect(path: Path) -> LocalFile:
            return self._journal.inspect(path, self._gateway.transport.check)

        declared = Declaration(self._gateway, self._batch.id, paths, inspect)
        return each(self._gateway, lambda path: self._send(path, declared), paths, parallel)

    def _send(self, path: Path, declared: Declaration) -> LocalFile:
        file, is_there = declared.look(path)
        held = self._held.get(file.name)
        if held is not None and held.state == "complete" and held.sha256 == file.sha256:
            is_there = True
        if is_there:
            self.skipped.add(file.name)
        else:
            self._make_room(file, held)
            self._carry(file)
        self._watcher.stored(file, skipped=is_there)
        return file

    def _make_room(self, file: LocalFile, held: BatchFile | None) -> None:
        if held is None or held.state == "pending":
            return
        if held.state == "complete" and not self._may_replace:
            raise DeliveryError(
                f"{self._batch.id} is open and holds other bytes as {file.name}; "
                "--replace sends yours instead"
            )
        self._gateway.delete_file(self._batch.id, file.name)

    def _carry(self, file: LocalFile) -> None:
        def on_sent(sent_bytes: int) -> None:
            self._watcher.sent(file.path, sent_bytes)

        if not self._takes_pieces or file.size_bytes <= files.LARGE_BYTES:
            self._gateway.put_file(self._batch.id, file, on_sent)
            return
        try:
            tus.send(
                self._gateway,
                self._batch.id,
                file,
                upload=self._journal.upload(self._batch.id, file),
                on_upload=lambda upload: self._journal.note_upload(self._batch.id, file, upload),
                on_sent=on_sent,
            )
        except GatewayProblem as problem:
            if problem.slug == DIGEST_MISMATCH:
                self._journal.forget(file)
            raise


def each(
    gateway: GatewayClient,
    work: Callable[[Path], LocalFile],
    paths: Sequence[Path],
    parallel: int,
) -> list[LocalFile]:
    """Do the work on every path, some at a time; the first failure stops all."""

    def stopping_all(path: Path) -> LocalFile:
        try:
            return work(path)
        except BaseException:
            gateway.transport.abort()
            raise

    with ThreadPoolExecutor(max_workers=parallel) as pool:
        futures = [pool.submit(stopping_all, path) for path in paths]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        except BaseException:
            gateway.transport.abort()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            gateway.transport.resume()
    failures = [error for f in futures if not f.cancelled() and (error := f.exception())]
    if failures:
        raise min(failures, key=lambda error: isinstance(error, AbortedError))
    return [future.result() for future in futures]
