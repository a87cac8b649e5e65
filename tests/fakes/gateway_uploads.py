"""The fake gateway's resumable uploads: tus 1.0.0 as the contract has it, in memory."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CHUNK_BYTES = 64 * 1024
STREAM = "application/offset+octet-stream"


class RefusalError(Exception):
    """An answer that is not a success."""

    def __init__(self, status: int, slug: str, **more: Any) -> None:
        super().__init__(slug)
        self.status, self.slug, self.more = status, slug, more
        self.headers: dict[str, str] = more.pop("headers", {})


@dataclass
class Upload:
    """An upload, and the file it will be."""

    id: str
    batch: dict[str, Any]
    name: str
    length: int
    sha256: str
    content: bytearray = field(default_factory=bytearray)
    is_gone: bool = False

    def standing(self) -> dict[str, str]:
        """Return what HEAD says."""
        offset = str(len(self.content))
        return {"Upload-Offset": offset, "Upload-Length": str(self.length)}


@dataclass
class Uploads:
    """All of them.

    Parameters
    ----------
    received
        Offset and bytes of each PATCH whose bytes were taken in, in order.
    unverified_looks
        How often a file that has arrived is shown as pending before it is complete.
    """

    contents: dict[tuple[str, str], bytes]
    known: dict[str, Upload] = field(default_factory=dict)
    received: list[tuple[int, int]] = field(default_factory=list)
    created: list[dict[str, str]] = field(default_factory=list)
    unverified_looks: int = 0

    def create(self, upload_id: str, batch: dict[str, Any], headers: Mapping[str, str]) -> Upload:
        """Open an upload; an older one of the same name gives way."""
        words = dict(each.split(" ") for each in headers["Upload-Metadata"].split(","))
        told = {key: base64.b64decode(value).decode() for key, value in words.items()}
        self.created.append(told)
        if batch["state"] != "open":
            raise RefusalError(409, "batch-sealed")
        held = _held(batch, told["filename"])
        if held and held["state"] == "complete":
            raise RefusalError(409, "file-exists")
        for other in self.known.values():
            if (other.batch["id"], other.name) == (batch["id"], told["filename"]):
                other.is_gone = True
        length = int(headers["Upload-Length"])
        upload = Upload(upload_id, batch, told["filename"], length, told.get("sha256", ""))
        self.known[upload.id] = upload
        if not held:
            batch["files"].append({"name": upload.name, "state": "pending"})
        return upload

    def find(self, upload_id: str, headers: Mapping[str, str]) -> Upload:
        """Return an upload that is not gone."""
        if headers["Tus-Resumable"] != "1.0.0":
            raise RefusalError(412, "unsupported-version", headers={"Tus-Version": "1.0.0"})
        if upload_id not in self.known:
            raise RefusalError(404, "not-found")
        if self.known[upload_id].is_gone:
            raise RefusalError(410, "upload-gone")
        return self.known[upload_id]

    def append(self, upload: Upload, headers: Mapping[str, str], stream: Any, limit: int) -> None:
        """Take bytes in, as far as they come."""
        announced = int(headers["Content-Length"])
        if headers["Content-Type"] != STREAM:
            raise RefusalError(415, "unsupported-media")
        offset = int(headers["Upload-Offset"])
        if offset != len(upload.content):
            stream.read(announced)
            raise RefusalError(409, "upload-conflict", retryable=True)
        left = min(limit, announced, upload.length - offset)
        try:
            while left and (chunk := stream.read(min(CHUNK_BYTES, left))):
                upload.content += chunk
                left -= len(chunk)
        finally:
            self.received.append((offset, len(upload.content) - offset))

    def finish(self, upload: Upload) -> None:
        """Verify an upload that has arrived, and make it a file."""
        file = _held(upload.batch, upload.name)
        if len(upload.content) < upload.length or file is None:
            return
        digest = hashlib.sha256(upload.content).hexdigest()
        if upload.sha256 not in {"", digest}:
            upload.is_gone = True
            upload.batch["files"].remove(file)
            raise RefusalError(460, "digest-mismatch")
        if self.unverified_looks == 0:
            file |= {"state": "complete", "size_bytes": upload.length, "sha256": digest}
            self.contents[upload.batch["id"], upload.name] = bytes(upload.content)

    def look(self, batch: dict[str, Any], name: str) -> dict[str, Any]:
        """Return a file; one that has arrived becomes complete after some looks."""
        self.unverified_looks = max(0, self.unverified_looks - 1)
        for upload in self.known.values():
            if (upload.batch["id"], upload.name) == (batch["id"], name) and not upload.is_gone:
                self.finish(upload)
        held = _held(batch, name)
        if held is None:
            raise RefusalError(404, "not-found")
        return held


def _held(batch: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((file for file in batch["files"] if file["name"] == name), None)
